"""In which order channels go when each that has gone is represented by the best of those that stay.

    loss(kept) = sum over c gone of min over k kept of lost[c, k]

One channel after another goes, the one whose going adds least to that; those that it stood for move on to the next best. Losses of
channels with the same representative are added as if they were independent.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class MergePath:
    """An order of going.

    Attributes:
        order: `[n]`: channels from best, which stays longest, to worst.
        added: `[n]`: what the loss grows by when each of them goes; infinite for those that cannot go.
    """

    order: Array
    added: Array

    @property
    def least(self) -> int:
        """How many have to stay."""
        return max(1, int(np.isinf(self.added).sum()))


def merge_path(lost: Array) -> MergePath:
    """Finds the order greedily.

    Args:
        lost: `[n, n]`: what is lost when the channel of a row is represented by that of a column; infinite where it cannot be.
    """
    count = len(lost)
    cost = np.array(lost, dtype=np.float64)
    np.fill_diagonal(cost, np.inf)
    kept = np.ones(count, dtype=bool)
    # The best and the second best representative of every channel among those that stay, itself left out.
    first, second = _two_best(cost)
    rows = np.arange(count)
    gone: list[int] = []
    added: list[float] = []
    for _ in range(count - 1):
        moved = np.zeros(count)
        others = np.flatnonzero(~kept)
        with np.errstate(invalid="ignore"):
            np.add.at(moved, first[others], cost[others, second[others]] - cost[others, first[others]])
        price = np.where(kept, cost[rows, first] + moved, np.inf)
        worst = int(np.argmin(price))
        if not np.isfinite(price[worst]):
            break
        gone.append(worst)
        added.append(float(price[worst]))
        kept[worst] = False
        cost[:, worst] = np.inf
        stale = np.flatnonzero((first == worst) | (second == worst))
        first[stale], second[stale] = _two_best(cost[stale])
    stay = np.flatnonzero(kept)
    order = np.concatenate([stay, np.array(gone[::-1], dtype=np.int64)])
    return MergePath(order, np.concatenate([np.full(len(stay), np.inf), added[::-1]]))


def representatives(lost: Array, kept: Array) -> tuple[Array, Array]:
    """The channels that have gone, ascending, and which of those that stay represents each; -1 where none can.

    Args:
        lost: As for `merge_path`.
        kept: `[n]`: which stay.
    """
    gone, stay = np.flatnonzero(~kept), np.flatnonzero(kept)
    table = lost[np.ix_(gone, stay)]
    best = np.argmin(table, axis=1) if len(gone) else np.zeros(0, dtype=np.int64)
    finite = np.isfinite(table[np.arange(len(gone)), best])
    return gone, np.where(finite, stay[best], -1)


def _two_best(cost: Array) -> tuple[Array, Array]:
    """The columns of the smallest and the second smallest number of every row."""
    if cost.shape[1] < 2:
        none = np.zeros(len(cost), dtype=np.int64)
        return none, none
    rows = np.arange(len(cost))
    first = np.argmin(cost, axis=1)
    cost = cost.copy()
    cost[rows, first] = np.inf
    second = np.argmin(cost, axis=1)
    # Where all others are infinite, argmin may give the first again.
    second = np.where(np.isinf(cost[rows, second]), (first + 1) % cost.shape[1], second)
    return first, second
