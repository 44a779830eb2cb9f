"""The share of atoms that has to go so that what is left meets a budget of MACs or parameters."""

from __future__ import annotations

from collections.abc import Callable

from irc.passes.pruning.allocation import Widths

RESOLUTION = 1 << 12
"""Shares are searched in steps of one part in so many."""


def meeting(
    allocate: Callable[[float], Widths], cost: Callable[[Widths], float], limit: float, *, largest: float = 1.0
) -> Widths | None:
    """The widths of the smallest common share whose cost is within a limit; None if that of no share is.

    Rounding makes many families narrower at one share, so that more goes than has to: of those that the last step cut,
    families get their channels back as long as the limit holds, the one that loses most first.

    Args:
        allocate: Widths by share; they shrink as the share grows.
        cost: Of some widths.
        limit: Largest cost.
        largest: Largest share to try.
    """
    if cost(allocate(0.0)) <= limit:
        return allocate(0.0)
    low, high = 0, RESOLUTION
    if cost(allocate(largest)) > limit:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(allocate(largest * middle / RESOLUTION)) <= limit else (middle, high)
    before, widths = allocate(largest * low / RESOLUTION), dict(allocate(largest * high / RESOLUTION))
    changed = [candidate for candidate in widths if widths[candidate] != before[candidate]]
    changed.sort(key=lambda c: c.loss(before[c]) - c.loss(widths[c]))  # negative: the largest loss first
    for candidate in changed:
        trial = {**widths, candidate: before[candidate]}
        if cost(trial) <= limit:
            widths = trial
    return widths
