"""Atoms and families: what a user sees of channel groups.

An **atom** is a class of labels that can only be cut together: a channel with everything that makes and reads it. Atoms
with the same slots, that is with coordinates on the same axes of the same initializers, are a **family**: the unit for
which a width is chosen. Where rows must be cut evenly, a family falls into **cells** of equal size, and as many atoms are
kept of each; families that share such rows in unlike ways are one, so that they are cut in step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from irc.analysis.channels.bundles import Array, Labels
from irc.analysis.channels.constraints import Mode, Reason
from irc.analysis.channels.propagation import Propagation
from irc.analysis.channels.slots import Slot
from irc.analysis.channels.solution import Solution, solve
from irc.errors import UsageError
from irc.pass_base import node_id


@dataclasses.dataclass(frozen=True, eq=False)
class FamilyAxis:
    """An axis of an initializer that a family cuts.

    Attributes:
        slot: The labelled initializer.
        bundle: Which of its bundles.
        axis: Axis of the initializer that gets shorter.
        positions: Coordinates of the bundle per atom.
    """

    slot: Slot
    bundle: int
    axis: int
    positions: int


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Atoms that live on the same axes of the same initializers.

    Attributes:
        name: Name of the first value that is made with one of its initializers.
        node: The node that makes it.
        atoms: Classes of labels, ascending, `[n]`.
        cells: The cell of every atom, 0 to `cell_count - 1`, `[n]`.
        axes: The axes it cuts.
        statistics: Values that change for all survivors when an atom is cut; empty where removal is exact.
    """

    name: str
    node: ir.Node
    atoms: Labels
    cells: Labels
    axes: tuple[FamilyAxis, ...]
    statistics: tuple[Reason, ...]

    @property
    def cell_count(self) -> int:
        """Rows that are cut evenly."""
        return int(self.cells.max(initial=0)) + 1

    @property
    def width(self) -> int:
        """Atoms per cell: the number that is chosen."""
        return len(self.atoms) // self.cell_count

    def members(self, cell: int) -> Labels:
        """The atoms of one cell."""
        found: Labels = self.atoms[self.cells == cell]
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class PinnedAxis:
    """An axis of an initializer, all or part of which is never cut.

    Attributes:
        slot: The labelled initializer.
        bundle: Which of its bundles.
        pinned: How many of its coordinates are.
        size: How many it has.
        reason: The first reason.
    """

    slot: Slot
    bundle: int
    pinned: int
    size: int
    reason: Reason


