import numpy as np
import pytest
from analysis_graphs import floats, graph

from irc.analysis import Weights, assume_sizes, cost, parameters, peak_memory
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.errors import UsageError

QDQ = """g (float[n,4] x) => (float[n,3] y) {
  q = QuantizeLinear(x, xs, xz) d = DequantizeLinear(q, xs, xz) w = DequantizeLinear<axis=1>(wq, ws, wz)
  y = MatMul(d, w) }"""
SCALES = {"xs": np.float32(0.1), "xz": np.uint8(7), "ws": floats(3), "wz": np.zeros(3, np.int8)}


def by_node(model, **sizes):
    return {node.node: node for node in cost(model, sizes).nodes}


def test_totals_for_assumed_and_given_sizes():
    model = graph("g (float[batch,4] x) => (float[batch,3] y) { y = MatMul(x, w) }", w=floats(4, 3))
    assert cost(model).macs == 12
    found = cost(model, {"batch": 5})
    assert found.macs == 60
    assert found.moved_bytes == 4 * (5 * 4 + 4 * 3 + 5 * 3)
    with pytest.raises(UsageError, match="no such dynamic dimension"):
        cost(model, {"bach": 5})


def test_quantized_operands_are_named():
    model = graph(QDQ, wq=np.zeros((4, 3), np.int8), **SCALES)
    assert cost(model).macs_by_operands() == {"uint8 x int8 (QDQ)": 12}


def test_operands_through_layout_operators():
    text = QDQ.replace("y = MatMul(d, w)", "t = Transpose<perm=[1,0]>(w) y = MatMul(d, t)")
    model = graph(text, wq=np.zeros((3, 4), np.int8), **{**SCALES, "ws": floats(4), "wz": np.zeros(4, np.int8)})
    assert cost(model).macs_by_operands() == {"uint8 x int8 (QDQ)": 12}


def test_weight_only_and_dynamic_operands():
    weight_only = graph(
        "g (float[n,4] x) => (float[n,3] y) { w = DequantizeLinear<axis=1>(wq, ws, wz) y = MatMul(x, w) }",
        wq=np.zeros((4, 3), np.int8), ws=floats(3), wz=np.zeros(3, np.int8),
    )  # fmt: skip
    dynamic = graph(
        "g (float[n,4] x) => (int32[n,3] y) { q, s, z = DynamicQuantizeLinear(x) y = MatMulInteger(q, wq, z) }",
        wq=np.zeros((4, 3), np.int8),
    )
    assert list(cost(weight_only).macs_by_operands()) == ["float32 x int8 weight"]
    assert list(cost(dynamic).macs_by_operands()) == ["uint8 x int8"]


def test_weights_belong_to_the_node_that_uses_them_not_to_what_unpacks_them():
    model = graph(QDQ, wq=np.zeros((4, 3), np.int8), **SCALES)
    nodes = by_node(model)
    assert "w" not in nodes  # unpacking happens when the model is loaded
    assert (nodes["y"].parameters, nodes["y"].weight_bytes) == (12, 12 + 3 * 4 + 3)
    assert nodes["q"].parameters == 0


def test_shared_weights_count_once_in_the_model_and_at_every_reader():
    model = graph("g (float[n,4] x) => (float[n,4] y) { h = MatMul(x, w) y = MatMul(h, w) }", w=floats(4, 4))
    assert [node.parameters for node in cost(model).nodes] == [16, 16]
    assert sum(tensor.parameters for tensor in Weights(model).stored()) == 16


def test_what_is_a_parameter():
    """Codebook weights count their indices and entries; shapes, scalars, scales and zero points do not count."""
    model = graph(
        """g (float[n,6] x) => (float[a,b] y, float[n,3] z) {
        index = Cast<to=7>(packed) w = Gather(book, index) h = MatMul(x, w) s = Mul(h, factor) y = Reshape(s, target)
        d = DequantizeLinear(q, qs, qz) z = Add(h, d) }""",
        packed=np.zeros((6, 3), np.uint8), book=floats(16), factor=np.float32(2), target=np.array([-1, 3]),
        q=np.zeros(3, np.int8), qs=np.float32(0.5), qz=np.int8(0),
    )  # fmt: skip
    counts = {name: parameters(value) for name, value in model.graph.initializers.items()}
    assert counts == {"packed": 18, "book": 16, "factor": 0, "target": 0, "q": 3, "qs": 0, "qz": 0}


