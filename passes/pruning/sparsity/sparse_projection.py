"""Projections onto sparse weights for `compensate`: the mask of a group of columns is chosen when its turn comes.

score[i, j] = w[i, j]^2 / [H^-1]_jj        H^-1 of the columns that are still free

Source: SparseGPT, arXiv:2301.00774, section 3.3.
"""

from __future__ import annotations

import abc

import numpy as np

from irc.calibration.compensation import Projection
from irc.passes.pruning.sparsity.sparse_mask import Array, Pattern, best


class SparseProjection(Projection):
    """Weights become zero or stay.

    Args:
        weight: `[N, K]`; what is zero in it stays zero.

    Attributes:
        kept: `[N, K]` bool, complete once all columns were projected.
    """

    def __init__(self, weight: Array) -> None:
        self._present = weight != 0
        self.kept = np.ones(weight.shape, bool)

    def enter(self, weights: Array, columns: Array, stiffness: Array) -> None:
        """Chooses what stays of a group."""
        inverse = np.linalg.inv(stiffness)
        factor = np.linalg.cholesky((inverse + inverse.T) / 2)
        scores = np.square(weights, dtype=np.float64) / np.square(np.diagonal(factor))
        present = self._present[:, columns]
        self.kept[:, columns] = self.choose(np.where(present, scores, -1.0)) & present

    def project(self, values: Array, column: int) -> Array:
        """What stays of a column."""
        return np.where(self.kept[:, column], values, np.float32(0))

    @abc.abstractmethod
    def choose(self, scores: Array) -> Array:
        """What stays of a group, `[N, g]` bool, by scores of that shape."""


class OfPattern(SparseProjection):
    """N of every M columns of a row.

    Args:
        weight: `[N, K]`, K a multiple of M.
        pattern: N and M.
    """

    def __init__(self, weight: Array, pattern: Pattern) -> None:
        super().__init__(weight)
        self.group_width = pattern.width
        self._pattern = pattern

    def choose(self, scores: Array) -> Array:
        """The best N of each row."""
        return self._pattern.best(scores)


class OfShare(SparseProjection):
    """The same share of every block of columns, wherever in its rows.

    Args:
        weight: `[N, K]`.
        zeros: How many weights go.
        group_width: Columns of a block.
    """

    def __init__(self, weight: Array, zeros: int, group_width: int = 128) -> None:
        super().__init__(weight)
        self.group_width = group_width
        self._zeros, self._size, self._seen, self._gone = zeros, weight.size, 0, 0

    def choose(self, scores: Array) -> Array:
        """The best of the block, so many that the shares of all blocks make up the whole."""
        self._seen += scores.size
        zeros = self._zeros * self._seen // self._size - self._gone
        self._gone += zeros
        return best(scores, zeros)
