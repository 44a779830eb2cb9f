"""Edits keep public names, types and positions, and a graph that computes what was meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ir_graphs import branch_proto, linear_proto, model_proto, run_reference
from onnx import helper

from irc.ir import (
    add_initializer,
    bypass,
    can_replace,
    check,
    constant,
    interface,
    normalize,
    remove_dead,
    replace_node,
    replace_value,
    save,
)

X = {"x": np.array([1, -2], np.float32)}


def graph(nodes: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",), **weights: np.ndarray) -> ir.Model:
    return normalize(model_proto(nodes, {"x": ["N"]}, {name: ["N"] for name in outputs}, weights))


def outputs_of(model: ir.Model, tmp_path: Path, feed: dict[str, np.ndarray] = X) -> list[np.ndarray]:
    check(model)
    save(model, tmp_path / "edited.onnx")
    return run_reference(tmp_path / "edited.onnx", feed)


def node(model: ir.Model, op_type: str) -> ir.Node:
    return next(n for n in model.graph.all_nodes() if n.op_type == op_type)


class TestBypass:
    def test_in_the_middle(self, tmp_path: Path) -> None:
        model = graph([helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])])
        assert bypass(node(model, "Identity"), model.graph.inputs[0])
        assert [n.op_type for n in model.graph] == ["Neg"]
        np.testing.assert_array_equal(outputs_of(model, tmp_path)[0], -X["x"])

    def test_at_the_output_the_public_name_type_and_symbol_survive(self, tmp_path: Path) -> None:
        model = graph([helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["y"])])
        before = interface(model)
        assert bypass(node(model, "Identity"), node(model, "Neg").outputs[0])
        assert interface(model) == before
        np.testing.assert_array_equal(outputs_of(model, tmp_path)[0], -X["x"])

    @pytest.mark.parametrize("source", ["input", "initializer", "other output"])
    def test_refused_where_a_public_name_would_be_lost(self, tmp_path: Path, source: str) -> None:
        """onnx_ir's own pass returns outputs [z, z] for the third."""
        nodes = [helper.make_node("Neg", ["x"], ["z"])]
        name = {"input": "x", "initializer": "w", "other output": "z"}[source]
        nodes.append(helper.make_node("Identity", [name], ["y"]))
        model = graph(nodes, ("z", "y"), w=np.ones(2, np.float32))
        before = interface(model)
        identity = node(model, "Identity")
        source_value = identity.inputs[0]
        assert source_value is not None
        assert not can_replace(identity.outputs[0], source_value)
        assert not bypass(identity, source_value)
        assert interface(model) == before
        assert len(model.graph) == 2
        assert [value.name for value in model.graph.outputs] == ["z", "y"]
        outputs_of(model, tmp_path)

    def test_refused_when_a_second_output_is_used(self) -> None:
        nodes = [
            helper.make_node("Dropout", ["x"], ["a", "mask"]),
            helper.make_node("Not", ["mask"], ["n"]),
            helper.make_node("Neg", ["a"], ["y"]),
        ]
        model = graph([*nodes, helper.make_node("Cast", ["n"], ["c"], to=1)], ("y", "c"))
        assert not bypass(node(model, "Dropout"), model.graph.inputs[0])
        assert len(model.graph) == 4

    def test_users_in_bodies_follow(self, tmp_path: Path) -> None:
        proto = branch_proto()
        proto.graph.node[0].CopyFrom(helper.make_node("Identity", ["x"], ["t"]))
        model = normalize(proto)
        assert bypass(model.graph[0], model.graph.inputs[1])
        x = np.full((4, 300), -1, np.float32)
        for cond, want in ((True, x * 3), (False, x)):
            got = outputs_of(model, tmp_path, {"cond": np.array(cond), "x": x})[0]
            np.testing.assert_array_equal(got, want)

    def test_the_output_of_a_body(self, tmp_path: Path) -> None:
        """Its Identity must stay: a body cannot return a value of the outer graph."""
        model = normalize(branch_proto())
        identity = node(model, "Identity")
        captured = identity.inputs[0]
        assert captured is not None
        assert not bypass(identity, captured)
        check(model)


