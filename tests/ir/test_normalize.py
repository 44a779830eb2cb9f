"""The one form of a model: names, functions, constants, metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ir_graphs import branch, branch_proto, linear_proto, model_proto, run_reference
from onnx import helper

from irc.errors import ModelError
from irc.ir import check, load, normalize, provenance, save
from irc.ir.exporter_metadata import module_path


def saved(model: ir.Model, tmp_path: Path) -> Path:
    save(model, tmp_path / "normal.onnx")
    return tmp_path / "normal.onnx"


def names(model: ir.Model) -> list[str]:
    return [o.name or "" for node in model.graph.all_nodes() for o in node.outputs]


class TestRepeatedNames:
    def test_torch_exporter_bug_output_equal_to_an_internal_value(self, tmp_path: Path) -> None:
        """The output `t` and an internal `t`: users in between mean the internal one."""
        nodes = [
            helper.make_node("Neg", ["x"], ["t"]),
            helper.make_node("Abs", ["t"], ["u"]),
            helper.make_node("Exp", ["u"], ["t"]),
        ]
        model = normalize(model_proto(nodes, {"x": [2]}, {"t": [2]}))
        x = np.array([1, -2], np.float32)
        np.testing.assert_allclose(run_reference(saved(model, tmp_path), {"x": x})[0], np.exp(np.abs(x)), rtol=1e-6)
        assert [o.name for o in model.graph.outputs] == ["t"]
        assert "1 repeated names were made unique: 't'" in provenance(model).notes

    def test_internal_repetition_means_the_latest_before_the_use(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("Neg", ["x"], ["t"]),
            helper.make_node("Exp", ["t"], ["t"]),
            helper.make_node("Add", ["t", "x"], ["t"]),
            helper.make_node("Identity", ["t"], ["y"]),
        ]
        model = normalize(model_proto(nodes, {"x": [2]}, {"y": [2]}))
        x = np.array([1, -2], np.float32)
        np.testing.assert_allclose(run_reference(saved(model, tmp_path), {"x": x})[0], np.exp(-x) + x, rtol=1e-6)

    def test_node_that_redefines_a_graph_input_or_a_weight(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("Add", ["x", "w"], ["x"]),
            helper.make_node("Neg", ["w"], ["w"]),
            helper.make_node("Mul", ["x", "w"], ["y"]),
        ]
        model = normalize(model_proto(nodes, {"x": [2]}, {"y": [2]}, {"w": np.full(2, 3, np.float32)}))
        x = np.array([1, -2], np.float32)
        np.testing.assert_allclose(run_reference(saved(model, tmp_path), {"x": x})[0], (x + 3) * -3)
        assert [value.name for value in model.graph.inputs] == ["x"]

    def test_bodies_see_the_definition_before_their_node(self, tmp_path: Path) -> None:
        proto = branch_proto()
        proto.graph.node.insert(1, helper.make_node("Exp", ["t"], ["t"], name="again"))
        model = normalize(proto)
        x = np.random.default_rng(0).normal(size=(4, 300)).astype(np.float32)
        got = run_reference(saved(model, tmp_path), {"cond": np.array(True), "x": x})[0]
        np.testing.assert_allclose(got, x * 2 + np.exp(np.maximum(x, 0)), rtol=1e-5)

    def test_two_equal_weights_of_one_name_are_one(self, tmp_path: Path) -> None:
        proto = linear_proto()
        proto.graph.initializer.append(proto.graph.initializer[0])
        x = np.ones((1, 64), np.float32)
        want = run_reference(linear_proto(), {"x": x})[0]
        np.testing.assert_array_equal(run_reference(saved(normalize(proto), tmp_path), {"x": x})[0], want)

    def test_two_different_weights_of_one_name_are_refused(self) -> None:
        """ONNX Runtime 1.31 takes the later one if they are small and the earlier one if they are large."""
        proto = linear_proto()
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 32), np.float32), "w"))
        with pytest.raises(ModelError, match="two initializers are called 'w' and differ"):
            normalize(proto)

    @pytest.mark.parametrize("value", ["then_y", "m"])
    def test_body_names_that_occur_in_both_branches_or_outside(self, tmp_path: Path, value: str) -> None:
        proto = branch_proto()
        other = branch(proto, "else_branch")
        other.node[0].output[0] = other.output[0].name = value
        model = normalize(proto)
        assert len(set(names(model))) == len(names(model))
        x = np.ones((4, 300), np.float32)
        got = run_reference(saved(model, tmp_path), {"cond": np.array(False), "x": x})[0]
        np.testing.assert_array_equal(got, x)

    def test_two_inputs_of_one_name_are_refused(self) -> None:
        proto = linear_proto()
        proto.graph.input.append(proto.graph.input[0])
        with pytest.raises(ModelError, match="two graph inputs are called 'x'"):
            normalize(proto)

    def test_input_and_computed_output_of_one_name_are_refused(self) -> None:
        proto = model_proto([helper.make_node("Relu", ["x"], ["x"])], {"x": [2]}, {"x": [2]})
        with pytest.raises(ModelError, match="both called 'x'"):
            normalize(proto)

    def test_an_input_passed_through_is_no_repetition(self) -> None:
        proto = model_proto([helper.make_node("Relu", ["x"], ["y"])], {"x": [2]}, {"y": [2], "x": [2]})
        assert provenance(normalize(proto)).notes == ()

    def test_values_of_one_name_in_memory(self) -> None:
        """The exporter's bug before it reaches a file: two objects of one name, told apart by identity."""
        model = ir.from_proto(
            model_proto(
                [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Exp", ["a"], ["y"])], {"x": [2]}, {"y": [2]}
            )
        )
        model.graph[0].outputs[0].name = "y"
        fixed = normalize(model)
        assert [o.name for o in fixed.graph.outputs] == ["y"]
        assert fixed.graph.outputs[0].producer().op_type == "Exp"  # type: ignore[union-attr]
        assert len(set(names(fixed))) == 2

    def test_nodes_get_distinct_names(self) -> None:
        nodes = [
            helper.make_node("Neg", ["x"], ["a"]),
            helper.make_node("Exp", ["a"], ["b"], name="same"),
            helper.make_node("Abs", ["b"], ["y"], name="same"),
        ]
        model = normalize(model_proto(nodes, {"x": [2]}, {"y": [2]}))
        assert [node.name for node in model.graph] == ["a", "same", "same_1"]


def function(version: int, nodes: list[onnx.NodeProto], name: str = "F", **more: list[str]) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", version), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["b"], nodes, imports, **more)


class TestFunctions:
    def call(self, functions: list[onnx.FunctionProto], opset: int = 17, **attributes: object) -> onnx.ModelProto:
        nodes = [
            helper.make_node("F", ["x"], ["t"], domain="local", **attributes),
            helper.make_node("F", ["t"], ["y"], domain="local", **attributes),
        ]
        return model_proto(nodes, {"x": [2]}, {"y": [2]}, opset=opset, domains={"local": 1}, functions=functions)

    def test_inlined_with_values_and_attributes_of_each_call(self, tmp_path: Path) -> None:
        leaky = helper.make_node("LeakyRelu", ["a"], ["c"])
        leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
        proto = self.call(
            [function(17, [leaky, helper.make_node("Neg", ["c"], ["b"])], attributes=["slope"])], slope=0.5
        )
        model = normalize(proto)
        assert not model.functions
        assert [node.op_type for node in model.graph] == ["LeakyRelu", "Neg"] * 2
        x = np.array([1, -2], np.float32)
        np.testing.assert_array_equal(
            run_reference(saved(model, tmp_path), {"x": x})[0], run_reference(proto, {"x": x})[0]
        )

    def test_another_opset_with_the_same_operators_is_inlined(self, tmp_path: Path) -> None:
        proto = self.call([function(15, [helper.make_node("Relu", ["a"], ["b"])])])
        model = normalize(proto)
        assert not model.functions
        assert model.graph.opset_imports[""] == 17
        assert provenance(model).notes == ()

    def test_another_opset_with_other_operators_stays_opaque_and_is_reported(self, tmp_path: Path) -> None:
        """ReduceSum took its axes as an attribute before opset 13."""
        nodes = [helper.make_node("ReduceSum", ["a"], ["s"], axes=[0]), helper.make_node("Mul", ["a", "s"], ["b"])]
        proto = self.call([function(12, nodes)])
        model = normalize(proto)
        assert len(model.functions) == 1
        assert [node.op_type for node in model.graph] == ["F", "F"]
        assert any(
            "local.F was left as it is: its ReduceSum is of opset 12" in note for note in provenance(model).notes
        )
        written = onnx.load(saved(model, tmp_path))
        assert [o.version for o in written.functions[0].opset_import if o.domain == ""] == [12]

    def test_what_an_opaque_function_calls_stays_with_it(self) -> None:
        inner = function(17, [helper.make_node("Relu", ["a"], ["b"])], name="Inner")
        nodes = [
            helper.make_node("ReduceSum", ["a"], ["s"], axes=[0]),
            helper.make_node("Inner", ["s"], ["b"], domain="local"),
        ]
        model = normalize(self.call([function(12, nodes), inner]))
        assert sorted(identifier[1] for identifier in model.functions) == ["F", "Inner"]

    def test_nested_functions(self) -> None:
        inner = function(17, [helper.make_node("Relu", ["a"], ["b"])], name="Inner")
        model = normalize(self.call([function(17, [helper.make_node("Inner", ["a"], ["b"], domain="local")]), inner]))
        assert [node.op_type for node in model.graph] == ["Relu", "Relu"]

    def test_cycle_of_functions_is_refused(self) -> None:
        first = function(17, [helper.make_node("G", ["a"], ["b"], domain="local")])
        second = function(17, [helper.make_node("F", ["a"], ["b"], domain="local")], name="G")
        with pytest.raises(ModelError, match=r"cannot be inlined: .*Cyclic"):
            normalize(self.call([first, second]))

    def test_call_in_a_body(self) -> None:
        proto = branch_proto()
        branch(proto, "else_branch").node[0].CopyFrom(helper.make_node("F", ["t"], ["else_y"], domain="local"))
        proto.functions.append(function(17, [helper.make_node("Relu", ["a"], ["b"])]))
        proto.opset_import.append(helper.make_opsetid("local", 1))
        model = normalize(proto)
        assert not model.functions
        assert [node.op_type for node in model.graph.all_nodes()].count("Relu") == 2


class TestConstants:
    def test_constant_nodes_become_initializers_in_every_graph(self, tmp_path: Path) -> None:
        proto = branch_proto()
        body = branch(proto, "else_branch")
        body.node.insert(0, helper.make_node("Constant", [], ["c"], value_float=2.5))
        body.node[1].CopyFrom(helper.make_node("Mul", ["t", "c"], ["else_y"]))
        model = normalize(proto)
        assert "Constant" not in [node.op_type for node in model.graph.all_nodes()]
        x = np.ones((4, 300), np.float32)
        got = run_reference(saved(model, tmp_path), {"cond": np.array(False), "x": x})[0]
        np.testing.assert_array_equal(got, x * 2.5)

    def test_a_constant_that_is_an_output_stays_a_node(self) -> None:
        nodes = [
            helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]),
            helper.make_node("Neg", ["c"], ["y"]),
        ]
        model = normalize(model_proto(nodes, {}, {"y": [2], "c": [2]}))
        assert [o.name for o in model.graph.outputs] == ["y", "c"]

    def test_a_large_constant_leaves_the_model_file_when_weights_do(self, tmp_path: Path) -> None:
        big = onnx.numpy_helper.from_array(np.zeros(1 << 16, np.float32))
        nodes = [helper.make_node("Constant", [], ["c"], value=big), helper.make_node("Add", ["x", "c"], ["y"])]
        model = normalize(model_proto(nodes, {"x": [1 << 16]}, {"y": [1 << 16]}))
        save(model, tmp_path / "m.onnx", external_threshold=0)
        assert (tmp_path / "m.onnx").stat().st_size < 1000


