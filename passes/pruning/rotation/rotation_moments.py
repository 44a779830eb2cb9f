"""Second moments of the two sides that meet where a family's channels are summed over: activations over the data, weights as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Bundle, Propagation
from irc.calibration.statistics import Gram, Moments, Observable, Observations
from irc.ir import constant
from irc.passes.pruning.rotation.channel_directions import Side
from irc.passes.pruning.rotation.channel_linearity import Turn
from irc.passes.pruning.rotation.linear_operators import MOVES, NotLinear

Array = np.ndarray[Any, Any]
_PASSED = (MOVES | {"Expand", "Mul", "Div"}) - {"Pad", "AveragePool", "GlobalAveragePool"}
"""Operators that what they read can be observed in place of."""
_STEPS_TO_SOFTMAX = 6


@dataclasses.dataclass(frozen=True)
class Source:
    """Where one side's channels can be observed, or the weight that holds them.

    Attributes:
        value: An activation with the channels on one axis, or an initializer.
        bundle: Their labels on it.
        side: The operand that it stands for.
        centred: Whether its mean does not matter, since a bias or a softmax takes over what it adds.
    """

    value: ir.Value
    bundle: Bundle
    side: Side
    centred: bool

    def units(self, turn: Turn) -> set[int]:
        """Units of the operand; what makes it may hold others beside them."""
        labels = self.side.bundle.labels
        return set(turn.unit_of[labels[turn.place_of[labels] >= 0]].tolist())

    @property
    def weight(self) -> Array | None:
        """The elements, of an initializer."""
        return constant(self.value)

    @property
    def observables(self) -> tuple[Observable, ...]:
        """What has to be known of an activation."""
        if self.weight is not None:
            return ()
        name, axis = self.value.name or "", self.bundle.axes[0]
        return Observable(name, "gram", axis), Observable(name, "moments", axis)


@dataclasses.dataclass(frozen=True)
class Meeting:
    """Two sides: that which turns by R, and that which turns by R^-T."""

    forward: Source
    backward: Source

    @property
    def observables(self) -> tuple[Observable, ...]:
        """What has to be known of both."""
        return self.forward.observables + self.backward.observables

    @property
    def is_weighted(self) -> bool:
        """Whether a weight reads the channels, so that what stays can make up for what is cut."""
        return self.forward.weight is not None or self.backward.weight is not None


def meetings_of(propagation: Propagation, turn: Turn) -> tuple[Meeting, ...]:
    """Where both sides of every sum over channels can be observed.

    Raises:
        NotLinear: If the channels of a side lie on several axes wherever they are.
    """
    found = []
    for sides in turn.meetings:
        values = [_source(propagation, turn, side) for side in sides]
        weighted = any(constant(value) is not None for value, _bundle in values)
        forward, backward = (
            Source(value, bundle, side, weighted or (side.index == 1 and _goes_to_softmax(propagation, side.node)))
            for side, (value, bundle) in zip(sides, values, strict=True)
        )
        found.append(Meeting(forward, backward))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class UnitMoments:
    """What decides about the basis of one unit of a family.

    Attributes:
        forward: A of what turns by R, `[n, n]`.
        backward: B of what turns by R^-T, `[n, n]`.
        repaired: Whether weights alone read the channels, so that what stays can make up for what is cut.
    """

    forward: Array
    backward: Array
    repaired: bool


def moments_of(turn: Turn, meetings: Sequence[Meeting], observations: Observations) -> list[UnitMoments]:
    """Second moments by unit, of all meetings together.

    Every meeting counts alike, by the share of the energy of its own result.
    """
    size = (turn.units, turn.family.width, turn.family.width)
    forward, backward, repaired = np.zeros(size), np.zeros(size), np.ones(turn.units, dtype=bool)
    for meeting in meetings:
        one = _moments(turn, meeting.forward, 1, observations)
        other = _moments(turn, meeting.backward, -1, observations)
        repaired[sorted(meeting.forward.units(turn))] &= meeting.is_weighted
        energy, scale = float(np.einsum("uij,uji->", one, other)), float(np.einsum("uii->", one))
        if energy > 0 and scale > 0:
            forward += one / scale
            backward += other * (scale / energy)
    return [UnitMoments(*each) for each in zip(forward, backward, repaired.tolist(), strict=True)]


def _moments(turn: Turn, source: Source, direction: int, observations: Observations) -> Array:
    """`[units, n, n]`: of the vectors of a unit's channels."""
    weight, bundle = source.weight, source.bundle
    if weight is None:
        whole = _observed(source, observations)
    else:
        rows = np.moveaxis(weight.astype(np.float64), bundle.axes, range(len(bundle.axes)))
        rows = rows.reshape(bundle.labels.size, -1)
    result = np.zeros((turn.units, turn.family.width, turn.family.width))
    units = source.units(turn)
    for unit, way, table in turn.lines(bundle.labels):
        for line in table.T if way == direction and unit in units else ():
            result[unit] += whole[np.ix_(line, line)] if weight is None else rows[line] @ rows[line].T
    return result


