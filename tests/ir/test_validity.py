"""The check after every stretch of passes, and what counts as the same interface."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from call_counting import assert_linear
from ir_graphs import branch_proto, linear_proto, model_proto
from onnx import helper

from irc.errors import ModelError
from irc.ir import Interface, check, interface, normalize, refresh_shapes, snapshot


def orphan(model: ir.Model) -> None:
    fresh = ir.Value(name="w", shape=ir.Shape([64, 32]), type=ir.TensorType(ir.DataType.FLOAT))
    fresh.const_value = ir.tensor(np.zeros((64, 32), np.float32), name="w")
    model.graph.initializers["w"] = fresh


def unsort(model: ir.Model) -> None:
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.append(first)


DAMAGE: dict[str, tuple[Callable[[ir.Model], object], str]] = {
    "a weight replaced by assignment leaves its users behind": (orphan, "another value of that name"),
    "a weight removed while used": (lambda m: m.graph.initializers.pop("w"), "'w', but nothing is defined"),
    "a weight without tensor": (lambda m: setattr(m.graph.initializers["w"], "const_value", None), "has no tensor"),
    "two values of one name": (lambda m: setattr(m.graph[0].outputs[0], "name", "y"), "'y'"),
    "a node that redefines an input": (lambda m: setattr(m.graph[0].outputs[0], "name", "x"), "second time"),
    "used before defined": (unsort, "nothing is defined before it"),
    "an unregistered constant": (lambda m: m.graph[0].replace_input_with(1, ir.Value(name="loose")), "'loose'"),
    "an unknown attribute": (lambda m: m.graph[0].attributes.add(ir.AttrInt64("bogus", 1)), "bogus"),
    "an operator without opset": (lambda m: m.graph.append(ir.Node("acme", "F", [])), "acme"),
    "too few inputs": (lambda m: m.graph[0].resize_inputs(1), "MatMul"),
    "an output from nowhere": (lambda m: m.graph.outputs.append(ir.Value(name="z")), "'z'"),
    "an unnamed value in use": (lambda m: setattr(m.graph[0].outputs[0], "name", ""), "no name"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_said_in_one_line(damage: str) -> None:
    model = normalize(linear_proto())
    check(model)
    edit, said = DAMAGE[damage]
    edit(model)
    with pytest.raises(ModelError) as caught:
        check(model)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_captures_are_checked_by_scope() -> None:
    model = normalize(branch_proto())
    check(model)
    inner = next(n for n in model.graph.all_nodes() if n.op_type == "Mul")
    model.graph.append(ir.Node("", "Neg", [inner.outputs[0]], num_outputs=1))
    with pytest.raises(ModelError, match="'m', but nothing is defined"):
        check(model)


def test_the_same_name_in_a_body_and_outside_is_refused() -> None:
    model = normalize(branch_proto())
    next(n for n in model.graph.all_nodes() if n.op_type == "Mul").outputs[0].name = "t"
    with pytest.raises(ModelError, match="'t' a second time"):
        check(model)


def test_checking_leaves_the_model_as_it_was() -> None:
    for proto in (linear_proto(), branch_proto()):
        model = normalize(proto)
        before = ir.to_proto(model).SerializeToString()
        tensors = [v.const_value for v in model.graph.initializers.values()]
        check(model)
        assert ir.to_proto(model).SerializeToString() == before
        assert all(a is v.const_value for a, v in zip(tensors, model.graph.initializers.values(), strict=True))


def test_also_when_it_fails() -> None:
    model = normalize(linear_proto())
    model.graph[0].attributes.add(ir.AttrInt64("bogus", 1))
    tensor = model.graph.initializers["w"].const_value
    with pytest.raises(ModelError):
        check(model)
    assert model.graph.initializers["w"].const_value is tensor


def test_unknown_operators_are_tolerated_and_known_ones_still_checked() -> None:
    nodes = [helper.make_node("Mystery", ["x"], ["m"], domain="acme"), helper.make_node("Relu", ["m"], ["y"])]
    model = normalize(model_proto(nodes, {"x": [2]}, {"y": [2]}, domains={"acme": 1}))
    model.graph[1].attributes.add(ir.AttrInt64("bogus", 1))
    with pytest.raises(ModelError, match="bogus"):
        check(model)


def test_unknown_operators_in_the_graph_and_in_a_body_of_it_are_tolerated() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "my" : 1]> g (bool c, float[2] x) => (float[2] y) { a = my.Mystery(x)  y = If (c) <
        then_branch = t () => (float[2] p) { h = my.Mystery(a)  p = Neg(h) }, else_branch = e () => (float[2] q) { q = Abs(a) }> }"""
    )
    model = normalize(proto)
    refresh_shapes(model)
    check(model)
    assert [node.op_type for node in model.graph.all_nodes()] == ["Mystery", "If", "Mystery", "Neg", "Abs"]


