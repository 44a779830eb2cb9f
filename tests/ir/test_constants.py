"""What counts as constant, and who uses a value."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from ir_graphs import branch_proto, linear_proto, model_proto
from onnx import helper

from irc.ir import constant, constant_tensor, is_graph_input, is_graph_output, normalize, only_consumer


def overridable() -> ir.Model:
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    return normalize(model_proto(nodes, {"x": [2], "w": [2]}, {"y": [2]}, {"w": np.ones(2, np.float32)}))


def test_an_initializer_is_constant_and_read_only() -> None:
    model = normalize(linear_proto())
    array = constant(model.graph.initializers["w"])
    assert array is not None
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_reading_twice_does_not_copy() -> None:
    """onnx_ir copies an inline weight at every access."""
    value = normalize(linear_proto()).graph.initializers["w"]
    first, second = constant(value), constant(value)
    assert first is not None
    assert second is not None
    assert np.shares_memory(first, second)


def test_an_array_handed_in_stays_writable_for_its_owner() -> None:
    model = normalize(linear_proto())
    mine = np.zeros(4, np.float32)
    value = ir.Value(
        name="mine", const_value=ir.tensor(mine), shape=ir.Shape([4]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    model.graph.register_initializer(value)
    array = constant(value)
    assert array is not None
    assert not array.flags.writeable
    assert mine.flags.writeable


def test_an_initializer_that_callers_may_override_is_not_constant() -> None:
    value = overridable().graph.initializers["w"]
    assert value.const_value is not None
    assert constant(value) is None
    assert constant_tensor(value) is None
    assert is_graph_input(value)


def test_none_inputs_and_computed_values_are_not_constant() -> None:
    model = normalize(linear_proto())
    assert constant(None) is None
    assert constant(model.graph.inputs[0]) is None
    assert constant(model.graph.outputs[0]) is None


@pytest.mark.parametrize(
    ("attribute", "want"),
    [
        ({"value_float": 2.0}, np.float32(2)),
        ({"value_ints": [1, 2]}, np.array([1, 2])),
        ({"value_int": 7}, np.int64(7)),
    ],
)
def test_constant_nodes(attribute: dict[str, object], want: np.ndarray) -> None:
    nodes = [helper.make_node("Constant", [], ["c"], **attribute), helper.make_node("Cast", ["c"], ["y"], to=1)]
    model = ir.from_proto(model_proto(nodes, {}, {"y": None}))
    got = constant(model.graph[0].outputs[0])
    assert got is not None
    np.testing.assert_array_equal(got, want)
    assert got.dtype == want.dtype


def test_a_constant_of_another_domain_is_none() -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], domain="acme", value_float=1.0),
        helper.make_node("Neg", ["c"], ["y"]),
    ]
    model = normalize(model_proto(nodes, {}, {"y": []}, domains={"acme": 1}))
    assert constant(model.graph[0].outputs[0]) is None


def test_asking_for_the_tensor_does_not_evaluate_it() -> None:
    def fail() -> ir.TensorProtocol:
        raise AssertionError

    model = normalize(linear_proto())
    value = model.graph.initializers["w"]
    value.const_value = ir.LazyTensor(fail, dtype=ir.DataType.FLOAT, shape=ir.Shape([64, 32]), name="w")
    assert constant_tensor(value) is value.const_value


def test_only_consumer() -> None:
    model = normalize(linear_proto())
    product, total, relu = model.graph
    assert only_consumer(product.outputs[0], total)
    assert not only_consumer(product.outputs[0], relu)
    assert not only_consumer(relu.outputs[0], relu)
    assert is_graph_output(relu.outputs[0])


def test_a_use_in_a_body_counts() -> None:
    model = normalize(branch_proto())
    relu, branch = model.graph
    consumers = {use.node.op_type for use in relu.outputs[0].uses()}
    assert consumers == {"Add", "Identity"}
    assert not any(only_consumer(relu.outputs[0], use.node) for use in relu.outputs[0].uses())
    assert not only_consumer(relu.outputs[0], branch)


def test_a_value_used_twice_by_one_node_has_no_only_consumer() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Mul", ["a", "a"], ["y"])]
    model = normalize(model_proto(nodes, {"x": [2]}, {"y": [2]}))
    negate, square = model.graph
    assert not only_consumer(negate.outputs[0], square)


def test_an_output_that_is_also_used_has_no_only_consumer() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Exp", ["a"], ["y"])]
    model = normalize(model_proto(nodes, {"x": [2]}, {"y": [2], "a": [2]}))
    negate, exp = model.graph
    assert not only_consumer(negate.outputs[0], exp)
