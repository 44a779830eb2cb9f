"""Where weights are, what is their bias, what they are added to, and whose they are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_feeds, random_weight, run
from pruning_models import attention, cnn
from repair_kit import chain, layer_of, layers_of, residual

from irc.analysis.channels import ChannelGroups
from irc.ir import constant
from irc.passes.pruning.repair.weight_storage import StoredWeight, bias_of, set_bias


def one(text: str, weights: dict[str, np.ndarray], name: str = "a"):
    """The layer of a value of a model."""
    return layer_of(layers_of(model_of(text, weights)), name)


def test_layers_come_in_the_order_of_the_graph_with_their_biases():
    layers = layers_of(chain())
    found = [
        (layer.node.outputs[0].name, layer.output, layer.adds_bias and layer.adds_bias[0].op_type)
        for layer in layers.all
    ]
    assert found == [("a", "b", "Add"), ("d", "d", "Gemm"), ("y", "y", None)]
    assert [layer.shared_by for layer in layers.all] == [1, 1, 1]
    assert all(layer.total is None and layer.shortcut is None for layer in layers.all)


def test_products_of_activations_are_no_layers():
    names = [layer.node.outputs[0].name for layer in layers_of(attention()).all]
    assert names == ["q0", "k0", "v0", "o3", "h", "y"]


def test_the_sum_belongs_to_what_is_made_last():
    """c is added to s0; of f and g, that which the graph makes last knows the other."""
    layers = layers_of(residual())
    found = {layer.node.outputs[0].name: (layer.total, layer.shortcut) for layer in layers.all}
    assert found["c"] == ("s1", "s0")
    assert found["f"] == (None, None) and found["g"] == ("s2", "f")
    assert found["a"] == found["d"] == found["s0"] == (None, None)


def test_a_shortcut_with_the_bias_between():
    text = """agraph (float[n, 4] x) => (float[n, 4] y) {
        a = MatMul(x, w)  b = Add(b0, a)  y = Add(x, b)
    }"""
    layer = one(text, {"w": random_weight(4, 4), "b0": random_weight(4)})
    assert (layer.output, layer.total, layer.shortcut) == ("b", "y", "x")
    assert layer.adds_bias == (layer.adds_bias[0], 0)


@pytest.mark.parametrize(
    "text",
    [
        "agraph (float[n, 4] x) => (float[n, 4] y) { a = MatMul(x, w)  y = Add(a, a) }",
        "agraph (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { a = MatMul(x, w)  y = Add(a, x)  z = Relu(a) }",
        "agraph (float[n, 4] x) => (float[n, 4] y, float[n, 4] a) { a = MatMul(x, w)  y = Add(a, x) }",
        "agraph (float[n, 4] x, float[1, 4] z) => (float[n, 4] y) { a = MatMul(x, w)  y = Add(a, z) }",
        "agraph (float[n, 4] x) => (float[n, 4] y) { a = MatMul(x, w)  b = Relu(a)  c = MatMul(b, w)  y = Add(c, a) }",
    ],
    ids=["doubled", "read twice", "an output", "broadcast", "of a later layer"],
)
def test_no_sum(text):
    layer = one(text, {"w": random_weight(4, 4)})
    assert layer.total is None and layer.shortcut is None and layer.adds_bias is None


@pytest.mark.parametrize(
    ("line", "bias", "has"),
    [
        ("a = Gemm(x, w)", None, True),
        ("a = Gemm<beta=0.5>(x, w)", None, False),
        ("a = Gemm(x, w, b)", (3,), True),
        ("a = Gemm<beta=0.5>(x, w, b)", (3,), False),
        ("a = Gemm(x, w, b)", (1,), False),
        ("a = MatMul(x, w)  z = Add(a, b)", (3,), True),
        ("a = MatMul(x, w)  z = Add(a, b)", (1,), False),
        ("a = MatMul(x, w)  z = Mul(a, b)", (3,), False),
        ("a = MatMul(x, w)  z = Relu(a)", None, False),
    ],
)
def test_which_biases_can_be_changed(line, bias, has):
    body = line if "z =" in line else f"{line}  z = Identity(a)"
    weights = {"w": random_weight(4, 3)} | ({"b": random_weight(*bias)} if bias else {})
    layer = one(f"agraph (float[n, 4] x) => (float[n, 3] z) {{ {body} }}", weights)
    assert (layer.adds_bias is not None) is has


def test_a_bias_that_is_an_input_of_the_model_is_not_changed():
    text = "agraph (float[n, 4] x, float[3] b) => (float[n, 3] a) { a = Gemm(x, w, b) }"
    assert one(text, {"w": random_weight(4, 3)}).adds_bias is None
    assert one(text, {"w": random_weight(4, 3), "b": random_weight(3)}).adds_bias is None


def test_a_shared_weight_says_so():
    text = """agraph (float[n, 4] x) => (float[n, 4] y) { a = MatMul(x, w)  b = Relu(a)  y = MatMul(b, w) }"""
    assert one(text, {"w": random_weight(4, 4)}).shared_by == 2


def test_a_weight_shared_behind_its_transpose_says_so():
    text = """agraph (float[n, 4] x) => (float[n, 4] y) {
        t = Transpose<perm=[1,0]>(w)  a = MatMul(x, t)  b = Relu(a)  y = MatMul(b, t)
    }"""
    assert one(text, {"w": random_weight(4, 4)}).shared_by == 2


def test_a_weight_that_something_else_reads_is_shared():
    """A tied embedding."""
    text = """agraph (int64[n, t] ids) => (float[n, t, 9] a) {
        e = Gather(w, ids)  h = Relu(e)  t = Transpose<perm=[1,0]>(w)  a = MatMul(h, t)
    }"""
    assert one(text, {"w": random_weight(9, 6)}).shared_by == 2


@pytest.mark.parametrize(
    "text",
    [
        "agraph (float[n, 4] x, float[4, 3] w) => (float[n, 3] a) { a = MatMul(x, w) }",
        "agraph (float[n, 4] x) => (float[n, 3] a, float[4, 3] w) { a = MatMul(x, w) }",
        "agraph (float[n, 4] x) => (float[n] a) { a = MatMul(x, v) }",
    ],
    ids=["an input", "an output", "a vector"],
)
def test_weights_that_are_left_alone(text):
    model = model_of(text, {"v": random_weight(4)} if "v)" in text else {"w": random_weight(4, 3)})
    assert not layers_of(model).all


def test_a_vector_reads_channels_but_is_never_cut_to_something_else():
    """A product with a vector has no channel axis in its result; its last axis is the batch."""
    text = """agraph (float[n, 6] x) => (float[n] y) { a = MatMul(x, w)  b = Relu(a)  y = MatMul(b, v) }"""
    layers = layers_of(model_of(text, {"w": random_weight(6, 8), "v": random_weight(8)}))
    assert [layer.node.outputs[0].name for layer in layers.all] == ["a"]


def test_readers_of_a_family_and_the_atoms_they_read():
    layers = layers_of(cnn())
    groups = ChannelGroups(layers.propagation, "rows")
    readers = {
        family.name: [(layer.node.outputs[0].name, group) for layer, group, _blocks in layers.readers(family, groups)]
        for family in groups.families
    }
    assert readers == {"a": [("c", 0), ("y", 0)], "c": [("e", 0)]}, "the depthwise convolution reads one atom per group"
    family = next(family for family in groups.families if family.name == "c")
    ((_layer, _group, blocks),) = layers.readers(family, groups)
    assert blocks.tolist() == np.repeat(np.arange(32), 9).tolist()


def test_blocks_of_grouped_convolutions_belong_to_their_group():
    text = """agraph (float[n, 6, 5, 5] x) => (float[n, 4, 5, 5] y) {
        a = Conv(x, w0)  b = Relu(a)  y = Conv<group=2>(b, w1)
    }"""
    layers = layers_of(model_of(text, {"w0": random_weight(8, 6, 1, 1), "w1": random_weight(4, 4, 1, 1)}))
    for mode in ("rows", "columns"):
        groups = ChannelGroups(layers.propagation, mode)
        for family in groups.families:
            for _layer, _group, blocks in layers.readers(family, groups):
                assert set(blocks[blocks >= 0].tolist()) <= set(range(len(family.atoms)))


def test_a_new_bias_leaves_the_constant_to_others():
    text = """agraph (float[n, 4] x) => (float[n, 4] y) { a = Gemm(x, w, b)  c = Relu(a)  y = Gemm(c, v, b) }"""
    model = model_of(text, {"w": random_weight(4, 4), "v": random_weight(4, 4, seed=1), "b": random_weight(4)})
    first, second = (node for node in model.graph if node.op_type == "Gemm")
    before = constant(second.inputs[2]).copy()
    set_bias(model, first, 2, np.arange(4.0), hint="a", dtype=np.float32)
    assert np.array_equal(bias_of(second, 2), before) and bias_of(first, 2).tolist() == [0, 1, 2, 3]
    set_bias(model, second, 2, np.ones(4), hint="y", dtype=np.float32)
    assert "b" not in model.graph.initializers, "nobody reads it any more"
    assert run(model, random_feeds(model, {"n": 2}))


def test_a_bias_where_there_was_none():
    text = "agraph (float[n, 2, 4] x) => (float[n, 3, 4] y) { y = Conv(x, w) }"
    model = model_of(text, {"w": random_weight(3, 2, 1)})
    node = next(iter(model.graph))
    (feed,) = random_feeds(model, {"n": 2})
    before = run(model, [feed])[0][0]
    set_bias(model, node, 2, np.array([1.0, 2.0, 3.0]), hint="y", dtype=np.float32)
    assert np.allclose(run(model, [feed])[0][0], before + np.array([1, 2, 3])[None, :, None], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_stored_weight_keeps_its_type(dtype):
    kind = ir.DataType.from_numpy(np.dtype(dtype)).name.lower()
    name = {"float16": "float16", "float": "float", "double": "double"}[kind]
    text = f"agraph ({name}[n, 4] x) => ({name}[n, 3] y) {{ y = MatMul(x, w) }}"
    model = model_of(text, {"w": random_weight(4, 3).astype(dtype)})
    node = next(iter(model.graph))
    StoredWeight.of(node).store(model, np.full((4, 3), 0.5))
    assert constant(node.inputs[1]).dtype == dtype and (constant(node.inputs[1]) == 0.5).all()
