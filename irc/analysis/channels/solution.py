"""Constraints solved for one mode: which labels are cut together, which never, and which rows must be cut evenly."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from irc.analysis.channels.bundles import Bundle, Labels
from irc.analysis.channels.components import components
from irc.analysis.channels.constraints import Constraints, Mode, Reason


@dataclasses.dataclass(frozen=True, eq=False)
class Evenness:
    """Rows of a joint bundle of which equally many members must survive.

    Attributes:
        rows: Classes of the members, `[rows, members]`.
    """

    rows: Labels


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """The classes of labels in one mode.

    Attributes:
        mode: The mode.
        class_of: The class of every label, as the smallest label in it.
        pinned: The first reason why a class is never cut, by class.
        statistics: The first value that changes when members of the class are cut, by class.
        even: Rows to be cut evenly.
        pairs: Labels that are equal in this mode, and the group of each pair.
    """

    mode: Mode
    class_of: Labels
    pinned: dict[int, Reason]
    statistics: dict[int, Reason]
    even: list[Evenness]
    pairs: list[tuple[Labels, Labels, Labels]]


def solve(constraints: Constraints, mode: Mode) -> Solution:
    """Classes, pins and rows for a mode; see `irc.analysis.channels.constraints` for what the mode decides."""
    pairs = list(constraints.equalities)
    pins = list(constraints.pins)
    group = 1 << 40
    for subset in constraints.subsets:
        whole = subset.whole
        cut = constraints.cut_position(whole.factors, mode)
        if cut in subset.own:
            left, right, which = _spread(subset.labels, whole, subset.own, group)
            group += int(which.max(initial=group)) - group + 1
            pairs.append((left, right, which))
        else:
            pins.append((np.unique(subset.labels), subset.reason))
    boxes = []
    for box in constraints.boxes.values():
        cut = constraints.cut_position(box.factors, mode)
        order = constraints.order(box.factors)
        at = order.index(cut)
        lines = np.transpose(box.labels, order)
        lines = lines.reshape(int(np.prod(lines.shape[:at])), lines.shape[at], -1)
        if lines.shape[2] > 1:
            columns = np.broadcast_to(np.arange(lines.shape[2]), lines.shape) + group
            group += lines.shape[2]
            first = np.broadcast_to(lines[:, :, :1], lines.shape)
            pairs.append((first[:, :, 1:].ravel(), lines[:, :, 1:].ravel(), columns[:, :, 1:].ravel()))
        if lines.shape[0] > 1:
            boxes.append(_narrow(lines[:, :, 0]))
    for bundle, positions in constraints.flat:
        for one, other in _columns(constraints, mode, bundle, positions):
            places = np.arange(len(other), dtype=np.int64).reshape(-1, *[1] * (other.ndim - 1)) + group
            group += len(other)
            left, right, which = np.broadcast_arrays(one, other, places)
            pairs.append((left.ravel(), right.ravel(), which.ravel()))
    statistics = list(constraints.statistics)
    for bundle, positions, reason in constraints.statistics_along:
        if constraints.cut_position(bundle.factors, mode) in positions:
            statistics.append((np.unique(bundle.labels), reason))
    class_of = components(constraints.count, [(left, right) for left, right, _group in pairs])
    return Solution(mode, class_of, _first(class_of, pins), _first(class_of, statistics), _even(class_of, boxes), pairs)


def _columns(
    constraints: Constraints, mode: Mode, bundle: Bundle, positions: tuple[int, ...]
) -> Iterator[tuple[Labels, Labels]]:
    """Labels that are cut alike in all rows, since rows lie inside of what is cut: the first row and all others."""
    cut = constraints.cut_position(bundle.factors, mode)
    if cut not in positions:
        return
    order = constraints.order(bundle.factors)
    rows = set(order[: order.index(cut)])
    for position in positions[positions.index(cut) + 1 :]:
        if position in rows:
            lines = np.moveaxis(bundle.labels, position, 0)
            yield lines[:1], lines[1:]


def _spread(part: Labels, whole: Bundle, own: tuple[int, ...], group: int) -> tuple[Labels, Labels, Labels]:
    """Pairs of each part's label with all labels it stands for, one group per place within what it stands for."""
    labels = whole.labels
    others = [size if i not in own else 1 for i, size in enumerate(labels.shape)]
    places = np.arange(int(np.prod(others)), dtype=np.int64).reshape(others) + group
    left, right, which = np.broadcast_arrays(part, labels, places)
    return left.ravel(), right.ravel(), which.ravel()


def _narrow(rows: Labels) -> Labels:
    """Rows without the repeats that all of them have: channels merged with space repeat for every pixel."""
    changes = np.flatnonzero((rows[:, 1:] != rows[:, :-1]).any(axis=0)) + 1
    repeat = int(np.gcd.reduce(changes, initial=rows.shape[1]))
    return rows[:, ::repeat]


def _first(class_of: Labels, found: Iterable[tuple[Labels, Reason]]) -> dict[int, Reason]:
    result: dict[int, Reason] = {}
    for labels, reason in found:
        for name in np.unique(class_of[labels]).tolist():
            result.setdefault(name, reason)
    return result


def _even(class_of: Labels, boxes: Iterable[Labels]) -> list[Evenness]:
    """Rows that differ, each set of rows once."""
    seen: dict[tuple[int, bytes], Evenness] = {}
    for box in boxes:
        rows = class_of[box]
        if (np.sort(rows, axis=1) == np.sort(rows[:1], axis=1)).all():
            continue
        rows = np.unique(rows, axis=0)
        seen.setdefault((len(rows), rows.tobytes()), Evenness(rows))
    return list(seen.values())
