"""Shapes after surgery: fresh where inference can tell, kept where nothing changed, loud where they contradict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ir_graphs import branch_proto, linear_proto, model_proto
from onnx import TensorProto, helper

from irc.errors import ModelError
from irc.ir import check, interface, normalize, refresh_shapes, save
from irc.ir.shapes import is_invented


def shape_of(model: ir.Model, name: str) -> list[int | str | None] | None:
    value = next(o for node in model.graph.all_nodes() for o in node.outputs if o.name == name)
    if value.shape is None:
        return None
    dims = [d if isinstance(d, int) else d.value for d in value.shape]
    return [None if is_invented(dim) else dim for dim in dims]


def two_layers(*, hidden_info: bool = True) -> ir.Model:
    """x (N, 4) @ a (4, 6) -> h, Relu -> r, r @ b (6, 3) -> y."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    proto = model_proto(
        nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"a": np.ones((4, 6), np.float32), "b": np.ones((6, 3), np.float32)}
    )
    if hidden_info:
        for name in ("h", "r"):
            proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 6]))
    return normalize(proto)


def set_weight(model: ir.Model, name: str, array: np.ndarray) -> None:
    model.graph.initializers[name].const_value = ir.tensor(array, name=name)


def test_pruned_channels_reach_every_value() -> None:
    """Setting const_value leaves the old shapes, and onnx_ir's own inference then gives up with a log message."""
    model = two_layers()
    set_weight(model, "a", np.ones((4, 2), np.float32))
    set_weight(model, "b", np.ones((2, 3), np.float32))
    refresh_shapes(model)
    assert model.graph.initializers["a"].shape == ir.Shape([4, 2])
    assert shape_of(model, "h") == shape_of(model, "r") == ["N", 2]
    check(model)


def test_an_unfinished_pruning_is_a_loud_error_and_changes_nothing() -> None:
    model = two_layers()
    set_weight(model, "a", np.ones((4, 2), np.float32))
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(ModelError, match=r"shape inference contradicts the graph: .*MatMul") as caught:
        refresh_shapes(model)
    assert "\n" not in str(caught.value)
    assert ir.to_proto(model).SerializeToString() == before
    refresh_shapes(model, strict=False)


def test_a_contradiction_is_loud_beside_custom_operators_too() -> None:
    """onnx swallows every error of a model that has one operator it does not know."""
    model = two_layers()
    model.graph.opset_imports["acme"] = 1
    model.graph.append(ir.Node("acme", "Mystery", [model.graph.inputs[0]], name="m"))
    set_weight(model, "a", np.ones((4, 2), np.float32))
    with pytest.raises(ModelError, match="contradicts"):
        refresh_shapes(model)


def test_an_output_that_contradicts_its_declaration() -> None:
    model = two_layers()
    set_weight(model, "b", np.ones((6, 7), np.float32))
    with pytest.raises(ModelError, match="contradicts"):
        refresh_shapes(model)


def test_the_interface_keeps_its_symbols() -> None:
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
    model = normalize(model_proto(nodes, {"x": ["batch", 4]}, {"y": ["twice", 4]}))
    before = interface(model)
    refresh_shapes(model)
    assert interface(model) == before


def test_an_undeclared_output_gets_what_was_inferred() -> None:
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=1)]
    model = normalize(model_proto(nodes, {"x": ["batch", 4]}, {"y": None}))
    refresh_shapes(model)
    assert interface(model).outputs == (("y", "FLOAT", ("batch", 8)),)


def test_shapes_are_found_where_there_were_none() -> None:
    model = two_layers(hidden_info=False)
    refresh_shapes(model)
    assert shape_of(model, "r") == ["N", 6]
    assert model.graph[0].outputs[0].dtype == ir.DataType.FLOAT