def test_gather_reads_rows_not_the_table():
    model = graph("g (int64[n,2] ids) => (float[n,2,8] y) { y = Gather(table, ids) }", table=floats(1000, 8))
    assert cost(model).moved_bytes == 2 * 64 + 16  # rows read and written, indices read


def test_views_move_nothing():
    assert cost(graph("g (float[2,6] x) => (float[3,4] y) { y = Reshape(x, s) }", s=np.array([3, 4]))).moved_bytes == 0


def test_the_dearer_branch_counts():
    model = graph(
        """g (float[2,4] x, bool c) => (float[2,4] y) {
        y = If(c) <then_branch = a () => (float[2,4] u) { u = Identity(x) },
                   else_branch = b () => (float[2,4] v) { v = MatMul(x, w) }> }""",
        w=floats(4, 4),
    )
    found = cost(model)
    assert found.macs == 32
    assert {node.node: node.times for node in found.nodes} == {"u": 0, "v": 1}
    assert found.notes == ("of an If, the branch with more MACs counts",)


LOOP = """g (float[2,4] x{extra}) => (float[2,4] y) {{ cond = Constant<value = bool {{1}}>()
  y = Loop(trips, cond, x) <body = body (int64 i, bool c, float[2,4] h) => (bool d, float[2,4] k) {{
    d = Identity(c) k = MatMul(h, w) }}> }}"""


def test_a_body_counts_for_every_iteration():
    assert cost(graph(LOOP.format(extra=""), trips=np.array(7), w=floats(4, 4))).macs == 7 * 32


def test_a_body_that_runs_who_knows_how_often_counts_once_and_says_so():
    found = cost(graph(LOOP.format(extra=", int64 trips"), w=floats(4, 4)))
    assert found.macs == 32
    assert found.notes == ("Loop 'y': how often it runs is not known; its body is counted once",)


def test_unknown_costs_are_listed_with_the_reason():
    model = graph(
        "g (float[n,4] x) => (float[n,4] y) { h = my.domain.Magic(x) k = MatMul(h, w) y = MatMul(x, w) }",
        domains='"my.domain": 1', w=floats(4, 4),
    )  # fmt: skip
    found = cost(model)
    assert found.macs == 16  # y alone
    assert [(node.node, node.unknown) for node in found.uncounted] == [
        ("h", "the cost of operator my.domain::Magic is not known"),
        ("k", "the shape of input 0 'h' is not known"),
    ]
    assert found.moved_bytes is None


def peak(model):
    return peak_memory(ConcreteShapes(model, assume_sizes(model)), Weights(model))


def test_peak_of_a_residual_block():
    """While `b` is computed from `a`, `x` waits for the addition: three tensors of 100 floats."""
    model = graph("g (float[100] x) => (float[100] y) { a = Relu(x) b = Exp(a) y = Add(x, b) }")
    assert (peak(model).size_bytes, peak(model).node) == (1200, "b")


def test_peak_of_a_chain_and_of_views():
    chain = graph("g (float[100] x) => (float[100] y) { a = Relu(x) b = Exp(a) y = Sqrt(b) }")
    assert peak(chain).size_bytes == 800
    view = graph(
        "g (float[100] x) => (float[10,10] y) { r = Reshape(x, s) t = Relu(r) y = Sqrt(t) }", s=np.array([10, 10])
    )
    assert peak(view).size_bytes == 800  # r is x


def test_weights_are_not_activations():
    model = graph("g (float[n,4] x) => (float[n,4] y) { w = Transpose(v) y = MatMul(x, w) }", v=floats(4, 4))
    assert peak(model).size_bytes == 32


def test_peak_is_unknown_if_a_shape_is():
    assert peak(graph("g (float[n] x) => (int64[1,k] y) { y = NonZero(x) }")) is None


def test_what_only_a_body_reads_lives_until_then():
    """`a` is captured by the branches, so it waits while `b` and `d` are computed."""
    model = graph(
        """g (float[100] x, bool c) => (float[100] y) { a = Relu(x) b = Exp(x) d = Sqrt(b)
        y = If(c) <then_branch = p () => (float[100] u) { u = Identity(a) },
                   else_branch = q () => (float[100] v) { v = Exp(a) }> }"""
    )
    assert peak(model).size_bytes == 1200 + 1  # and the condition
