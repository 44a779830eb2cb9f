"""Whether everything between what makes a family's channels and what reads them is linear in the channel.

Then a change of basis R is free: what makes the channels is multiplied by R, what reads them by R^-1, and no output changes.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Bundle, ChannelGroups, Family, Slot
from irc.analysis.channels.bundles import Labels
from irc.passes.pruning.rotation.channel_directions import Directions, Side
from irc.passes.pruning.rotation.linear_operators import NotLinear

Lines = tuple[tuple[int, int, Labels], ...]
"""Unit, direction (+1 turns by R, -1 by R^-T) and places `[n, k]`: k lines of its n channels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Turn:
    """How a change of basis goes through a model.

    Channels that are cut together need not turn together: a family falls into **units** that never meet, which have an R each. A cell
    is one at least; queries with their keys, and values, are two where a packed product makes them all.

    Attributes:
        family: Whose channels turn.
        units: How many there are.
        place_of: For every label the place of its channel in its cell, -1 for labels of others.
        unit_of: For every label its unit.
        direction_of: For every label +1 where it turns by R, -1 by R^-T; 0 for labels of others.
        meetings: Where channels are summed over: the side that turns by R, and the one that turns by R^-T.
        slots: Labelled initializers with channels, and their bundles that hold them.
    """

    family: Family
    units: int
    place_of: Labels
    unit_of: Labels
    direction_of: Labels
    meetings: tuple[tuple[Side, Side], ...]
    slots: tuple[tuple[Slot, tuple[Bundle, ...]], ...]

    def lines(self, labels: Labels) -> Lines:
        """The lines of channels among the coordinates of a bundle, numbered in C order.

        Raises:
            NotLinear: If channels are missing, or lie in no regular order.
        """
        flat, width = labels.ravel(), self.family.width
        mine = np.flatnonzero(self.place_of[flat] >= 0)
        keys = self.unit_of[flat[mine]] * 4 + self.direction_of[flat[mine]] + 1
        found = []
        for key in np.unique(keys).tolist():
            places = mine[keys == key]
            of_channel = self.place_of[flat[places]]
            counts = np.bincount(of_channel, minlength=width)
            if (counts != counts[0]).any():
                raise NotLinear(self.family.node, "holds a part of the channels only")
            table = places[np.lexsort((places, of_channel))].reshape(width, -1)
            steps = table - table[:, :1]
            if (steps != steps[:1]).any():
                raise NotLinear(self.family.node, "holds the channels in no regular order")
            found.append((key // 4, key % 4 - 1, table))
        return tuple(found)


class Linearity:
    """The families of solved groups whose basis is free.

    Args:
        groups: Solved groups.
    """

    def __init__(self, groups: ChannelGroups) -> None:
        self.groups, self._propagation = groups, groups.propagation

    @functools.cached_property
    def _touching(self) -> dict[int, list[ir.Node]]:
        """Nodes that read or make channels, by number of the family."""
        family_of = np.full(len(self.groups.class_of), -1, dtype=np.int64)
        for index, family in enumerate(self.groups.families):
            family_of[family.atoms] = index
        family_of = family_of[self.groups.class_of]
        found: dict[int, list[ir.Node]] = {}
        for node in self._propagation.model.graph:
            tensors = [self._propagation.recorded(node, i) for i, v in enumerate(node.inputs) if v is not None]
            tensors += [self._propagation.known(value) for value in node.outputs]
            numbers = {int(n) for t in tensors for b in t.bundles for n in np.unique(family_of[b.labels])}
            for number in sorted(numbers - {-1}):
                found.setdefault(number, []).append(node)
        return found

    def turn(self, family: Family) -> Turn:
        """How a change of basis of one of the families goes through the model.

        Raises:
            NotLinear: If there is none, naming what is in the way.
        """
        if family.statistics:
            raise NotLinear(family.node, f"it is not linear in the channel: {family.statistics[0].text}")
        place_of, cell_of = _places(self.groups, family)
        directions = Directions(self._propagation, family, place_of, cell_of)
        for node in self._touching.get(self.groups.families.index(family), ()):
            directions.add(node)
        slots = tuple(self._slots(family, place_of))
        turn = Turn(family, family.cell_count, place_of, cell_of, directions.found(), (), slots)
        together = []
        for value, bundle in directions.bundles.values():
            try:
                for _unit, _way, table in turn.lines(bundle.labels):
                    lines = bundle.labels.ravel()[table]
                    together.append((np.broadcast_to(lines[:1], lines.shape).ravel(), lines.ravel()))
            except NotLinear as error:
                raise NotLinear(value.producer() or family.node, f"{value.name!r} {error.reason}") from None
        units, unit_of = _units(directions.parts(together), place_of, cell_of)
        turn = dataclasses.replace(turn, units=units, unit_of=unit_of)
        meetings = tuple(_ordered(turn, one, other) for one, other in directions.meetings)
        if not meetings:
            raise NotLinear(family.node, "nothing sums over its channels")
        return dataclasses.replace(turn, meetings=meetings)

    def _slots(self, family: Family, place_of: Labels) -> list[tuple[Slot, tuple[Bundle, ...]]]:
        found = []
        for slot in self._propagation.slots:
            bundles = tuple(bundle for bundle in slot.bundles if (place_of[bundle.labels] >= 0).any())
            axes = [axis for bundle in slot.bundles for axis in bundle.axes]
            if any(axes.count(axis) > 1 for bundle in bundles for axis in bundle.axes):
                raise NotLinear(family.node, f"channels of {slot.name!r} belong to groups of them")
            if bundles:
                found.append((slot, bundles))
        return found


def _places(groups: ChannelGroups, family: Family) -> tuple[Labels, Labels]:
    """For every label the place of its channel in its cell, and its cell."""
    place = np.full(len(groups.class_of), -1, dtype=np.int64)
    cell = np.zeros(len(groups.class_of), dtype=np.int64)
    for number in range(family.cell_count):
        members = family.members(number)
        place[members], cell[members] = np.arange(len(members)), number
    return place[groups.class_of], cell[groups.class_of]


def _units(part_of: Labels, place_of: Labels, cell_of: Labels) -> tuple[int, Labels]:
    """Parts within cells, numbered from 0."""
    mine = np.flatnonzero(place_of >= 0)
    _found, numbers = np.unique(np.stack([cell_of[mine], part_of[mine]]), axis=1, return_inverse=True)
    unit_of = np.zeros(len(place_of), dtype=np.int64)
    unit_of[mine] = numbers.ravel()
    return int(numbers.max()) + 1, unit_of


def _ordered(turn: Turn, one: Side, other: Side) -> tuple[Side, Side]:
    """Two sides, the one that turns by R first."""
    ways = np.unique(turn.direction_of[one.bundle.labels])
    ways = ways[ways != 0]
    if len(ways) != 1:
        raise NotLinear(one.node, "it sums over channels that turn both ways")
    return (one, other) if ways[0] > 0 else (other, one)