class TestMetadata:
    TRACE = 'File "/home/me/model.py", line 3, in forward'

    def annotated(self) -> onnx.ModelProto:
        proto = linear_proto()
        node = proto.graph.node[0]
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=self.TRACE)
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'enc', 'enc.fc', 'linear']")
        node.metadata_props.add(key="namespace", value="__main__.Net/enc/enc.fc")
        node.doc_string = self.TRACE
        proto.graph.input[0].doc_string = proto.graph.initializer[0].doc_string = self.TRACE
        proto.graph.input[0].metadata_props.add(key="pkg.torch.kind", value="USER_INPUT")
        proto.graph.doc_string = "exported from /home/me/model.py"
        proto.doc_string = "a classifier"
        proto.metadata_props.add(key="names", value="{0: 'cat'}")
        proto.metadata_props.add(key="source", value="C:\\Users\\me\\net.py")
        return proto

    def test_paths_and_traces_go_and_the_module_stays(self, tmp_path: Path) -> None:
        content = saved(normalize(self.annotated()), tmp_path).read_bytes()
        for gone in (b"/home/me", b"stack_trace", b"name_scopes", b"Users", b"pkg.", b"namespace"):
            assert gone not in content
        written = onnx.load_from_string(content)
        assert {p.key: p.value for p in written.graph.node[0].metadata_props} == {"irc.module": "enc.fc"}
        assert written.doc_string == "a classifier"
        assert {p.key: p.value for p in written.metadata_props} == {"names": "{0: 'cat'}"}

    def test_the_module_survives_a_second_load(self, tmp_path: Path) -> None:
        again = load(saved(normalize(self.annotated()), tmp_path))
        assert again.graph[0].metadata_props == {"irc.module": "enc.fc"}

    @pytest.mark.parametrize(
        ("scopes", "module"),
        [
            ("['', 'a', 'a.b', 'add_1']", "a.b"),
            ("['', 'add_1']", ""),
            ("", ""),
            ("not python", ""),
            ("[1, 2]", ""),
            ("{}", ""),
        ],
    )
    def test_module_path(self, scopes: str, module: str) -> None:
        assert module_path(scopes) == module


