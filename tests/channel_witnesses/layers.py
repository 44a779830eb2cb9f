"""Witnesses of products, convolutions, recurrent layers and attention."""

from __future__ import annotations

from channel_witnesses.network import BARE, MS, Operator, Witness, image, network, sequence, vector


def products() -> dict[Operator, list[Witness]]:
    found: dict[Operator, list[Witness]] = {
        ("", "MatMul"): [sequence("t = Relu(h) o = MatMul(t, $f32[8,8])"),
                         sequence("t = Transpose<perm=[0,2,1]>(h) s1 = MatMul(h, t) p = Softmax(s1) o = MatMul(p, h)")],
        (MS, "FusedMatMul"): [sequence(f"o = {MS}.FusedMatMul<transB=1>(h, $f32[8,8])")],
        (MS, "TransposeMatMul"): [sequence(f"o = {MS}.TransposeMatMul<transB=1>(h, $f32[8,8])")],
        ("", "Gemm"): [vector("o = Gemm<transB=1>(h, $f32[10,8], $f32[10])", width=10)],
        (MS, "FusedGemm"): [vector(f'o = {MS}.FusedGemm<transB=1,activation="Relu">(h, $f32[10,8], $f32[10])', width=10)],
        ("", "Einsum"): [sequence('o = Einsum<equation="nsc,cd->nsd">(h, $f32[8,9])', width=9)],
        ("", "Conv"): [
            image("o = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(h, $f32[10,8,3,3], $f32[10])", width=10),
            image("o = Conv<kernel_shape=[1,1],group=4>(h, $f32[12,2,1,1], $f32[12])", width=12),
            image("o = Conv<kernel_shape=[3,3],group=8>(h, $f32[8,1,3,3])"),
        ],
        ("", "ConvTranspose"): [
            image("o = ConvTranspose<kernel_shape=[2,2]>(h, $f32[8,10,2,2], $f32[10])", width=10),
            image("o = ConvTranspose<kernel_shape=[2,2],group=4>(h, $f32[8,3,2,2], $f32[12])", width=12),
        ],
        (MS, "FusedConv"): [
            image(f'o = {MS}.FusedConv<kernel_shape=[1,1],activation="Relu">(h, $f32[8,8,1,1], $f32[8], h)'),
            image(f'o = {MS}.FusedConv<kernel_shape=[1,1],group=4,activation="Relu">(h, $f32[12,2,1,1], $f32[12])', width=12),
        ],
    }  # fmt: skip
    for name, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        weights = f"$f32[1,{gates * 9},8], $f32[1,{gates * 9},9], $f32[1,{gates * 18}]"
        both = f"$f32[2,{gates * 7},8], $f32[2,{gates * 7},7], $f32[2,{gates * 14}]"
        found["", name] = [
            sequence(f"u, e = {name}<hidden_size=9>(h, {weights}) o = Squeeze(u, $ints[1])", width=9),
            sequence(
                f'u, e = {name}<hidden_size=7,direction="bidirectional">(h, {both})'
                " v = Transpose<perm=[0,2,1,3]>(u) o = Reshape(v, $ints[0,0,-1])", width=14,
            ),
        ]  # fmt: skip
    return found


def attention() -> dict[Operator, list[Witness]]:
    grouped = "q = MatMul(x, $f32[6,16]) k = MatMul(x, $f32[6,8]) v = MatMul(x, $f32[6,12])"
    same = "q = MatMul(x, $f32[6,16]) k = MatMul(x, $f32[6,16]) v = MatMul(x, $f32[6,12])"
    places = ", int64[n,s] places"
    rotated = "{0} o = Attention<q_num_heads=4,kv_num_heads=4>(r, k, v) y = MatMul(o, $f32[12,5])"
    tables = "$f32[32,2], $f32[32,2]"
    return {
        ("", "Attention"): [
            network(BARE, f"{grouped} o = Attention<q_num_heads=4,kv_num_heads=2>(q, k, v) y = MatMul(o, $f32[24,5])", opset=23),
            network(BARE, f"{same} t = ReduceMean(x, $ints[2]) r = Unsqueeze(t, $ints[1]) e = Transpose<perm=[0,1,3,2]>(r)"
                     " d = Add(r, e) u = Mul(d, $f32[1,4,1,1]) o = Attention<q_num_heads=4,kv_num_heads=4>(q, k, v, u)"
                     " y = MatMul(o, $f32[12,5])", opset=23),
        ],
        (MS, "MultiHeadAttention"): [
            network(BARE, f"{same} o = {MS}.MultiHeadAttention<num_heads=4>(q, k, v, $f32[44]) y = MatMul(o, $f32[12,5])"),
        ],
        (MS, "Attention"): [
            sequence(f"o = {MS}.Attention<num_heads=4>(h, $f32[8,36], $f32[36])", width=12),
            sequence(f"o = {MS}.Attention<num_heads=4,qkv_hidden_sizes=[8,8,12]>(h, $f32[8,28], $f32[28])", width=12),
        ],
        ("", "RotaryEmbedding"): [
            network(BARE, same + rotated.format(f" r = RotaryEmbedding<num_heads=4>(q, {tables}, places)"), opset=23, more=places)
        ],
        (MS, "RotaryEmbedding"): [
            network(BARE, same + rotated.format(f" r = {MS}.RotaryEmbedding<num_heads=4>(q, places, {tables})"), opset=23,
                     more=places)
        ],
    }  # fmt: skip
