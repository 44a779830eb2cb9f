"""In which order weights are fitted: front to back, all layers that read one weight at once.

A weight has its turn when no weight that is still to be fitted is in what its layers read: in the towers of a siamese network that is
level by level, not tower by tower. There is no such order where a layer reads what comes of its own weight, as in an unrolled loop: then
the weight has its turn when the first of its layers can be fitted, and what the teacher's layers read stands for what the others do.
Values that a sweep has passed so never depend on a weight that changes later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from irc.ir.bodies import bodies
from irc.passes.pruning.repair.weighted_layers import WeightedLayer


@dataclasses.dataclass(frozen=True, eq=False)
class Turn:
    """One weight that is to be fitted.

    Attributes:
        layers: That read it.
        ahead: Those of them that read what depends on it, or on weights that are fitted later.
        corrected: Those of the others that are added to a shortcut which depends on neither, so that its error can be repaired too.
    """

    layers: tuple[WeightedLayer, ...]
    ahead: frozenset[WeightedLayer]
    corrected: frozenset[WeightedLayer]


def fitting_order(graph: ir.Graph, weights: Sequence[tuple[WeightedLayer, ...]]) -> list[Turn]:
    """The turns of some weights.

    Args:
        graph: Of the teacher.
        weights: The layers of each, in the order of the first of them.
    """
    behind = _weights_behind(graph, weights)
    pending = dict(enumerate(weights))
    left = (1 << len(weights)) - 1
    turns = []

    def waits(number: int, *, shortcuts: bool) -> int:
        """How many layers of a weight read, or are added to, what is not final."""
        found = [behind.get(layer.layer.source, 0) for layer in pending[number]]
        if shortcuts:
            found += [behind.get(layer.shortcut, 0) for layer in pending[number]]
        return sum(bool(some & left) for some in found)

    while pending:
        number = next((n for n in pending if not waits(n, shortcuts=True)), None)
        if number is None:
            number = next((n for n in pending if not waits(n, shortcuts=False)), None)
        if number is None:
            number = next(n for n in pending if waits(n, shortcuts=False) < len(pending[n]))
        layers = pending.pop(number)
        ahead = frozenset(layer for layer in layers if behind.get(layer.layer.source, 0) & left)
        known = (x for x in layers if x.shortcut is not None and not behind.get(x.shortcut, 0) & left)
        turns.append(Turn(layers, ahead, frozenset(known) - ahead))
        left &= ~(1 << number)
    return turns


def _weights_behind(graph: ir.Graph, weights: Sequence[tuple[WeightedLayer, ...]]) -> dict[str | None, int]:
    """The weights that every value depends on: a bit for each."""
    own = {layer.node: 1 << number for number, layers in enumerate(weights) for layer in layers}
    found: dict[str | None, int] = {}
    everything = 0
    for node in graph:
        # What a body captures is not among the inputs.
        read = everything if any(bodies(node)) else own.get(node, 0)
        for value in node.inputs:
            read |= found.get(value.name, 0) if value is not None else 0
        everything |= read
        found |= {value.name: read for value in node.outputs}
    return found
