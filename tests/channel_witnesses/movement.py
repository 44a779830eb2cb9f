"""Witnesses of operators that move, pick, make or count coordinates."""

from __future__ import annotations

from channel_witnesses.network import Operator, Witness, image, network, sequence, vector


def movement() -> dict[Operator, list[Witness]]:
    heads = "$ints[0,0,2,4]"
    nearest = 'Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">'
    return {
        ("", "Reshape"): [
            sequence(f"t = Reshape(h, {heads}) u = Softmax(t) o = Reshape(u, $ints[0,0,8])"),
            sequence("t = Relu(h) o = Reshape(t, $ints[0,-1,8])"),
        ],
        ("", "Flatten"): [
            network("g (float[n,3,4,4] x) => (float[n,5] y) <{shapes}> {{ h = Conv<kernel_shape=[2,2]>(x, $f32[8,3,2,2])"
                     " {body} y = MatMul(o, $f32[{width},5]) }}", "o = Flatten(h)", width=72)
        ],
        ("", "Squeeze"): [vector("t = Unsqueeze(h, $ints[1]) u = Relu(t) o = Squeeze(u, $ints[1])")],
        ("", "Unsqueeze"): [vector("t = Unsqueeze(h, $ints[1]) u = Relu(t) o = Squeeze(u, $ints[1])")],
        ("", "Transpose"): [sequence("t = Transpose<perm=[0,2,1]>(h) u = Mul(t, $f32[8,1]) o = Transpose<perm=[0,2,1]>(u)")],
        ("", "Concat"): [sequence("t = MatMul(x, $f32[6,6]) o = Concat<axis=2>(h, t)", width=14)],
        ("", "Split"): [
            sequence("t = MatMul(h, $f32[8,14]) a, b = Split<axis=2>(t, $ints[8,6]) s1 = Sigmoid(a) s2 = MatMul(b, $f32[6,8])"
                      " o = Mul(s1, s2)"),
            sequence("a, b = Split<axis=2,num_outputs=2>(h) s1 = Sigmoid(a) o = Mul(s1, b)", width=4),
        ],
        ("", "Slice"): [
            sequence("a = Slice(h, $ints[0], $ints[3], $ints[2]) b = Slice(h, $ints[3], $ints[8], $ints[2])"
                      " t = MatMul(b, $f32[5,3]) o = Add(a, t)", width=3),
            sequence("o = Slice(h, $ints[1], $ints[8], $ints[2], $ints[2])", width=4),
        ],
        ("", "Gather"): [
            sequence("o = Gather<axis=2>(h, $ints[7,0,2,3,5,1])", width=6),
            Witness(text="g (int64[n,s] ids) => (float[n,s,5] y) { o = Gather($f32[11,8], ids) y = MatMul(o, $f32[8,5]) }"),
        ],
        ("", "GatherND"): [
            sequence("g = GatherND<batch_dims=1>(h, places) t = MatMul(g, $f32[8,4]) u = Unsqueeze(t, $ints[1])"
                      " m = MatMul(h, $f32[8,4]) o = Add(m, u)", more=", int64[n,1] places", width=4)
        ],
        ("", "CumSum"): [sequence("o = CumSum(h, $int[1])"), sequence("o = CumSum(h, $int[2])")],
        ("", "Trilu"): [
            sequence("t = Unsqueeze(h, $ints[3]) u = Mul(t, $f32[1,4]) w = Transpose<perm=[2,0,1,3]>(u) v = Trilu(w)"
                      " m = ReduceSum<keepdims=0>(v, $ints[3]) o = Transpose<perm=[1,2,0]>(m)"),
            sequence("o = Trilu(h)"),
        ],
        ("", "ReverseSequence"): [
            sequence("o = ReverseSequence<batch_axis=0,time_axis=1>(h, lengths)", more=", int64[n] lengths"),
            network("g (float[3,s,6] x) => (float[3,s,5] y) <{shapes}> {{ h = MatMul(x, $f32[6,8]) {body} y = MatMul(o, $f32[{width},5]) }}",
                     "t = Transpose<perm=[2,0,1]>(h) u = ReverseSequence<batch_axis=1,time_axis=0>(t, $ints[3,6,8]) o = Transpose<perm=[1,2,0]>(u)"),
        ],
        ("", "DepthToSpace"): [image(f'o = DepthToSpace<blocksize=2,mode="{mode}">(h)', width=2) for mode in ("DCR", "CRD")]
        + [vector(f't = Unsqueeze(h, $ints[2,3]) u = DepthToSpace<blocksize=2,mode="{mode}">(t) o = Flatten(u)') for mode in ("DCR", "CRD")],
        ("", "SpaceToDepth"): [image("o = SpaceToDepth<blocksize=2>(h)", width=32)],
        ("", "Expand"): [
            sequence("t = Expand($f32[1,1,8], $ints[1,4,1]) u = ReduceSum(t, $ints[1]) o = Mul(h, u)"),
            sequence("m = ReduceMean(h, $ints[2]) t = Expand(m, $ints[1,1,8]) o = Sub(h, t)"),
        ],
        ("", "Tile"): [
            sequence("o = Tile(h, $ints[1,1,2])", width=16),
            sequence("m = ReduceMean(h, $ints[2]) t = Tile(m, $ints[1,1,8]) o = Sub(h, t)"),
        ],
        ("", "ConstantOfShape"): [sequence("t = ConstantOfShape<value=float[1] {2.0}>($ints[8]) o = Mul(h, t)")],
        ("", "Pad"): [
            sequence("o = Pad(h, $ints[0,0,1,0,0,2])", width=11),
            sequence("o = Pad(h, $ints[0,0,-2,0,0,0])", width=6),
            sequence('o = Pad<mode="reflect">(h, $ints[0,0,1,0,0,2])', width=11),
        ],
        ("", "Resize"): [
            image(f"o = {nearest}(h, , $reals[1,1,2,2])"),
            network("g (float[2,3,4,4] x) => (float[2,5,8,8] y) <{shapes}> {{ h = Conv<kernel_shape=[1,1]>(x, $f32[8,3,1,1])"
                     " {body} y = Conv<kernel_shape=[1,1]>(o, $f32[5,{width},1,1]) }}", f"o = {nearest}(h, , , $ints[2,8,8,8])"),
            image(f"o = {nearest}(h, , $reals[1,2,1,1])", width=16),
        ],
        ("", "Upsample"): [image('o = Upsample<mode="nearest">(h, $reals[1,1,2,2])', opset=9)],
        ("", "Shape"): [
            sequence("d = Shape<start=2>(h) f = Cast<to=1>(d) r = Sqrt(f) o = Div(h, r)"),
        ],
        ("", "Size"): [
            network("g (float[2,4,6] x) => (float[2,4,5] y) <{shapes}> {{ h = MatMul(x, $f32[6,8]) {body} y = MatMul(o, $f32[{width},5]) }}",
                     "d = Size(h) f = Cast<to=1>(d) r = Sqrt(f) o = Div(h, r)"),
        ],
    }  # fmt: skip