class TestReplaceValue:
    def test_an_identity_is_left_where_it_must_be(self, tmp_path: Path) -> None:
        model = graph(
            [
                helper.make_node("Neg", ["x"], ["a"]),
                helper.make_node("Abs", ["a"], ["y"]),
                helper.make_node("Exp", ["y"], ["e"]),
            ],
            ("y", "e"),
        )
        before = interface(model)
        assert replace_value(node(model, "Abs").outputs[0], model.graph.inputs[0]) is False
        remove_dead(model)
        assert interface(model) == before
        y, e = outputs_of(model, tmp_path)
        np.testing.assert_array_equal(y, X["x"])
        np.testing.assert_allclose(e, np.exp(X["x"]), rtol=1e-6)

    def test_a_replacement_computed_later_in_the_graph(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("Abs", ["x"], ["y"]),
            helper.make_node("Neg", ["x"], ["n"]),
            helper.make_node("Exp", ["n"], ["z"]),
        ]
        model = graph(nodes, ("y", "n", "z"))
        assert replace_value(node(model, "Abs").outputs[0], node(model, "Neg").outputs[0]) is False
        remove_dead(model)
        y, n, _ = outputs_of(model, tmp_path)
        np.testing.assert_array_equal(y, -X["x"])
        np.testing.assert_array_equal(n, -X["x"])

    def test_by_a_constant(self, tmp_path: Path) -> None:
        model = graph([helper.make_node("Sub", ["x", "x"], ["a"]), helper.make_node("Add", ["x", "a"], ["y"])])
        zero = add_initializer(model.graph, "a_folded", np.zeros(2, np.float32))
        assert replace_value(node(model, "Sub").outputs[0], zero) is True
        assert remove_dead(model) == 1
        np.testing.assert_array_equal(outputs_of(model, tmp_path)[0], X["x"])

    def test_by_itself_changes_nothing(self) -> None:
        model = graph([helper.make_node("Neg", ["x"], ["y"])])
        assert replace_value(model.graph.outputs[0], model.graph.outputs[0])
        assert model.graph.outputs[0].name == "y"
        check(model)

    def test_an_output_that_is_listed_twice(self, tmp_path: Path) -> None:
        model = graph([helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["y"])])
        model.graph.outputs.append(model.graph.outputs[0])
        before = interface(model)
        replace_value(node(model, "Identity").outputs[0], node(model, "Neg").outputs[0])
        remove_dead(model)
        assert interface(model) == before
        check(model)

    def test_an_input_that_is_passed_through_cannot_be_replaced(self) -> None:
        model = graph([helper.make_node("Neg", ["x"], ["y"])], ("y", "x"))
        with pytest.raises(ValueError, match="input 'x' is also an output"):
            replace_value(model.graph.inputs[0], add_initializer(model.graph, "c", np.ones(2, np.float32)))
        check(model)


