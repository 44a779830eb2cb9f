"""What survivors cost: multiply-accumulates and parameters of a model as functions of what is cut from it, without cutting.

    costs = ChannelCosts(groups, sizes={"batch": 1})
    costs.macs(alive) / costs.macs()

The MACs of a product are proportional to the surviving share of every index it runs over; those of a grouped convolution run over its
groups once. The elements of an initializer are counted where all their labels survive. Both agree with what surgery leaves.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.assumed_sizes import Sizes, assume_sizes
from irc.analysis.channels.bundles import Labels
from irc.analysis.channels.families import ChannelGroups, Family
from irc.analysis.channels.product_terms import Term, terms_of
from irc.analysis.channels.slots import Slot
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.model_cost import ModelCost, cost_of
from irc.analysis.operation_macs import UnknownCost
from irc.analysis.weights import Weights, parameters
from irc.ir import constant

Alive = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class _Product:
    """MACs of a node and the terms of them that can lose any."""

    node: ir.Node
    macs: int
    terms: tuple[Term, ...]

    def lost(self, alive: Alive) -> int:
        """MACs that a cut saves."""
        return round(sum(term.macs - term.of(alive) for term in self.terms))


@dataclasses.dataclass(frozen=True)
class FamilyCost:
    """What a family is worth.

    Attributes:
        macs: MACs of the nodes that run over it.
        parameters: Parameters of the initializers it cuts.
        step_macs: MACs saved when one atom of every cell is cut.
        step_parameters: Parameters saved likewise.
        half_macs: MACs saved when half of the atoms of every cell are.
        half_parameters: Parameters saved likewise.
    """

    macs: int
    parameters: int
    step_macs: int
    step_parameters: int
    half_macs: int
    half_parameters: int


class ChannelCosts:
    """Costs of a model by survivors.

    Args:
        groups: What may be cut.
        also: The same propagation solved for other modes, where survivors may be cut in those too.
        sizes: Sizes of dynamic dimensions that MACs are for, by symbol or "input:axis"; the rest is assumed: 1 for batches,
            224 for image sides, 128 for the rest.

    Attributes:
        before: Costs of the model as it is.
        shapes: Sizes of all values that MACs are for.
        sizes: Sizes of dynamic dimensions, given and assumed.

    Raises:
        UsageError: If `sizes` names no dynamic dimension of the model.
    """

    def __init__(
        self, groups: ChannelGroups, *, also: Sequence[ChannelGroups] = (), sizes: Mapping[str, int] | None = None
    ) -> None:
        model = groups.propagation.model
        self.shapes = shapes = ConcreteShapes(model, assume_sizes(model, sizes))
        self._groups = groups
        self._count = groups.propagation.constraints.count
        self.sizes: Sizes = shapes.sizes
        self._open: Alive = np.zeros(self._count, dtype=bool)
        for one in (groups, *also):
            # The last atom of a cell stays, so that a family of one is not cut.
            atoms = [family.atoms for family in one.families if family.width > 1]
            self._open |= np.isin(one.class_of, np.concatenate([[-1], *atoms]))
        weights = Weights(model)
        self.before: ModelCost = cost_of(shapes, weights)
        self._stored = _stored(model)
        self._slots: dict[ir.Value, list[Slot]] = {}
        for slot in groups.propagation.slots:
            if any(self._open[bundle.labels].any() for bundle in slot.bundles):
                self._slots.setdefault(slot.initializer, []).append(slot)
        nodes = [node for node in groups.propagation.products if not weights.is_unpacking(node)]
        self._products = [product for node in nodes if (product := self._product(node, shapes)) is not None]

    def _product(self, node: ir.Node, shapes: ConcreteShapes) -> _Product | None:
        try:
            terms = terms_of(node, self._groups.propagation, shapes)
        except UnknownCost:
            return None
        cuttable = tuple(
            Term(term.macs, self._cuttable(term.groups), self._cuttable(term.shared))
            for term in terms
            if self._cuttable(term.groups)
        )
        macs = round(sum(term.macs for term in terms))
        return _Product(node, macs, cuttable) if cuttable and macs else None

    def _cuttable(self, groups: Sequence[Labels]) -> tuple[Labels, ...]:
        return tuple(labels for labels in groups if self._open[labels].any())

    # -- totals -------------------------------------------------------------------------------------------------------

    def macs(self, alive: Alive | None = None) -> int:
        """MACs of one inference of what survives; of the whole model by default.

        Args:
            alive: A boolean per label, as `ChannelGroups.survivors` gives it.
        """
        total = self.before.macs
        if alive is not None:
            total -= sum(product.lost(alive) for product in self._products)
        return total

    def node_macs(self, alive: Alive) -> dict[ir.Node, int]:
        """MACs of every node that can lose any."""
        return {product.node: product.macs - product.lost(alive) for product in self._products}

    def parameters(self, alive: Alive | None = None) -> int:
        """Parameters of what survives; see `irc.analysis.weights` for what counts as one."""
        lost = {} if alive is None else self._elements(alive)
        return sum(lost.get(value, parameters(value)) for value in self._stored if parameters(value))

    def bytes(self, alive: Alive | None = None) -> int:
        """Bytes of the constants of what survives, but for the few numbers that surgery adds."""
        lost = {} if alive is None else self._elements(alive)
        total = 0
        for value in self._stored:
            tensor = value.const_value
            assert tensor is not None
            total += -(-lost[value] * tensor.dtype.bitwidth // 8) if value in lost else tensor.nbytes
        return total

    # -- families -----------------------------------------------------------------------------------------------------

    def of(self, family: Family) -> FamilyCost:
        """What one family is worth, all others whole."""
        mine = np.zeros(self._count, dtype=bool)
        mine[family.atoms] = True
        mine = mine[self._groups.class_of]
        touched = [p for p in self._products if any(mine[labels].any() for term in p.terms for labels in term.groups)]
        step = self.survivors({family: max(family.width - 1, 1)})
        half = self.survivors({family: half_width(family)})
        values = [v for v in dict.fromkeys(axis.slot.initializer for axis in family.axes) if parameters(v)]
        counted = [value for value in values if value in self._slots]
        whole = sum(parameters(value) for value in counted)
        return FamilyCost(
            sum(product.macs for product in touched),
            sum(parameters(value) for value in values),
            sum(product.lost(step) for product in touched),
            whole - sum(self._elements(step, counted).values()),
            sum(product.lost(half) for product in touched),
            whole - sum(self._elements(half, counted).values()),
        )

    def survivors(self, widths: Mapping[Family, int]) -> Alive:
        """Which labels survive when of some families the first atoms of every cell do: whichever do, the costs are the same."""
        return self._groups.survivors(
            {
                family: np.concatenate([family.members(cell)[:width] for cell in range(family.cell_count)])
                for family, width in widths.items()
            }
        )

    @property
    def cuttable_macs(self) -> int:
        """MACs of nodes that run over anything that may be cut."""
        return sum(product.macs for product in self._products)

    @property
    def cuttable_parameters(self) -> int:
        """Parameters of initializers of which anything may be cut."""
        return sum(parameters(value) for value in self._slots)

    # -- counting -----------------------------------------------------------------------------------------------------

    def _elements(self, alive: Alive, values: Sequence[ir.Value] | None = None) -> dict[ir.Value, int]:
        """Surviving elements of initializers that may lose any."""
        found: dict[ir.Value, int] = {}
        for value in self._slots if values is None else values:
            slots = self._slots[value]
            if slots[0].use is None:
                found[value] = sum(_surviving(slot, alive) for slot in slots)
            else:
                found[value] = _copies(value, slots, alive)
        return found


def half_width(family: Family) -> int:
    """Atoms per cell that are left when half of them are cut; of an odd number the larger half."""
    return family.width - family.width // 2


def _stored(model: ir.Model) -> list[ir.Value]:
    return [
        value
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None
    ]


def _surviving(slot: Slot, alive: Alive) -> int:
    """Elements of a slot all of whose labels survive."""
    total, covered = 1, set[int]()
    crossed: list[Any] = []
    for bundle in slot.bundles:
        mask = alive[bundle.labels]
        if any(set(bundle.axes) & set(other.axes) for other in slot.bundles if other is not bundle):
            crossed += [mask.astype(np.int64), list(bundle.axes)]
        else:
            total *= int(mask.sum())
        covered.update(bundle.axes)
    if crossed:  # bundles that share an axis, as the inputs and outputs of a convolution's groups do
        total *= int(np.einsum(*crossed, []))
    return total * math.prod(size for axis, size in enumerate(slot.view) if axis not in covered)


def _copies(value: ir.Value, slots: Sequence[Slot], alive: Alive) -> int:
    """Elements of a small initializer and of the copies that its uses need once they lose different coordinates."""
    array = constant(value)
    assert array is not None
    contents: dict[bytes, int] = {}
    cut = 0
    for slot in slots:
        left = array.reshape(slot.view)
        for bundle in slot.bundles:
            left = np.compress(alive[bundle.labels], left, axis=bundle.axes[0])
        if left.size < array.size:
            contents[left.tobytes()] = left.size
            cut += 1
    whole = array.size if cut < len(list(value.uses())) or value.is_graph_output() else 0
    return int(whole) + sum(contents.values())
