"""An exported program as a graph with attributes, and back: the same program, and the same ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn
from traced_modules import Encoder, classifier, images, seeded, tokens

from irc.errors import ModelError
from irc.trace.lowering import lower
from irc.trace.program_graph import (
    add_attribute,
    attribute,
    copy_graph,
    drop_outputs,
    lift,
    output_names,
    output_node,
    unlift,
)


def exported(module: nn.Module, example: Any, shapes: Any = None) -> torch.export.ExportedProgram:
    args, kwargs = ((), example) if isinstance(example, dict) else (example, {})
    return torch.export.export(module, args, kwargs=kwargs, dynamic_shapes=shapes)


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return exported(classifier(), images((2, 10))[0], ({0: torch.export.Dim("batch")},))


class Everything(nn.Module):
    """A buffer, a constant tensor, an input that is returned, a tensor that is returned twice."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([2.0, 3.0]))
        self.register_buffer("offset", torch.tensor([1.0, -1.0]), persistent=False)
        self.constant = torch.tensor([5.0, 7.0])

    def forward(self, x: torch.Tensor, flag: bool = True) -> tuple[torch.Tensor, ...]:
        y = x * self.scale + self.offset - self.constant
        return y, x, y, self.scale


class TestRoundTrip:
    @pytest.mark.parametrize(
        ("module", "example"),
        [
            (classifier(), images((2, 10))[0]),
            (seeded(Encoder()).eval(), tokens((2, 6))[0]),
            (Everything(), (torch.ones(3, 2), False)),
        ],
        ids=["classifier", "encoder", "everything"],
    )
    def test_gives_the_same_onnx(self, module: nn.Module, example: Any) -> None:
        program = exported(module, example)
        again = lift(copy_graph(unlift(program)), program)
        assert str(again.graph_signature) == str(program.graph_signature)
        first, second = (ir.to_proto(lower(p)).SerializeToString(deterministic=True) for p in (program, again))
        assert first == second

    def test_the_graph_module_computes_what_the_module_does(self, program: torch.export.ExportedProgram) -> None:
        module, (example,) = classifier(), images((4, 10))[0]
        for mine, theirs in zip(unlift(program)(example), module(example), strict=True):
            assert torch.equal(mine, theirs)

    def test_parameters_are_shared_or_copied(self, program: torch.export.ExportedProgram) -> None:
        weight = program.state_dict["head.weight"]
        assert unlift(program).head.weight is weight
        copied = unlift(program, copy_parameters=True).head.weight
        assert copied is not weight and torch.equal(copied, weight)

    def test_tied_parameters_stay_tied_in_copies(self) -> None:
        program = exported(seeded(Encoder()).eval(), tokens((2, 6))[0])
        copied = unlift(program, copy_parameters=True)
        found = {id(attribute(copied, n)) for n in copied.graph.nodes if n.op == "get_attr" and "weight" in n.target}
        originals = {id(v) for k, v in program.state_dict.items() if "weight" in k}
        assert len(found) == len(originals)


class TestRewriting:
    def test_a_copy_leaves_the_original(self, program: torch.export.ExportedProgram) -> None:
        graph_module = unlift(program)
        before = graph_module.code
        copy = copy_graph(graph_module)
        for node in list(copy.graph.nodes):
            if node.target is torch.ops.aten.relu.default:
                node.target = torch.ops.aten.tanh.default
        copy.recompile()
        assert graph_module.code == before and copy.code != before
        assert copy.head.weight is graph_module.head.weight

    def test_outputs_keep_their_names_whatever_computes_them(self, program: torch.export.ExportedProgram) -> None:
        graph_module = unlift(program)
        first = output_names(graph_module)[0]
        node = output_node(graph_module).args[0][0]
        with graph_module.graph.inserting_after(node):
            doubled = graph_module.graph.call_function(torch.ops.aten.mul.Tensor, (node, 2.0))
        node.replace_all_uses_with(doubled, delete_user_cb=lambda user: user is not doubled)
        lifted = lift(graph_module, program)
        assert output_names(unlift(lifted))[0] == first
        model = lower(lifted, outputs=output_names(graph_module))
        assert model.graph.outputs[0].name == first
        assert [
            n.metadata_props.get("pkg.torch.onnx.name_scopes", "")[:12] for n in model.graph if n.op_type == "Mul"
        ] != [""]

    def test_dropped_outputs_leave_the_interface(self, program: torch.export.ExportedProgram) -> None:
        graph_module = unlift(program)
        names = output_names(graph_module)
        drop_outputs(graph_module, names[1:])
        graph_module.graph.eliminate_dead_code()
        model = lower(lift(graph_module, program))
        assert [value.name for value in model.graph.outputs] == names[:1]
        assert not any(name.startswith("aux") for name in model.graph.initializers)

    def test_new_parameters(self, program: torch.export.ExportedProgram) -> None:
        graph_module = unlift(program)
        node = next(n for n in graph_module.graph.nodes if n.target is torch.ops.aten.relu.default)
        name = add_attribute(graph_module, "layers.gain", torch.tensor(3.0))
        assert (
            name == "layers.gain" and add_attribute(graph_module, "layers.gain", torch.tensor(4.0)) == "layers.gain_1"
        )
        with graph_module.graph.inserting_after(node):
            gain = graph_module.graph.get_attr(name)
            scaled = graph_module.graph.call_function(torch.ops.aten.mul.Tensor, (node, gain))
        node.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)
        scaled.args = (node, gain)
        gain.append(scaled)
        model = lower(lift(graph_module, program))
        assert any(np.array_equal(v.const_value, 3.0) for v in model.graph.initializers.values() if v.const_value)

    def test_an_attribute_that_does_not_exist(self, program: torch.export.ExportedProgram) -> None:
        graph_module = unlift(program)
        node = next(n for n in graph_module.graph.nodes if n.op == "get_attr")
        node.target = "layers.nothing"
        with pytest.raises(ModelError, match=r"reads 'layers\.nothing', which the graph module does not have"):
            lift(graph_module, program)

    def test_shapes_that_do_not_fit(self, program: torch.export.ExportedProgram) -> None:
        graph_module = unlift(program)
        weights = [
            n for n in graph_module.graph.nodes if n.op == "get_attr" and n.target in ("head.weight", "aux.0.weight")
        ]
        weights[0].replace_all_uses_with(next(n for n in graph_module.graph.nodes if n.target == "stem.weight"))
        with pytest.raises(ModelError, match="the rewritten graph does not run"):
            lift(graph_module, program)