def test_a_body_may_give_what_an_unknown_operator_makes() -> None:
    model = normalize(
        onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 17, "my" : 1]> g (bool c, float[2] x) => (float[2] y) { y = If (c) <
            then_branch = t () => (float[2] p) { p = my.Mystery(x) }, else_branch = e () => (float[2] q) { q = Abs(x) }> }"""
        )
    )
    check(model)
    refresh_shapes(model)
    check(model)


def test_more_than_protobuf_can_hold() -> None:
    model = normalize(linear_proto())
    huge = ir.LazyTensor(lambda: ir.tensor([0.0]), dtype=ir.DataType.FLOAT, shape=ir.Shape([1 << 30]), name="huge")
    value = ir.Value(name="huge", shape=ir.Shape([1 << 30]), type=ir.TensorType(ir.DataType.FLOAT), const_value=huge)
    model.graph.register_initializer(value)
    check(model)


def many(kind: str, count: int) -> ir.Model:
    if kind == "chain":
        nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(count)]
        return normalize(model_proto(nodes, {"v0": ["N"]}, {f"v{count}": ["N"]}))
    proto = branch_proto()
    original = proto.graph.node[1]
    for i in range(count):
        again = proto.graph.node.add()
        again.CopyFrom(original)
        again.name, again.output[0] = f"if{i}", f"y{i}"
    return normalize(proto)


@pytest.mark.parametrize(("kind", "count"), [("chain", 10_000), ("bodies", 700)])
def test_thousands_of_nodes_and_of_bodies(kind: str, count: int) -> None:
    models = {size: many(kind, size) for size in (count // 20, count // 5, count)}
    for action in (check, snapshot):
        start = time.process_time()
        action(models[count])
        assert time.process_time() - start < 3
        assert_linear(lambda size, action=action: lambda: action(models[size]), count // 20, count // 5)  # type: ignore[misc]


def face(inputs: object, outputs: object) -> Interface:
    return Interface((("x", "FLOAT", inputs),), (("y", "FLOAT", outputs),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (face(("N", 4), ("N",)), face(("N", 4), ("N",)), None),
        (face(("N", 4), ("N",)), face((1, 4), ("N",)), "input 'x' had shape [N, 4] and has [1, 4]"),
        (face(("N", 4), ("N",)), face(("M", 4), ("N",)), "input 'x'"),
        (face(("N", 4), ("?", "N")), face(("N", 4), (3, "N")), None),
        (face(("N",), ("N",)), face(("N",), (7,)), None),
        (face(("N",), (7,)), face(("N",), ("N",)), "output 'y' had shape [7] and has [N]"),
        (face(("N",), ("N",)), face(("N",), ("?",)), "output 'y'"),
        (face(("N",), None), face(("N",), ("N",)), None),
        (face(("N",), ("N",)), face(("N",), None), "has of unknown rank"),
        (face(("N",), (1, 2)), face(("N",), (1, 2, 3)), "output 'y'"),
    ],
)
def test_interface_differences(before: Interface, after: Interface, said: str | None) -> None:
    difference = before.difference(after)
    assert difference is None if said is None else difference is not None and said in difference


def test_names_order_and_types_are_part_of_the_interface() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Exp", ["x"], ["b"])]
    model = normalize(model_proto(nodes, {"x": [2]}, {"a": [2], "b": [2]}))
    before = interface(model)
    assert before.outputs == (("a", "FLOAT", (2,)), ("b", "FLOAT", (2,)))
    first = model.graph.outputs.pop(0)
    model.graph.outputs.append(first)
    assert before.difference(interface(model)) == "outputs were ['a', 'b'] and are ['b', 'a']"
    model.graph.outputs.insert(0, model.graph.outputs.pop())
    model.graph.outputs[0].dtype = ir.DataType.INT8
    assert before.difference(interface(model)) == "output 'a' was FLOAT and is INT8"