class ChannelGroups:
    """What may be cut from a model, and what belongs together, in one mode.

    Attributes:
        propagation: Labels of all values.
        mode: "rows" or "columns".
        class_of: The class of every label.
        families: In the order of their first initializers.
        pinned: Axes that are not cut, with reasons.
    """

    def __init__(self, propagation: Propagation, mode: Mode) -> None:
        self.propagation, self.mode = propagation, mode
        self._solution: Solution = solve(propagation.constraints, mode)
        self.class_of: Labels = self._solution.class_of
        self._reasons: dict[int, Reason] = dict(self._solution.pinned)
        count = propagation.constraints.count
        self._open = np.zeros(count, dtype=bool)
        for slot in propagation.slots:
            for bundle in slot.bundles:
                self._open[self.class_of[bundle.labels]] = True
        if self._reasons:
            self._open[list(self._reasons)] = False
        self._positions: dict[ir.Node, int] | None = None
        self._by_slot = self._by_slots()
        self._by_row = self._by_rows()
        self.families: tuple[Family, ...] = self._families()
        self.pinned: tuple[PinnedAxis, ...] = self._pinned_axes()

    # -- questions ----------------------------------------------------------------------------------------------------

    @property
    def solution(self) -> Solution:
        """Classes and pairs as solved."""
        return self._solution

    def reason(self, label: int) -> Reason | None:
        """Why a label is never cut, or None."""
        return self._reasons.get(int(self.class_of[label]))

    def family(self, name: str) -> Family:
        """The family of a name.

        Raises:
            KeyError: If there is none.
        """
        for family in self.families:
            if family.name == name:
                return family
        raise KeyError(name)

    def survivors(self, kept: Mapping[Family, Labels]) -> Array:
        """Which labels survive: all but the atoms left out of the families given.

        Args:
            kept: Atoms that stay, by family; families that are not named keep all.

        Returns:
            A boolean per label.

        Raises:
            UsageError: If a family is none of these, or an atom none of its family's.
        """
        for family, atoms in kept.items():
            if family not in self.families:
                raise UsageError(f"family {family.name!r} is of another analysis or mode; choose among these families")
            given = np.asarray(atoms)
            if given.dtype.kind not in "iu" or not np.isin(given, family.atoms).all():
                raise UsageError(
                    f"atoms to keep of family {family.name!r} must be elements of its `atoms`, not positions"
                )
        alive = np.ones(self.propagation.constraints.count, dtype=bool)
        for family, atoms in kept.items():
            alive[family.atoms] = False
            alive[atoms] = True
        return np.asarray(alive[self.class_of])

    def uneven(self, alive: Array) -> bool:
        """Whether survivors leave rows of unlike length somewhere."""
        for even in self._solution.even:
            counts = alive[even.rows].sum(axis=1)
            if (counts != counts[0]).any():
                return True
        return False

    # -- construction -------------------------------------------------------------------------------------------------

    def _by_slots(self) -> Labels:
        """A hash per class of how often it occurs in which bundle of which slot."""
        signature = np.zeros(len(self.class_of), dtype=np.uint64)
        number = 0
        for slot in self.propagation.slots:
            for bundle in slot.bundles:
                number += 1
                classes, counts = np.unique(self.class_of[bundle.labels], return_counts=True)
                signature[classes] += _hash(counts, number)
        return signature.view(np.int64)

    def _by_rows(self) -> Labels:
        """A hash per class of the rows it lies in."""
        signature = np.zeros(len(self.class_of), dtype=np.uint64)
        for number, even in enumerate(self._solution.even):
            for index, row in enumerate(even.rows):
                classes, counts = np.unique(row, return_counts=True)
                signature[classes] += _hash(counts, (number << 20) + index + 1)
        return signature.view(np.int64)

    def _families(self) -> tuple[Family, ...]:
        shares = None
        while shares is None:
            shares = self._shared_out()
        chosen = [self._one_of_each_kind(atoms) for atoms in shares]
        places = self._places(np.concatenate([np.zeros(0, dtype=np.int64), *chosen]))
        found = []
        names: dict[str, int] = {}
        for atoms, representatives in zip(shares, chosen, strict=True):
            axes = self._axes(representatives, places)
            reasons = [self._solution.statistics[c] for c in atoms.tolist() if c in self._solution.statistics]
            node = self._first_maker(axes)
            name = node_id(node)
            names[name] = names.get(name, 0) + 1
            if names[name] > 1:
                name = f"{name}#{names[name]}"
            cells = _numbered(self._by_row[atoms])
            found.append(Family(name, node, atoms, cells, axes, tuple(dict.fromkeys(reasons))))
        return tuple(found)

    def _shared_out(self) -> list[Labels] | None:
        """The atoms of every family, ascending; None after something was pinned that cannot be cut evenly, or not at all."""
        groups = self._coupled()
        if groups is None:
            return None
        result = [part for group in groups for part in self._cells_of_one_size(group)]
        for atoms in result:
            sizes = np.bincount(_numbered(self._by_row[atoms]))
            if (sizes != sizes[0]).any():
                self._shut(atoms, Reason("unlike rows", "rows that must stay equally long hold it unequally"))
                return None
            if sizes[0] == 1:
                self._shut(
                    atoms, Reason("indivisible", "it is all there is of its kind, and can only be cut as a whole")
                )
                return None
        return sorted(result, key=lambda atoms: int(atoms[0]))

    def _shut(self, atoms: Labels, reason: Reason) -> None:
        for name in np.unique(atoms).tolist():
            self._reasons.setdefault(name, reason)
            self._open[name] = False

    def _coupled(self) -> list[Labels] | None:
        """Atoms with the same slots, those together that make up unlike rows of equal length; None after a pin."""
        signatures = self._by_slot
        leader: dict[int, int] = {}

        def root(name: int) -> int:
            while leader.get(name, name) != name:
                name = leader[name]
            return name

        for even in self._solution.even:
            free = self._open[even.rows]
            counts = free.sum(axis=1)
            if (counts != counts[0]).any():
                self._shut(even.rows[free], Reason("unlike rows", "rows that must stay equally long hold it unequally"))
                return None
            kinds = np.sort(np.where(free, signatures[even.rows], 0), axis=1)
            if (kinds != kinds[:1]).any():
                first, *others = sorted({root(name) for name in np.unique(signatures[even.rows[free]]).tolist()})
                leader.update({other: first for other in others})
        atoms = np.flatnonzero(self._open)
        kinds, inverse = np.unique(signatures[atoms], return_inverse=True)
        group_of = np.array([root(kind) for kind in kinds.tolist()], dtype=np.int64)[inverse]
        return [atoms[group_of == group] for group in dict.fromkeys(group_of.tolist())]

    def _cells_of_one_size(self, group: Labels) -> list[Labels]:
        """The group, or its parts by the rows they lie in at all, where its cells differ in size and every row has as much of each."""
        sizes = np.bincount(_numbered(self._by_row[group]))
        if (sizes == sizes[0]).all():
            return [group]
        membership = np.zeros(len(self.class_of), dtype=np.uint64)
        for number, even in enumerate(self._solution.even):
            membership[np.unique(even.rows)] += _hash(np.ones(1, dtype=np.int64), number)
        kinds = membership.view(np.int64)
        mine = np.zeros(len(self.class_of), dtype=bool)
        mine[group] = True
        for even in self._solution.even:
            rows = np.sort(np.where(mine[even.rows], kinds[even.rows], 0), axis=1)
            if (rows != rows[:1]).any():
                return [group]
        return [group[kinds[group] == kind] for kind in dict.fromkeys(kinds[group].tolist())]

    def _one_of_each_kind(self, atoms: Labels) -> Labels:
        """The first atom of every kind that a family is made of: one, unless families are cut in step."""
        _signatures, firsts = np.unique(self._by_slot[atoms], return_index=True)
        return atoms[np.sort(firsts)]

    def _places(self, atoms: Labels) -> dict[int, list[tuple[Slot, int, int]]]:
        """Slots and bundles in which some atoms lie, with how often, in the order of the slots."""
        wanted = np.zeros(len(self.class_of), dtype=bool)
        wanted[atoms] = True
        result: dict[int, list[tuple[Slot, int, int]]] = {atom: [] for atom in atoms.tolist()}
        for slot in self.propagation.slots:
            for index, bundle in enumerate(slot.bundles):
                classes = self.class_of[bundle.labels].ravel()
                hits, counts = np.unique(classes[wanted[classes]], return_counts=True)
                for atom, count in zip(hits.tolist(), counts.tolist(), strict=True):
                    result[atom].append((slot, index, count))
        return result

    def _axes(self, atoms: Labels, places: Mapping[int, list[tuple[Slot, int, int]]]) -> tuple[FamilyAxis, ...]:
        """The axes that some atoms cut."""
        found: dict[tuple[int, int], FamilyAxis] = {}
        for atom in atoms.tolist():
            for slot, index, count in places[atom]:
                bundle = slot.bundles[index]
                cut = self.propagation.constraints.cut_position(bundle.factors, self.mode)
                axis = slot.axis_of[bundle.axes[cut]]
                found.setdefault((id(slot), index), FamilyAxis(slot, index, axis, count))
        return tuple(found.values())

    def _first_maker(self, axes: Sequence[FamilyAxis]) -> ir.Node:
        """The first node of the graph that computes from the model's inputs with one of some initializers.

        Between them may stand what is computed from constants alone: DequantizeLinear, a transposition.
        """
        found: dict[ir.Node, None] = {}
        pending = [
            node
            for axis in axes
            for node in (
                [axis.slot.use[0]] if axis.slot.use is not None else [use.node for use in axis.slot.initializer.uses()]
            )
        ]
        seen = set(pending)
        while pending:
            node = pending.pop()
            found[node] = None
            if not any(self.propagation.varies(value) for value in node.outputs):
                for value in node.outputs:
                    further = [use.node for use in value.uses() if use.node not in seen]
                    seen.update(further)
                    pending += further
        varying = [node for node in found if any(self.propagation.varies(value) for value in node.outputs)]
        return min(varying or found, key=self._position)

    def _position(self, node: ir.Node) -> int:
        """Where a node stands in the graph; those of bodies last."""
        if self._positions is None:
            self._positions = {node: i for i, node in enumerate(self.propagation.model.graph)}
        return self._positions.get(node, len(self._positions))

    def _pinned_axes(self) -> tuple[PinnedAxis, ...]:
        found = []
        for slot in self.propagation.slots:
            for index, bundle in enumerate(slot.bundles):
                classes = self.class_of[bundle.labels].ravel()
                shut = classes[~self._open[classes]]
                if len(shut):
                    reason = self._reasons.get(int(shut[0]), Reason("unknown", "it belongs to no family"))
                    found.append(PinnedAxis(slot, index, len(shut), len(classes), reason))
        return tuple(found)


def _hash(counts: Labels, number: int) -> Array:
    """Well-mixed 64-bit numbers of (number, count), which add up to a hash of a multiset."""
    with np.errstate(over="ignore"):
        x = counts.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(number) * np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _numbered(values: Labels) -> Labels:
    """Numbers from 0 in the order in which values first occur."""
    _values, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]
