"""What the families of a model are: which operators make, read and pass them, and the word an engineer has for such a family.

roles = Roles(groups)
roles.operators[3].makes
roles.of(family).kind                    # "residual stream", "heads", "neurons", ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from irc.analysis.channels.bundles import Bundle
from irc.analysis.channels.families import ChannelGroups, Family, PinnedAxis
from irc.analysis.channels.product_terms import RECURRENT
from irc.analysis.channels.slots import Slot
from irc.analysis.operation_macs import UnknownCost, formula_of
from irc.analysis.weights import Weights

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv"})

KERNEL = "kernel axis"
"""Reason of axes that nobody expects to be cut."""


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """Part of an operator's weight that no family cuts.

    Attributes:
        side: "in" for what it reads, "out" for what it makes.
        axis: The axis and the reason.
    """

    side: str
    axis: PinnedAxis


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """An operator that multiplies, or looks up rows of a weight.

    Attributes:
        node: The node.
        weights: Labelled initializers of more than one axis that it reads, directly or through nodes that unpack them.
        makes: Families its result has and what it reads has not, or has on another axis of the weight.
        reads: Families it sums over.
        passes: Families it works on one by one: a depthwise convolution's channels, the heads of an attention product.
        pinned: What is left.
    """

    node: ir.Node
    weights: tuple[Slot, ...]
    makes: tuple[Family, ...]
    reads: tuple[Family, ...]
    passes: tuple[Family, ...]
    pinned: tuple[Side, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Role:
    """What a family is.

    Attributes:
        kind: "channels", "neurons", "gated neurons", "hidden units", "heads", "query/key dimensions", "value dimensions",
            "convolution groups", "residual stream" or "features".
        features: Coordinates that one atom stands for where it stands for the fewest: 64 per head.
        makers: Operators that make it, in graph order.
        readers: Operators that sum over it.
        passers: Operators that work on its atoms one by one.
    """

    kind: str
    features: int
    makers: tuple[Operator, ...]
    readers: tuple[Operator, ...]
    passers: tuple[Operator, ...]


class Roles:
    """Operators and families of a model, each in terms of the other.

    Attributes:
        operators: In graph order.
    """

    def __init__(self, groups: ChannelGroups) -> None:
        self._groups, self._propagation = groups, groups.propagation
        names = np.full(len(groups.class_of), -1, dtype=np.int64)
        for index, family in enumerate(groups.families):
            names[family.atoms] = index
        self._family_of = names[groups.class_of]
        self._weights = Weights(groups.propagation.model)
        self._slots: dict[ir.Value, list[Slot]] = {}
        for slot in groups.propagation.slots:
            self._slots.setdefault(slot.initializer, []).append(slot)
        self._pins = {(pin.slot, pin.bundle): pin for pin in groups.pinned}
        self.operators = tuple(self._operator(node) for node in groups.propagation.model.graph if self._counts(node))
        self._added = self._joined({"Add", "Sum"})
        self._multiplied = self._joined({"Mul"})

    def of(self, family: Family) -> Role:
        """What a family is."""
        makers = tuple(operator for operator in self.operators if family in operator.makes)
        readers = tuple(operator for operator in self.operators if family in operator.reads)
        passers = tuple(operator for operator in self.operators if family in operator.passes)
        features = _features(family, (*makers, *readers, *passers))
        return Role(self._kind(family, features, makers, readers, passers), features, makers, readers, passers)

    # -- operators ----------------------------------------------------------------------------------------------------

    def _counts(self, node: ir.Node) -> bool:
        """Whether a node multiplies, or looks up rows of a weight, at inference."""
        if self._weights.is_unpacking(node):
            return False
        if node in self._propagation.products:
            return True
        if node.op_type == "Gather" and node.inputs[0] is not None:
            return any(len(slot.view) > 1 for slot in self._weights_of(node))
        try:
            return formula_of(node) is not None
        except UnknownCost:
            return False

    def _weights_of(self, node: ir.Node) -> tuple[Slot, ...]:
        slots = [slot for value in self._weights.of(node) for slot in self._slots.get(value, ())]
        return tuple(slot for slot in slots if slot.use is None and len(slot.view) > 1)

    def _operator(self, node: ir.Node) -> Operator:
        weights = self._weights_of(node)
        varying = [i for i, v in enumerate(node.inputs) if v is not None and self._propagation.varies(v)]
        read = self._in(bundle for i in varying for bundle in self._propagation.recorded(node, i).bundles)
        made_bundles = [bundle for value in node.outputs for bundle in self._propagation.known(value).bundles]
        made = self._in(made_bundles)
        twice = [index for slot in weights for index in self._on_two_axes(slot)]
        own = self._in(bundle for slot in weights for bundle in slot.bundles)
        passes = [index for index in made if index in read and index not in twice]
        makes = [index for index in made if index not in passes]
        reads = [index for index in dict.fromkeys((*read, *own)) if index not in made or index in twice]
        return Operator(
            node,
            weights,
            self._families(makes),
            self._families(reads),
            self._families(passes),
            tuple(self._pinned(weights, made_bundles)),
        )

    def _on_two_axes(self, slot: Slot) -> list[int]:
        """Families that a weight has on two axes of its own: it reads the very stream it writes."""
        if not slot.is_plain:
            return []
        found = [index for bundle in slot.bundles for index in self._in([bundle])]
        return [index for index in dict.fromkeys(found) if found.count(index) > 1]

    def _in(self, bundles: Iterable[Bundle]) -> list[int]:
        """Indices of the families of some bundles, in order."""
        found = [int(index) for bundle in bundles for index in np.unique(self._family_of[bundle.labels])]
        return [index for index in dict.fromkeys(found) if index >= 0]

    def _families(self, indices: Sequence[int]) -> tuple[Family, ...]:
        return tuple(self._groups.families[index] for index in sorted(indices))

    def _pinned(self, weights: Sequence[Slot], made: Sequence[Bundle]) -> Iterable[Side]:
        class_of = self._groups.class_of
        results = np.unique(np.concatenate([class_of[b.labels].ravel() for b in made])) if made else np.empty(0)
        for slot in weights:
            for index, bundle in enumerate(slot.bundles):
                pin = self._pins.get((slot, index))
                if pin is not None and pin.reason.kind != KERNEL:
                    out = bool(np.isin(class_of[bundle.labels], results).any())
                    yield Side("out" if out else "in", pin)

    # -- families -----------------------------------------------------------------------------------------------------

    def _joined(self, types: Iterable[str]) -> set[int]:
        """Families that two varying operands of some node of these types have."""
        found: set[int] = set()
        for node in self._propagation.model.graph:
            if node.op_type in types:
                seen = [
                    set(self._in(self._propagation.recorded(node, i).bundles))
                    for i, value in enumerate(node.inputs)
                    if value is not None and self._propagation.varies(value)
                ]
                if len(seen) > 1:
                    found |= set.intersection(*seen)
        return found

    def _kind(
        self,
        family: Family,
        features: int,
        makers: Sequence[Operator],
        readers: Sequence[Operator],
        passers: Sequence[Operator],
    ) -> str:
        index = self._groups.families.index(family)
        touching = (*makers, *readers, *passers)
        attention = [o for o in (*readers, *passers) if not self._weights.of(o.node) and o.node.op_type != "Gather"]
        if any(o.node.op_type in RECURRENT and (o in makers or o in passers) for o in touching):
            return "hidden units"
        if attention:
            if self._groups.mode == "rows" and features > 1:
                return "heads"
            return "query/key dimensions" if any(o in readers for o in attention) else "value dimensions"
        if index in self._added and len(makers) > 1:
            return "residual stream"
        grouped = any(
            o.node.op_type in CONVOLUTIONS
            and o.node.attributes.get_int("group", 1) > 1
            and o.weights[0].view[1:2] != (1,)
            for o in touching
            if o.weights
        )
        if grouped and self._groups.mode == "rows" and features > 1:
            return "convolution groups"
        if any(o.node.op_type in CONVOLUTIONS for o in touching):
            return "channels"
        if makers and readers:
            return "gated neurons" if index in self._multiplied and len(makers) > 1 else "neurons"
        return "features"


def _features(family: Family, operators: Sequence[Operator]) -> int:
    """Coordinates per atom on the weights of operators that multiply; a table of one number per head says nothing."""
    multiplied = {slot for o in operators if o.node.op_type != "Gather" for slot in o.weights}
    positions = [axis.positions for axis in family.axes if axis.slot in multiplied]
    return min(positions or [axis.positions for axis in family.axes])
