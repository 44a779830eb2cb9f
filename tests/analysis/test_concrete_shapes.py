"""Every inferred shape must be the one a run gives."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from analysis_graphs import floats, graph, node_of

from irc.analysis import ConcreteShapes, assume_sizes

LOOP = """g (float[b,s] x) => (float[b,s] last, float[t,b,s] all) {
  cond = Constant<value = bool {1}>()
  last, all = Loop(trips, cond, x) <body = body (int64 i, bool c, float[p,q] h) => (bool d, float[p,q] k, float[p,q] o) {
    d = Identity(c) k = Add(h, h) o = Mul(h, k) }> }"""
SCAN = """g (float[s,n,w] x, float[n,w] start) => (float[n,w] last, float[s,n,w] sums) {
  last, sums = Scan<num_scan_inputs=1, body = body (float[p,q] state, float[p,q] item) => (float[p,q] next, float[p,q] out) {
    next = Add(state, item) out = Identity(next) }>(start, x) }"""
CASES = {
    "view": (
        """g (float[batch,seq,12] x) => (float[batch,h,seq,d] y) {
        shape = Shape(x) lead = Slice(shape, zero, two) target = Concat<axis=0>(lead, heads)
        r = Reshape(x, target) y = Transpose<perm=[0,2,1,3]>(r) }""",
        {"zero": np.array([0]), "two": np.array([2]), "heads": np.array([3, 4])},
    ),
    "positions": (
        """g (int64[batch,seq] ids) => (float[batch,seq,4] y) {
        shape = Shape(ids) length = Gather(shape, one) steps = Range(nought, length, unit)
        row = Unsqueeze(steps, axes) all = Expand(row, shape) y = Gather(table, all) }""",
        {
            "one": np.array(1),
            "nought": np.array(0),
            "unit": np.array(1),
            "axes": np.array([0]),
            "table": floats(300, 4),
        },
    ),
    "fill": (
        """g (float[batch,seq] x) => (float[batch,seq,2] y) {
        shape = Shape(x) two = Constant<value = int64[1] {2}>() target = Concat<axis=0>(shape, two)
        y = ConstantOfShape<value = float[1] {1.0}>(target) }""",
        {},
    ),
    "half": (
        """g (float[batch,seq,6] x) => (float[batch,seq,3] y) {
        size = Shape<start=2>(x) half = Div(size, two) y = Slice(x, zero, half, axis) }""",
        {"two": np.array([2]), "zero": np.array([0]), "axis": np.array([2])},
    ),
    "branches": (
        """g (float[batch,seq] x, bool c) => (float[batch,seq] y) {
        y = If(c) <then_branch = a () => (float[p,q] u) { u = Add(x, x) },
                   else_branch = b () => (float[p,q] v) { v = Mul(x, x) }> }""",
        {},
    ),
    "loop": (LOOP, {"trips": np.array(5)}),
    "scan": (SCAN, {}),
    "pool": (
        """g (float[batch,3,h,w] x) => (float[batch,3,p,q] y) {
        c = Conv<strides=[2,2], pads=[1,1,1,1]>(x, k) y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(c) }""",
        {"k": floats(3, 3, 3, 3)},
    ),
    "recurrence": (
        """g (float[seq,batch,4] x) => (float[seq,d,batch,3] y) { y, h, c = LSTM<hidden_size=3>(x, w, r) }""",
        {"w": floats(1, 12, 4), "r": floats(1, 12, 3)},
    ),
}


def erase(model: ir.Model) -> None:
    """Takes away what the exporter wrote about inner values."""
    outputs = {id(value) for value in model.graph.outputs}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if id(value) not in outputs:
                value.shape = value.type = None


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("erased", [False, True])
def test_shapes_are_those_of_a_run(name, erased):
    text, weights = CASES[name]
    model = graph(text, **weights)
    if erased:
        erase(model)
    sizes = assume_sizes(model)
    shapes = ConcreteShapes(model, sizes)

    feed = {}
    for value in model.graph.inputs:
        dims = sizes.dims(value)
        feed[value.name] = np.ones(dims, value.dtype.numpy())
    names = [o.name for node in model.graph for o in node.outputs if o.name]
    proto = ir.to_proto(model)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    actual = dict(zip(names, session.run(names, feed), strict=True))
    values = ir.convenience.create_value_mapping(model.graph)
    assert {n: shapes.static(values[n]) for n in names} == {n: array.shape for n, array in actual.items()}


def test_iterations_of_loop_and_scan():
    loop, scan = graph(LOOP, trips=np.array(5)), graph(SCAN)
    assert ConcreteShapes(loop, assume_sizes(loop)).trips(node_of(loop, "Loop")) == 5
    assert ConcreteShapes(scan, assume_sizes(scan, {"s": 9})).trips(node_of(scan, "Scan")) == 9


def test_iterations_that_depend_on_data_are_unknown():
    text = LOOP.replace("(float[b,s] x)", "(float[b,s] x, int64 trips)", 1)
    model = graph(text)
    assert ConcreteShapes(model, assume_sizes(model)).trips(node_of(model, "Loop")) is None


def test_large_constants_are_shaped_not_computed():
    """575 MB behind a few bytes: the shape is known, the values are never made."""
    model = graph("g (float[n] x) => (float[a,b] y) { y = ConstantOfShape(big) }", big=np.array([12000, 12000]))
    shapes = ConcreteShapes(model, assume_sizes(model))
    output = model.graph.outputs[0]
    assert shapes.static(output) == (12000, 12000)
    assert shapes.known(output) is None


def test_data_dependent_sizes_stay_unknown():
    model = graph("g (float[n,3] x) => (int64[2,k] y) { y = NonZero(x) }")
    shapes = ConcreteShapes(model, assume_sizes(model))
    assert shapes.dims(model.graph.outputs[0]) == (2, None)
    assert shapes.static(model.graph.outputs[0]) is None


def test_a_size_inside_the_model_can_be_given():
    model = graph("g (float[n,3] x) => (int64[2,k] y) { y = NonZero(x) }")
    assert ConcreteShapes(model, assume_sizes(model, {"k": 7})).static(model.graph.outputs[0]) == (2, 7)


def test_the_model_is_not_changed():
    model = graph(*[CASES["view"][0]], **CASES["view"][1])
    before = ir.to_proto(model).SerializeToString()
    ConcreteShapes(model, assume_sizes(model))
    assert ir.to_proto(model).SerializeToString() == before
