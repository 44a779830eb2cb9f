"""What survives of a model when candidates are cut to some widths, such that no value becomes empty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from irc.analysis.channels import ChannelGroups, Family, Propagation
from irc.analysis.channels.bundles import Bundle
from irc.channel_surgery import Cut
from irc.errors import ModelError
from irc.passes.pruning.allocation import Widths, cut_only
from irc.passes.pruning.candidate import Candidate

Array = np.ndarray[Any, Any]


def surviving(propagation: Propagation, kept: Iterable[tuple[ChannelGroups, Family, Array]]) -> Array:
    """Which labels survive when families keep some atoms; what is cut by rows and by columns is gone either way.

    Rows that stay lose as many members each, so what is left is a box whichever rows those are, and both modes are one cut.

    Args:
        propagation: The labels, the same for all modes.
        kept: Groups of a mode, a family of theirs, and the atoms of it that stay.
    """
    alive = np.ones(propagation.constraints.count, dtype=bool)
    by_mode: dict[ChannelGroups, dict[Family, Array]] = {}
    for groups, family, atoms in kept:
        by_mode.setdefault(groups, {})[family] = atoms
    for groups, mine in by_mode.items():
        alive &= groups.survivors(mine)
    return alive


def of_widths(propagation: Propagation, widths: Mapping[Candidate, int]) -> Array:
    """Which labels survive when candidates keep their best atoms."""
    return surviving(propagation, ((c.groups, c.family, c.kept(width)) for c, width in cut_only(widths).items()))


def legal(propagation: Propagation, widths: Widths) -> Widths:
    """Widths at which every value keeps a channel, near those given.

    A value fed by several families, or by part of one, may lose all it has: then the best atom of it is ranked first in its family;
    where a family has no room for that, it stays wider. Families whose survivors are no box stay whole.
    """
    widths = dict(widths)
    for _ in range(sum(candidate.width for candidate in widths) + 1):
        alive = of_widths(propagation, widths)
        empty = next((b for b in _bundles(propagation) if not alive[b.labels].any()), None)
        if empty is None:
            break
        _revive(empty, widths)
    try:
        Cut(propagation.model, propagation, of_widths(propagation, widths)).check()
    except ModelError:
        return _one_by_one(propagation, widths)
    return widths


def settled(propagation: Propagation, wanted: Callable[[], Widths]) -> Widths:
    """Legal widths: where a value would become empty, its best atom is ranked first, and widths are found anew."""
    for _ in range(8):
        asked = wanted()
        widths = legal(propagation, asked)
        if widths == asked:
            break
    return widths


def _revive(empty: Bundle, widths: Widths) -> None:
    """Ranks the best atom of a bundle first in its cell, or widens its family if it was ranked so before."""
    best: tuple[float, Candidate, int] | None = None
    for candidate, width in cut_only(widths).items():
        inside = np.isin(candidate.order, candidate.groups.class_of[empty.labels])
        if inside.any():
            _rows, ranks = np.nonzero(inside)
            rank = int(ranks.min())
            worth = float(candidate.worth[rank]) + (1e6 if width > 1 else 0.0)
            if best is None or worth > best[0]:
                best = worth, candidate, int(candidate.order[:, rank][inside[:, rank]][0])
    assert best is not None, "nothing that was cut is in a value that became empty"
    _worth, candidate, atom = best
    candidate.least = max(candidate.least, min(candidate.width, candidate.revived + 1))
    candidate.revived += 1
    candidate.promote(atom)
    widths[candidate] = max(widths[candidate], candidate.allowed(candidate.least))


def _one_by_one(propagation: Propagation, widths: Widths) -> Widths:
    """As many of the cuts as leave a box everywhere, in the order of the families."""
    taken: Widths = {}
    for candidate, width in cut_only(widths).items():
        trial = {**taken, candidate: width}
        try:
            Cut(propagation.model, propagation, of_widths(propagation, trial)).check()
        except ModelError:
            candidate.least = candidate.width
            continue
        taken = trial
    return {candidate: taken.get(candidate, candidate.width) for candidate in widths}


def _bundles(propagation: Propagation) -> Iterator[Bundle]:
    for _value, tensor in propagation.values():
        yield from tensor.bundles
    for slot in propagation.slots:
        yield from slot.bundles
    yield from propagation.constraints.boxes.values()
