"""Remove what no graph output depends on."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from irc.ir import bodies, remove_dead
from irc.pass_base import Context, Contract, ModelPass
from irc.passes.simplification.unused import release_bodies


@dataclasses.dataclass(frozen=True)
class EliminateDeadCode(ModelPass):
    """Removes nodes, optional outputs, initializers, functions and opset imports that nothing uses, in bodies too.

    Graph inputs stay, used or not: they are the model's interface.
    """

    name: ClassVar[str] = "eliminate-dead-code"
    contract: ClassVar[Contract] = Contract.EXACT
    invalidates: ClassVar[tuple[str, ...]] = ()

    def apply(self, model: ir.Model, ctx: Context) -> bool:
        """Removes dead code; returns whether there was any."""
        before = _census(model)
        nested = [node for node in model.graph.all_nodes() if any(True for _ in bodies(node))]
        remove_dead(model)
        while removed := [node for node in nested if node.graph is None]:
            nested = [node for node in nested if node.graph is not None]
            for node in removed:
                release_bodies(node)
            remove_dead(model)
        return _census(model) != before


def _census(model: ir.Model) -> tuple[int, ...]:
    """How much of everything there is that can be dead."""
    graphs = (model.graph, *model.graph.subgraphs())
    return (
        sum(len(graph) for graph in graphs),
        sum(len(graph.initializers) for graph in graphs),
        sum(1 for graph in graphs for node in graph for output in node.outputs if output.name),
        sum(len(node.inputs) for graph in graphs for node in graph),
        len(model.functions),
        len(model.graph.opset_imports),
    )
