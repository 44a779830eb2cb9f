"""With operands of ones, every product adds one to the sum of the outputs: that sum is the number of MACs."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from analysis_graphs import graph, node_of, proto
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.analysis import ConcreteShapes, UnknownCost, assume_sizes, cost, multiply_accumulates


def counted(model: ir.Model, op_type: str) -> int:
    return multiply_accumulates(node_of(model, op_type), ConcreteShapes(model, assume_sizes(model)))


def products(model: onnx.ModelProto) -> int:
    """The sum of the outputs for inputs of ones."""
    feed = {i.name: np.ones([d.dim_value for d in i.type.tensor_type.shape.dim], np.float32) for i in model.graph.input}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return int(sum(np.sum(out, dtype=np.float64) for out in session.run(None, feed)))


def assert_counts(text: str, op_type: str) -> None:
    model = proto(text)
    expected = products(model)
    assert expected > 0
    assert counted(ir.from_proto(model), op_type) == expected


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2),
    st.integers(1, 2),
)  # fmt: skip
def test_convolution(batch, groups, inner, outer, rank, stride, dilation):
    kernel, size = [3, 2][:rank], [9, 8][:rank]
    out = [(s - dilation * (k - 1) - 1) // stride + 1 for s, k in zip(size, kernel, strict=True)]
    text = f"""g (float[{batch},{groups * inner},{",".join(map(str, size))}] x,
      float[{groups * outer},{inner},{",".join(map(str, kernel))}] w)
      => (float[{batch},{groups * outer},{",".join(map(str, out))}] y) {{
      y = Conv<group={groups}, strides={[stride] * rank}, dilations={[dilation] * rank}>(x, w) }}"""
    assert_counts(text, "Conv")


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution(groups):
    assert_counts(
        f"""g (float[2,4,5,3] x, float[4,{6 // groups},3,2] w) => (float[2,6,11,6] y) {{
        y = ConvTranspose<group={groups}, strides=[2,2]>(x, w) }}""",
        "ConvTranspose",
    )


def test_padding_counts_as_if_computed():
    same = graph("g (float[1,3,8,8] x, float[4,3,3,3] w) => (float[1,4,8,8] y) { y = Conv<pads=[1,1,1,1]>(x, w) }")
    assert counted(same, "Conv") == 4 * 8 * 8 * 3 * 9


@pytest.mark.parametrize("a, b", [("[5,7]", ""), ("[7,5]", "transA=1"), ("[5,7]", "transB=1")])
def test_gemm(a, b):
    other = "[3,7]" if b == "transB=1" else "[7,3]"
    attributes = f"<{b}>" if b else ""
    assert_counts(f"g (float{a} x, float{other} w) => (float[5,3] y) {{ y = Gemm{attributes}(x, w) }}", "Gemm")


@pytest.mark.parametrize(
    "a, b, y",
    [
        ("2,5,7", "7,3", "2,5,3"),
        ("4,1,5,7", "2,7,3", "4,2,5,3"),
        ("7", "7,3", "3"),
        ("2,5,7", "7", "2,5"),
        ("7", "7", ""),
    ],
)
def test_matmul_broadcasts_batches(a, b, y):
    assert_counts(f"g (float[{a}] x, float[{b}] w) => (float[{y}] y) {{ y = MatMul(x, w) }}", "MatMul")


@pytest.mark.parametrize(
    "equation, a, b, y",
    [
        ("bhid,bhjd->bhij", "2,3,4,5", "2,3,6,5", "2,3,4,6"),
        ("...ij,jk->...ik", "2,3,4,5", "5,6", "2,3,4,6"),
        ("btc , oc -> bto", "2,4,3", "5,3", "2,4,5"),
        ("i,j->ij", "3", "4", "3,4"),
    ],
)
def test_einsum(equation, a, b, y):
    assert_counts(
        f'g (float[{a}] x, float[{b}] w) => (float[{y}] y) {{ y = Einsum<equation="{equation}">(x, w) }}', "Einsum"
    )


def test_einsum_of_three_operands_is_unknown():
    text = 'g (float[2,3] x, float[3,4] w, float[4,5] v) => (float[2,5] y) { y = Einsum<equation="ij,jk,kl->il">(x, w, v) }'
    with pytest.raises(UnknownCost, match="several orders"):
        counted(graph(text), "Einsum")


@pytest.mark.parametrize("op_type, gates", [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrence_is_its_products_per_step(op_type, gates, directions):
    steps, batch, width, hidden = 6, 2, 5, 3
    rows = gates * hidden
    direction = '"bidirectional"' if directions == 2 else '"forward"'
    model = graph(
        f"""g (float[{steps},{batch},{width}] x, float[{directions},{rows},{width}] w, float[{directions},{rows},{hidden}] r)
        => (float[{steps},{directions},{batch},{hidden}] y) {{
        y = {op_type}<hidden_size={hidden}, direction={direction}>(x, w, r) }}"""
    )
    per_step = batch * rows * width + batch * rows * hidden
    assert counted(model, op_type) == directions * steps * per_step


def test_attention_is_its_two_products():
    """Four query heads share two key heads; widths of keys and values differ; a past of 3 is prepended."""
    fused = graph(
        """g (float[2,4,5,8] q, float[2,2,6,8] k, float[2,2,6,7] v, float[2,2,3,8] pk, float[2,2,3,7] pv)
        => (float[2,4,5,7] y, float[2,2,9,8] ck, float[2,2,9,7] cv) { y, ck, cv = Attention(q, k, v, , pk, pv) }""",
        opset=23,
    )
    parts = graph(
        """g (float[2,4,5,8] q, float[2,4,8,9] k, float[2,4,9,7] v) => (float[2,4,5,7] y) {
        s = MatMul(q, k) p = Softmax(s) y = MatMul(p, v) }"""
    )
    assert counted(fused, "Attention") == cost(parts).macs


def test_attention_of_rank_three_unpacks_heads():
    packed = graph(
        """g (float[2,5,32] q, float[2,9,16] k, float[2,9,14] v) => (float[2,5,28] y) {
        y = Attention<q_num_heads=4, kv_num_heads=2>(q, k, v) }""",
        opset=23,
    )
    assert counted(packed, "Attention") == 2 * 4 * 5 * 9 * (8 + 7)


QUANTIZED = {
    "QLinearConv": "y = QLinearConv(x, s, z, w, s, z, s, z)",
    "ConvInteger": "y = ConvInteger(x, w)",
}


@pytest.mark.parametrize("op_type", QUANTIZED)
def test_integer_convolutions_count_like_float_ones(op_type):
    dtype = "uint8" if op_type == "QLinearConv" else "int32"
    model = graph(
        f"g (uint8[1,3,8,8] x, uint8[4,3,3,3] w) => ({dtype}[1,4,6,6] y) {{ {QUANTIZED[op_type]} }}",
        s=np.float32(0.1).reshape(()), z=np.uint8(0).reshape(()),
    )  # fmt: skip
    assert counted(model, op_type) == 4 * 36 * 27


def test_integer_products_count_like_float_ones():
    model = graph(
        """g (uint8[2,5,7] x, uint8[7,3] w) => (int32[2,5,3] y, uint8[2,5,3] q) {
        y = MatMulInteger(x, w) q = QLinearMatMul(x, s, z, w, s, z, s, z) }""",
        s=np.float32(0.1).reshape(()), z=np.uint8(0).reshape(()),
    )  # fmt: skip
    assert counted(model, "MatMulInteger") == counted(model, "QLinearMatMul") == 2 * 5 * 7 * 3


def test_packed_products_of_the_runtime():
    model = graph(
        """g (float[2,5,64] x, uint8[48,2,16] w, float[96] s) => (float[2,5,48] y) {
        y = com.microsoft.MatMulNBits<K=64, N=48, bits=4, block_size=32>(x, w, s) }""",
        domains='"com.microsoft": 1',
    )
    assert counted(model, "MatMulNBits") == 2 * 5 * 64 * 48


def test_fused_product_of_the_runtime_knows_its_transposition():
    model = graph(
        """g (float[2,7,5] x, float[2,3,7] w) => (float[n,a,b] y) {
        y = com.microsoft.FusedMatMul<transA=1, transB=1>(x, w) }""",
        domains='"com.microsoft": 1',
    )
    assert counted(model, "FusedMatMul") == 2 * 5 * 3 * 7


def test_foreign_operators_are_unknown_not_zero():
    model = graph("g (float[4] x) => (float[4] y) { y = my.domain.Magic(x) }", domains='"my.domain": 1')
    with pytest.raises(UnknownCost, match=r"my\.domain::Magic"):
        counted(model, "Magic")


def test_unknown_shape_is_said():
    model = graph(
        "g (float[2,3] x) => (float[n,m] y) { h = my.domain.Magic(x) y = MatMul(h, h) }", domains='"my.domain": 1'
    )
    with pytest.raises(UnknownCost, match="input 0 'h'"):
        counted(model, "MatMul")


def test_elementwise_operators_have_no_macs():
    assert cost(graph("g (float[2,3] x) => (float[2,3] y) { h = Mul(x, x) y = Softmax(h) }")).macs == 0