def _observed(source: Source, observations: Observations) -> Array:
    gram, first = (observations[observable] for observable in source.observables)
    assert isinstance(gram, Gram) and isinstance(first, Moments)
    whole: Array = np.asarray(gram.total, np.float64) / max(gram.count, 1)
    return whole - np.outer(first.mean, first.mean) if source.centred else whole


def _source(propagation: Propagation, turn: Turn, side: Side) -> tuple[ir.Value, Bundle]:
    """The nearest value that holds the channels of a side on one axis, or the weight they come from."""
    wanted = _channels(turn, side.bundle)
    value, bundle = side.value, side.bundle
    while True:
        varies = propagation.varies(value)
        if (varies and len(bundle.axes) == 1) or (not varies and constant(value) is not None):
            return value, bundle
        node = value.producer()
        above = next(_above(propagation, turn, node, wanted), None) if node is not None else None
        if above is None:
            name = side.value.name
            raise NotLinear(side.node, f"the channels of {name!r} lie on several axes wherever they could be observed")
        value, bundle = above


def _above(propagation: Propagation, turn: Turn, node: ir.Node, wanted: Array) -> Iterator[tuple[ir.Value, Bundle]]:
    """What a node that only moves, copies or scales its input reads, with the same channels."""
    if node.op_type not in _PASSED:
        return
    for index, value in enumerate(node.inputs):
        for bundle in propagation.recorded(node, index).bundles if value is not None else ():
            if value is not None and np.isin(wanted, _channels(turn, bundle)).all():
                yield value, bundle


def _channels(turn: Turn, bundle: Bundle) -> Array:
    """The channels of a bundle, each with its unit and direction, as numbers."""
    labels = bundle.labels[turn.place_of[bundle.labels] >= 0]
    numbers = turn.unit_of[labels] * turn.family.width + turn.place_of[labels]
    return np.unique(numbers * 2 + (turn.direction_of[labels] > 0))


def _goes_to_softmax(propagation: Propagation, node: ir.Node) -> bool:
    """Whether the result is only scaled or masked, and then normalised along its last axis, so that each of its rows may shift."""
    if node.op_type == "Attention":
        return True
    value = node.outputs[0]
    for _ in range(_STEPS_TO_SOFTMAX):
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return False
        reader, index = uses[0].node, uses[0].idx
        if reader.op_type == "Softmax":
            return reader.attributes.get_int("axis", -1) in (-1, len(propagation.dims(value) or ()) - 1)
        if reader.op_type not in ("Add", "Mul", "Div") or (reader.op_type == "Div" and index):
            return False
        other = reader.inputs[1 - index]
        if reader.op_type != "Add" and (other is None or any(size > 1 for size in propagation.dims(other) or (2,))):
            return False
        value = reader.outputs[0]
    return False