def reshaped(width: int) -> ir.Model:
    """x (batch, seq, 4) @ w (4, width) -> h, reshaped at run time to (batch, seq, -1, 2) -> v."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Shape", ["x"], ["s"], end=2),
        helper.make_node("Concat", ["s", "tail"], ["target"], axis=0),
        helper.make_node("Reshape", ["h", "target"], ["v"]),
        helper.make_node("Relu", ["v"], ["y"]),
    ]
    weights = {"w": np.ones((4, width), np.float32), "tail": np.array([-1, 2], np.int64)}
    proto = model_proto(nodes, {"x": ["batch", "seq", 4]}, {"y": None}, weights)
    proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", "seq", 8]))
    proto.graph.value_info.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, ["batch", "seq", 4, 2]))
    return normalize(proto)


def test_what_only_the_exporter_knew_stays_while_nothing_changed() -> None:
    model = reshaped(8)
    refresh_shapes(model)
    assert shape_of(model, "v") == ["batch", "seq", 4, 2]


def test_what_only_the_exporter_knew_is_forgotten_behind_a_change() -> None:
    model = reshaped(8)
    set_weight(model, "w", np.ones((4, 6), np.float32))
    refresh_shapes(model)
    assert shape_of(model, "h") == ["batch", "seq", 6]
    assert shape_of(model, "v") == ["batch", "seq", None, 2]


def test_custom_operators_keep_what_the_exporter_said() -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["m"], domain="acme"),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Neg", ["r"], ["y"]),
    ]
    proto = model_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 9]}, domains={"acme": 1})
    proto.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, ["N", 9]))
    model = normalize(proto)
    refresh_shapes(model)
    assert shape_of(model, "m") == shape_of(model, "r") == ["N", 9]


def test_the_default_of_an_input_is_no_constant() -> None:
    proto = model_proto([helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("Relu", ["r"], ["y"])],
                        {"x": [2, 3]}, {"y": None}, {"s": np.array([3, 2])})  # fmt: skip
    proto.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, [2]))
    model = normalize(proto)
    refresh_shapes(model)
    assert shape_of(model, "r") == [None, None]
    assert model.graph.initializers["s"].const_value is not None


def test_values_in_bodies_are_refreshed() -> None:
    proto = branch_proto()
    for attribute in proto.graph.node[1].attribute:
        attribute.g.output[0].type.tensor_type.shape.dim[1].dim_value = 999
    model = normalize(proto)
    refresh_shapes(model)
    assert shape_of(model, "m") == shape_of(model, "then_y") == shape_of(model, "else_y") == [4, 300]


def test_body_inputs_of_a_loop_lose_what_is_stale() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Relu", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, [2]),
        ],
    )
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"]),
        helper.make_node("Loop", ["n", "", "m"], ["l"], body=body),
        helper.make_node("Neg", ["l"], ["y"]),
    ]
    weights = {"w": np.ones(2, np.float32), "n": np.array(3)}
    proto = model_proto(nodes, {"x": [2]}, {"y": None}, weights)
    proto.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, [2]))
    model = normalize(proto)
    refresh_shapes(model)
    assert shape_of(model, "v2") == [2]
    set_weight(model, "w", np.ones((2, 2), np.float32))
    refresh_shapes(model)
    assert shape_of(model, "m") == [2, 2]
    assert shape_of(model, "v2") is None


def test_refreshing_twice_changes_nothing() -> None:
    for model in (two_layers(), reshaped(8), normalize(branch_proto()), normalize(linear_proto())):
        refresh_shapes(model)
        once = ir.to_proto(model).SerializeToString()
        refresh_shapes(model)
        assert ir.to_proto(model).SerializeToString() == once


def test_outputs_without_shape_or_type_are_no_reason_to_refuse() -> None:
    proto = linear_proto()
    proto.graph.output[0].ClearField("type")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    model = normalize(proto)
    refresh_shapes(model)
    assert interface(model).inputs == (("x", "FLOAT", None),)
    assert interface(model).outputs[0][1] == "FLOAT"


def counted() -> ir.Model:
    """The elements that are not 0, counted twice: equal sizes, and sizes of another tensor, none with a name."""
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Neg", ["n"], ["m"]),
             helper.make_node("NonZero", ["n"], ["o"]), helper.make_node("Concat", ["m", "o"], ["y"], axis=1)]  # fmt: skip
    proto = model_proto(nodes, {"x": ["N", 4]}, {"y": [2, "count"]})
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    for name in "nmo":
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.INT64, [2, None]))
    return normalize(proto)


def test_sizes_that_are_equal_have_one_symbol_and_others_another(tmp_path: Path) -> None:
    model = counted()
    refresh_shapes(model)
    n, m, o, _ = (node.outputs[0].shape for node in model.graph)
    assert n is not None and is_invented(n[1].value)
    assert n == m and n != o


def test_invented_symbols_are_in_no_file_and_do_not_outlive_the_next_inference(tmp_path: Path) -> None:
    model = counted()
    refresh_shapes(model)
    save(model, tmp_path / "m.onnx")
    assert "unk__" not in str(onnx.load(tmp_path / "m.onnx"))
    first, second = model.graph[0], model.graph[1]
    other = ir.node("NonZero", [model.graph.inputs[0]])
    model.graph.insert_before(first, other)
    second.replace_input_with(0, other.outputs[0])
    other.outputs[0].name = "other"
    refresh_shapes(model)
    assert first.outputs[0].shape != second.outputs[0].shape


def test_a_symbol_of_the_user_that_looks_invented_stays() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Neg", ["n"], ["y"])]
    model = normalize(model_proto(nodes, {"x": ["unk__0", 4]}, {"y": ["unk__0", 4]}))
    refresh_shapes(model)
    assert model.graph[0].outputs[0].shape == ir.Shape(["unk__0", 4])


def test_large_weights_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> ir.TensorProtocol:
        raise AssertionError

    model = normalize(linear_proto())
    model.graph.initializers["w"].const_value = ir.LazyTensor(
        fail, dtype=ir.DataType.FLOAT, shape=ir.Shape([64, 32]), name="w"
    )
    refresh_shapes(model)
    check(model)
    assert shape_of(model, "p") == ["N", 32]


def test_types_follow_a_changed_operator() -> None:
    model = normalize(
        model_proto(
            [
                helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT16),
                helper.make_node("Cast", ["c"], ["y"], to=1),
            ],
            {"x": [2]},
            {"y": [2]},
        )
    )
    refresh_shapes(model)
    assert model.graph[0].outputs[0].dtype == ir.DataType.FLOAT16
    model.graph[0].attributes["to"] = ir.AttrInt64("to", TensorProto.DOUBLE)
    refresh_shapes(model)
    assert model.graph[0].outputs[0].dtype == ir.DataType.DOUBLE


def test_onnx_agrees_with_the_refreshed_shapes() -> None:
    model = two_layers()
    refresh_shapes(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
