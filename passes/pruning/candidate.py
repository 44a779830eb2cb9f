"""A family that is to be cut, with what a search needs of it: its atoms from best to worst, and the widths it may have."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from irc.analysis.channels import ChannelGroups, Family

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Atoms of a family from best to worst.

    Attributes:
        order: `[cells, width]`, atoms.
        worth: `[width]`: what the best, the second best, ... of all cells together are worth, in units of their mean.
    """

    order: Array
    worth: Array

    @classmethod
    def of(cls, order: Array, worth: Array) -> Ranking:
        """A ranking by worth in any unit; where that is not finite, it is as large as any."""
        finite = worth[np.isfinite(worth)]
        mean = float(finite.mean()) if len(finite) else 0.0
        largest = float(finite.max()) if len(finite) else 1.0
        worth = np.maximum(np.where(np.isfinite(worth), worth, largest), 0.0)
        return cls(order, worth / mean if mean > 0 else np.ones_like(worth))

    @classmethod
    def by_scores(cls, family: Family, scores: Array, *, seed: int) -> Ranking:
        """A ranking by the score of every atom.

        Args:
            family: The family.
            scores: One per atom.
            seed: Decides ties.
        """
        tie = np.random.default_rng(seed).permutation(len(scores))
        orders, sorted_scores = [], []
        for cell in range(family.cell_count):
            mine = np.flatnonzero(family.cells == cell)
            best_first = mine[np.lexsort((tie[mine], -scores[mine]))]
            orders.append(family.atoms[best_first])
            sorted_scores.append(scores[best_first])
        return cls.of(np.array(orders), np.mean(sorted_scores, axis=0))


@dataclasses.dataclass(eq=False)
class Candidate:
    """A family and the widths it may be cut to.

    Attributes:
        id: Of its site.
        groups: The groups it belongs to.
        family: The family.
        order: Atoms from best to worst, `[cells, width]`.
        worth: Score of the best, the second best, ... atom, mean over cells, in units of the family's mean, `[width]`.
        original: Atoms per cell before anything was pruned.
        least: Smallest width allowed.
        step: Widths are multiples of it, or the present one.
        revived: How many atoms were ranked first because a value needs them.
    """

    id: str
    groups: ChannelGroups
    family: Family
    order: Array
    worth: Array
    original: int
    least: int = 1
    step: int = 1
    revived: int = 0

    @property
    def width(self) -> int:
        """Atoms per cell now."""
        return self.family.width

    def allowed(self, wanted: int) -> int:
        """The smallest width allowed that is at least as large as one wanted; the present one if there is none below."""
        width = max(wanted, self.least, 1)
        return min(self.width, math.ceil(width / self.step) * self.step)

    def kept(self, width: int) -> Array:
        """The best atoms of every cell, ascending."""
        return np.sort(self.order[:, :width].ravel())

    def loss(self, width: int) -> float:
        """Share of the family's scores that a width gives up, 0 to 1."""
        total = float(self.worth.sum())
        return float(self.worth[width:].sum()) / total if total > 0 else 0.0

    def promote(self, atom: int) -> None:
        """Makes an atom the best of its cell."""
        for row in self.order:
            at = np.flatnonzero(row == atom)
            if len(at):
                row[1 : at[0] + 1] = row[: at[0]].copy()
                row[0] = atom