class TestInMemory:
    def test_the_argument_is_not_changed(self) -> None:
        proto = self_repeating = linear_proto()
        before = proto.SerializeToString()
        normalize(self_repeating)
        assert proto.SerializeToString() == before
        model = ir.from_proto(proto)
        before = ir.to_proto(model).SerializeToString()
        normalize(model)
        assert ir.to_proto(model).SerializeToString() == before

    def test_something_else(self) -> None:
        with pytest.raises(ModelError, match="dict is not a model"):
            normalize({})

    def test_a_proto_whose_weights_are_elsewhere(self) -> None:
        proto = linear_proto()
        weight = proto.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="w.bin")
        with pytest.raises(ModelError, match="give the path instead"):
            normalize(proto)

    def test_an_invalid_model(self) -> None:
        model = ir.from_proto(linear_proto())
        next(iter(model.graph)).attributes["bogus"] = ir.AttrInt64("bogus", 1)
        with pytest.raises(ModelError):
            normalize(model)

    def test_normalizing_twice_changes_nothing(self) -> None:
        once = normalize(branch_proto())
        assert ir.to_proto(normalize(once)).SerializeToString() == ir.to_proto(once).SerializeToString()

    def test_ai_onnx_is_the_default_domain(self) -> None:
        proto = linear_proto()
        proto.opset_import[0].domain = "ai.onnx"
        model = normalize(proto)
        assert model.graph.opset_imports == {"": 17}
        check(model)