class TestReplaceNode:
    def test_names_type_shape_position_and_module_are_inherited(self, tmp_path: Path) -> None:
        model = graph([helper.make_node("Neg", ["x"], ["a"], name="n"), helper.make_node("Exp", ["a"], ["y"])])
        old = node(model, "Neg")
        old.metadata_props["irc.module"] = "enc.fc"
        old.metadata_props["other"] = "gone"
        old.outputs[0].shape = ir.Shape(["N"])
        new = replace_node(old, "LeakyRelu", [model.graph.inputs[0]], {"alpha": 0.5})
        assert (new.name, new.outputs[0].name, new.metadata_props) == ("n", "a", {"irc.module": "enc.fc"})
        assert new.outputs[0].shape == ir.Shape(["N"])
        assert next(iter(model.graph)) is new
        assert old.graph is None
        np.testing.assert_allclose(outputs_of(model, tmp_path)[0], np.exp([1, -1]), rtol=1e-6)

    def test_a_graph_output_stays_the_same_output(self) -> None:
        model = graph([helper.make_node("Neg", ["x"], ["y"])])
        before = interface(model)
        new = replace_node(node(model, "Neg"), "Abs", [model.graph.inputs[0]])
        assert model.graph.outputs[0] is new.outputs[0]
        assert interface(model) == before
        check(model)

    def test_omitted_inputs_and_fewer_outputs(self, tmp_path: Path) -> None:
        model = graph([helper.make_node("Dropout", ["x"], ["y", "mask"])])
        low = add_initializer(model.graph, "low", np.float32(0))
        new = replace_node(node(model, "Dropout"), "Clip", [model.graph.inputs[0], None, low], outputs=1)
        assert len(new.outputs) == 1
        np.testing.assert_array_equal(outputs_of(model, tmp_path)[0], np.minimum(X["x"], 0))

    def test_dropping_an_output_that_is_used_changes_nothing(self) -> None:
        nodes = [helper.make_node("Dropout", ["x"], ["y", "m"]), helper.make_node("Cast", ["m"], ["c"], to=1)]
        model = graph(nodes, ("y", "c"))
        before = ir.to_proto(model).SerializeToString()
        with pytest.raises(ValueError, match="output 'm' of node"):
            replace_node(node(model, "Dropout"), "Identity", [model.graph.inputs[0]], outputs=1)
        assert ir.to_proto(model).SerializeToString() == before

    def test_more_outputs_get_names_of_their_own(self) -> None:
        model = graph(
            [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y_1"])], ("y", "y_1")
        )
        new = replace_node(node(model, "Identity"), "Dropout", [model.graph.inputs[0]], outputs=2)
        assert len({o.name for n in model.graph for o in n.outputs}) == 3
        assert new.outputs[1].name
        check(model)

    def test_a_node_without_graph(self) -> None:
        with pytest.raises(ValueError, match="not in a graph"):
            replace_node(ir.Node("", "Relu", [], name="loose"), "Neg", [])

    def test_in_a_body(self, tmp_path: Path) -> None:
        model = normalize(branch_proto())
        old = node(model, "Mul")
        replace_node(old, "Div", old.inputs)
        x = np.ones((4, 300), np.float32)
        np.testing.assert_array_equal(outputs_of(model, tmp_path, {"cond": np.array(True), "x": x})[0], x * 1.5)


class TestAddInitializer:
    def test_never_replaces_another(self) -> None:
        """graph.initializers[name] = v does so in silence and leaves its users on the orphan."""
        model = normalize(linear_proto())
        before = constant(model.graph.initializers["w"])
        added = add_initializer(model.graph, "w", np.zeros(3, np.int8))
        assert added.name == "w_1"
        assert constant(model.graph.initializers["w"]) is before or np.shares_memory(
            constant(model.graph.initializers["w"]), before
        )
        assert (added.dtype, added.shape) == (ir.DataType.INT8, ir.Shape([3]))

    def test_names_are_free_in_bodies_and_outside(self) -> None:
        model = normalize(branch_proto())
        body = node(model, "Mul").graph
        assert isinstance(body, ir.Graph)
        assert add_initializer(body, "t", np.zeros(1)).name == "t_1"
        assert add_initializer(model.graph, "m", np.zeros(1)).name == "m_1"
        check(model)

    def test_scalars_lists_of_python_and_packed_tensors(self) -> None:
        model = normalize(linear_proto())
        assert add_initializer(model.graph, "s", np.float16(2)).shape == ir.Shape([])
        packed = ir.tensor(np.zeros(5, ir.DataType.UINT4.numpy()))
        assert add_initializer(model.graph, "p", packed).dtype == ir.DataType.UINT4

    def test_a_lazy_tensor_is_not_evaluated(self) -> None:
        def fail() -> ir.TensorProtocol:
            raise AssertionError

        model = normalize(linear_proto())
        lazy = ir.LazyTensor(fail, dtype=ir.DataType.FLOAT, shape=ir.Shape([4, 5]))
        assert add_initializer(model.graph, "l", lazy).shape == ir.Shape([4, 5])


class TestRemoveDead:
    def test_nodes_weights_bodies_and_opsets(self) -> None:
        proto = branch_proto()
        body = next(a.g for a in proto.graph.node[1].attribute if a.name == "then_branch")
        body.node.append(helper.make_node("Exp", ["body_w"], ["unused_in_body"]))
        body.initializer.append(onnx.numpy_helper.from_array(np.ones(9, np.float32), "unused_w"))
        proto.graph.node.append(helper.make_node("Neg", ["t"], ["u1"]))
        proto.graph.node.append(helper.make_node("Mystery", ["u1"], ["u2"], domain="acme"))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(9, np.float32), "unused"))
        proto.opset_import.append(helper.make_opsetid("acme", 1))
        model = normalize(proto)
        assert remove_dead(model) == 3
        assert remove_dead(model) == 0
        assert [n.op_type for n in model.graph.all_nodes()].count("Exp") == 0
        names = [name for g in (model.graph, *model.graph.subgraphs()) for name in g.initializers]
        assert sorted(set(names)) == ["body_w"]
        assert model.graph.opset_imports == {"": 17}
        check(model)

    def test_the_interface_stays_even_if_nothing_uses_it(self) -> None:
        nodes = [helper.make_node("Neg", ["x"], ["y"])]
        proto = model_proto(
            nodes,
            {"x": [2], "ignored": [3], "w": [2]},
            {"y": [2], "c": [2]},
            {"w": np.ones(2, np.float32), "c": np.ones(2, np.float32)},
        )
        model = normalize(proto)
        before = interface(model)
        assert remove_dead(model) == 0
        assert interface(model) == before
        assert sorted(model.graph.initializers) == ["c", "w"]

    def test_the_default_opset_stays_when_only_custom_operators_do(self) -> None:
        nodes = [helper.make_node("Mystery", ["x"], ["y"], domain="acme")]
        model = normalize(model_proto(nodes, {"x": [2]}, {"y": [2]}, domains={"acme": 1}))
        remove_dead(model)
        assert model.graph.opset_imports == {"": 17, "acme": 1}


def test_what_only_the_body_of_a_removed_node_used_goes_too():
    model = ir.from_proto(
        onnx.parser.parse_model(
            """<ir_version: 8, opset_import: ["" : 18]>
            g (bool c, float[2] x) => (float[2] z) <float[2] w = {1, 2}, float[2] v = {3, 4}> {
                a = Neg(x)
                y = If (c) <then_branch = t () => (float[2] p) { p = Add(a, w) },
                            else_branch = e () => (float[2] q) { k = Relu(v) q = Mul(a, k) }>
                z = Abs(x) }"""
        )
    )
    remove_dead(model)
    assert [node.op_type for node in model.graph] == ["Abs"] and not model.graph.initializers
