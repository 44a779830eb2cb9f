"""Witnesses of operators that reduce, normalize along an axis, or pool."""

from __future__ import annotations

from channel_witnesses.network import MS, POSITIVE, Operator, Witness, image, network, sequence, vector


def reductions() -> dict[Operator, list[Witness]]:
    found: dict[Operator, list[Witness]] = {}
    for name in (
        *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum"),
        *("ReduceLogSumExp", "ReduceSumSquare"),
    ):
        found["", name] = [
            sequence(f"{POSITIVE} o = {name}(u, $ints[1])"),
            sequence(f"{POSITIVE} r = {name}(u, $ints[2]) o = Mul(h, r)"),
        ]
    for name in ("ArgMax", "ArgMin"):
        found["", name] = [
            vector(
                f"t = Unsqueeze(h, $ints[2]) u = Mul(t, $f32[3]) v = {name}<axis=2,keepdims=0>(u) o = Cast<to=1>(v)"
            ),
            sequence(f"v = {name}<axis=2>(h) r = Cast<to=1>(v) o = Mul(h, r)"),
        ]
    found["", "TopK"] = [
        sequence("t = Transpose<perm=[0,2,1]>(h) k, i = TopK<axis=2>(t, $ints[2]) o = Transpose<perm=[0,2,1]>(k)"),
        sequence("k, i = TopK(h, $ints[8]) o = Mul(k, $real[2])"),
    ]  # fmt: skip
    for name in ("Softmax", "LogSoftmax", "Hardmax"):
        found["", name] = [sequence(f"o = {name}<axis=1>(h)"), sequence(f"o = {name}<axis=2>(h)")]
    found[MS, "BiasSoftmax"] = [
        network(
            "g (float[2,7,6] x) => (float[2,7,5] y) <float[2,8,7] v> {{ h = MatMul(x, $f32[6,8])"
            " t = Transpose<perm=[0,2,1]>(h) {body} o = Transpose<perm=[0,2,1]>(v) y = MatMul(o, $f32[{width},5]) }}",
            f"v = {MS}.BiasSoftmax<axis=2,is_inner_broadcast=0>(t, $f32[1,8,7])", runs=False,
        )
    ]  # fmt: skip
    for name in ("MaxPool", "AveragePool", "LpPool"):
        found["", name] = [image(f"o = {name}<kernel_shape=[2,2]>(h)")]
    for name in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        found["", name] = [image(f"o = {name}(h)")]
    grid = ", float[n,4,5,2] grid"
    found["", "GridSample"] = [image("o = GridSample(h, grid)", more=grid)]
    found[MS, "GridSample"] = [image(f"o = {MS}.GridSample(h, grid)", more=grid, shapes="float[n,8,4,5] o", runs=False)]
    boxes = "$reals[0,0,0,5,4,0,1,1,3,3]"
    found["", "RoiAlign"] = [
        image(
            "b = Reshape($reals[0,0,5,4,1,1,3,3], $ints[2,4]) o = RoiAlign<output_height=2,output_width=2>(h, b, $ints[0,1])"
        )
    ]
    found["", "MaxRoiPool"] = [image(f"b = Reshape({boxes}, $ints[2,5]) o = MaxRoiPool<pooled_shape=[2,2]>(h, b)")]
    return found


def normalizations() -> dict[Operator, list[Witness]]:
    vector = "$positive[8]"
    found: dict[Operator, list[Witness]] = {
        ("", "BatchNormalization"): [image(f"o = BatchNormalization(h, $f32[8], $f32[8], $f32[8], {vector})")],
        ("", "InstanceNormalization"): [image("o = InstanceNormalization(h, $f32[8], $f32[8])")],
        ("", "LayerNormalization"): [sequence("o = LayerNormalization(h, $f32[8], $f32[8])")],
        ("", "RMSNormalization"): [sequence("o = RMSNormalization(h, $f32[8])", opset=23)],
        ("", "SimplifiedLayerNormalization"): [sequence("o = SimplifiedLayerNormalization(h, $f32[8])", shapes="float[n,s,8] o")],
        (MS, "SimplifiedLayerNormalization"): [
            sequence(f"o = {MS}.SimplifiedLayerNormalization(h, $f32[8])", shapes="float[n,s,8] o", runs=False)
        ],
        (MS, "SkipLayerNormalization"): [sequence(f"t = MatMul(x, $f32[6,8]) o = {MS}.SkipLayerNormalization(h, t, $f32[8], $f32[8], $f32[8])")],
        (MS, "SkipSimplifiedLayerNormalization"): [
            sequence(f"t = MatMul(x, $f32[6,8]) o = {MS}.SkipSimplifiedLayerNormalization(h, t, $f32[8], $f32[8])")
        ],
        (MS, "EmbedLayerNormalization"): [
            Witness(
                text=f"g (int32[n,s] ids, int32[n,s] kinds) => (float[n,s,5] y) {{ o, i = {MS}.EmbedLayerNormalization(ids,"
                " kinds, $f32[11,8], $f32[20,8], $f32[3,8], $f32[8], $f32[8]) y = MatMul(o, $f32[8,5]) }"
            )
        ],
        ("", "LpNormalization"): [sequence("o = LpNormalization<axis=2>(h)"), sequence("o = LpNormalization<axis=1>(h)")],
        ("", "MeanVarianceNormalization"): [
            image("o = MeanVarianceNormalization<axes=[2,3]>(h)"),
            image("o = MeanVarianceNormalization<axes=[1,2,3]>(h)"),
        ],
        ("", "LRN"): [
            image("t = Transpose<perm=[0,2,1,3]>(h) u = LRN<size=3>(t) o = Transpose<perm=[0,2,1,3]>(u)"),
            image("o = LRN<size=3,alpha=0.5>(h)"),
        ],
        ("", "GroupNormalization"): [
            image("o = GroupNormalization<num_groups=4>(h, $f32[8], $f32[8])", opset=21, reference=True)
        ],
    }  # fmt: skip
    last = "t = Transpose<perm=[0,2,3,1]>(h)", "o = Transpose<perm=[0,3,1,2]>(u)"
    for name, skip in (("GroupNorm", ""), ("SkipGroupNorm", ", t")):
        body = f"{last[0]} u = {MS}.{name}<groups=4,activation=0>(t, $f32[8], $f32[8]{skip}) {last[1]}"
        found[MS, name] = [image(body, shapes="float[n,8,6,8] u", runs=False)]
    return found
