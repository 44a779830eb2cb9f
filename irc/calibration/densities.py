"""A histogram as a density that is flat within each bin: what the searches for a range integrate over."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from irc.calibration.statistics import Distribution
from irc.runner.histogram import BINS_PER_OCTAVE, Histogram, Magnitudes, edges

Numbers = np.ndarray[Any, np.dtype[np.float64]]

_ALL = (BINS_PER_OCTAVE,)
"""Bins kept of each octave from the largest magnitude down, the last number for all further ones."""
_ENOUGH = (512, 256, 128, 64)
"""The same for the squared error, which integrates over bins: half the step of 256 levels, and finer below."""


@dataclasses.dataclass(frozen=True, eq=False)
class Density:
    """Masses of neighbouring bins, and a mass at zero.

    Attributes:
        edges: Ascending, `[bins + 1]`; bins that touch share an edge, what lies between others has no mass.
        masses: Number of elements in each bin.
        zeros: Number of elements that are zero, or near it.
    """

    edges: Numbers
    masses: Numbers
    zeros: float

    @classmethod
    def of(cls, distribution: Distribution, *, rough: bool = False) -> Density:
        """The density of the elements, in a quarter of the bins if it is to be rough."""
        kept = tuple(bins // 4 for bins in _ENOUGH) if rough else _ENOUGH
        return cls._joined(distribution, distribution.histogram.settled(), signed=True, kept=kept)

    @classmethod
    def of_magnitudes(cls, distribution: Distribution) -> Density:
        """The density of the magnitudes of the elements."""
        settled = distribution.histogram.settled()
        folded = Histogram(small=settled.small)
        for side in (settled.positive, settled.negative):
            folded.positive.add(side.first, side.counts)
        return cls._joined(distribution, folded, signed=False, kept=_ALL)

    @classmethod
    def _joined(
        cls, distribution: Distribution, histogram: Histogram, *, signed: bool, kept: tuple[int, ...]
    ) -> Density:
        tops = [side.last for side in (histogram.positive, histogram.negative) if side.last is not None]
        top = max(tops, default=0) // BINS_PER_OCTAVE
        upper, positive = _coarse(histogram.positive, top, kept)
        lower, negative = _coarse(histogram.negative, top, kept)
        low, high = distribution.range.low, distribution.range.high
        if not signed:
            low, high = 0.0, max(-low, high)
        # Bins reach half their width beyond the numbers they are for, and no range is to be wider than the extremes.
        upper, lower = np.minimum(upper, max(high, 0.0)), np.minimum(lower, max(-low, 0.0))
        parts, masses = [-lower[::-1], upper], [negative[::-1], positive]
        if lower.size and upper.size:
            masses.insert(1, np.zeros(1))
        return cls(np.concatenate(parts), np.concatenate(masses), float(histogram.small))

    @property
    def total(self) -> float:
        """Number of all elements."""
        return float(self.masses.sum()) + self.zeros

    def quantile(self, share: float) -> float:
        """The magnitude below which a share of the elements lies, for a density of magnitudes."""
        if not self.masses.size:
            return 0.0
        wanted = share * self.total - self.zeros
        if wanted <= 0:
            return float(self.edges[0])
        sums = np.concatenate([[0.0], np.cumsum(self.masses)])
        index = min(int(np.searchsorted(sums, wanted, side="left")), len(self.masses))
        below, above = sums[index - 1], sums[index]
        inside = (wanted - below) / (above - below) if above > below else 1.0
        left, right = self.edges[index - 1], self.edges[index]
        return float(left + min(max(inside, 0.0), 1.0) * (right - left))

    def linear(self, bins: int, high: float) -> Numbers:
        """The masses in equal bins from 0 to `high`, the zeros left out."""
        sums = np.concatenate([[0.0], np.cumsum(self.masses)])
        grid = np.linspace(0.0, high, bins + 1)
        result: Numbers = np.diff(np.interp(grid, self.edges, sums))
        return result


def _coarse(side: Magnitudes, top: int, kept: tuple[int, ...]) -> tuple[Numbers, Numbers]:
    """Edges and masses of the counts of one sign, in fewer bins where they are much finer than any quantizer's step."""
    if not side.counts.size:
        return np.zeros(0), np.zeros(0)
    first, last = side.first // BINS_PER_OCTAVE, (side.first + len(side.counts) - 1) // BINS_PER_OCTAVE
    full = np.zeros((last - first + 1, BINS_PER_OCTAVE), np.float64)
    start = side.first - first * BINS_PER_OCTAVE
    full.reshape(-1)[start : start + len(side.counts)] = side.counts
    borders, masses = [], []
    for octave in range(first, last + 1):
        bins = kept[min(max(top - octave, 0), len(kept) - 1)]
        step = BINS_PER_OCTAVE // bins
        masses.append(full[octave - first].reshape(bins, step).sum(axis=1))
        borders.append(edges(octave * BINS_PER_OCTAVE, BINS_PER_OCTAVE)[:-1:step])
    borders.append(edges((last + 1) * BINS_PER_OCTAVE, 1)[:1])
    joined, mass = np.concatenate(borders), np.concatenate(masses)
    used = np.flatnonzero(mass)
    return joined[used[0] : used[-1] + 2], mass[used[0] : used[-1] + 1]
