"""What a model costs without some of its residual branches: multiply-accumulates and parameters, without removing any."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import onnx_ir as ir

from irc.analysis.model_cost import ModelCost
from irc.analysis.weights import parameters
from irc.pass_base import node_id
from irc.passes.pruning.layers.residual_branches import Branch, inside


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        macs: Multiply-accumulates of one inference, as `irc.analysis.model_cost` counts them.
        parameters: Parameters of what is stored; see `irc.analysis.weights`.
    """

    macs: int
    parameters: int


class BranchCosts:
    """Costs of a model by what is gone of it: what the outputs need is counted.

    Args:
        model: Unchanged.
        nodes: What its nodes cost.
    """

    def __init__(self, model: ir.Model, nodes: ModelCost) -> None:
        self._model = model
        self._macs: dict[str, int] = {}
        for node in nodes.nodes:
            self._macs[node.node] = self._macs.get(node.node, 0) + (node.macs or 0)
        self._parameters: dict[ir.Value, int] = {}

    def without(self, gone: Iterable[Branch]) -> Cost:
        """What is left without some branches."""
        cut = {(branch.add, branch.index) for branch in gone}
        pending = list(self._model.graph.outputs)
        seen: set[ir.Value] = set(pending)
        made: set[ir.Node] = set()
        macs = stored = 0
        while pending:
            value = pending.pop()
            node = value.producer()
            if node is None:
                if value not in self._parameters:
                    self._parameters[value] = parameters(value) if value.is_initializer() else 0
                stored += self._parameters[value]
                continue
            if node in made:
                continue
            made.add(node)
            macs += self._macs.get(node_id(node), 0)
            macs += sum(self._macs.get(node_id(inner), 0) for inner in inside(node) if inner not in made)
            made.update(inside(node))
            inputs = [v for i, v in enumerate(node.inputs) if v is not None and (node, i) not in cut]
            inputs += [value for inner in inside(node) for value in inner.inputs if value is not None]
            for read in inputs:
                if read not in seen:
                    seen.add(read)
                    pending.append(read)
        return Cost(macs, stored)
