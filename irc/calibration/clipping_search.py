"""Searches for the range of a quantizer: how much clipping is worth finer steps.

Both work on a density, whose bins are flat, so that the error of a quantizer is integrated exactly rather than sampled, and
both try all candidates of a grid at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from irc.calibration.densities import Density

Numbers = np.ndarray[Any, np.dtype[np.float64]]

ENTROPY_BINS_PER_LEVEL = 16
"""Equal bins per quantization level: 2 048 for the 128 levels of one side, 4 096 for 256."""
_COARSE_STEP = 8
_UNSEEN = 1e-9
"""The share that a bin is taken to have which is clipped into but has no mass of its own."""
_SHRINK = 0.92
_SHRINKINGS = 58
"""Down to a 115th of the extremes."""
_FINE_STEPS = 6
_ROUNDS = 2
Errors = Callable[[Numbers], Numbers]


def least_divergence(density: Density, levels: int) -> float:
    """The threshold whose quantized distribution diverges least from the clipped one.

        min over i of KL(P_i || Q_i),  i in levels .. 16 * levels
        P_i = the first i bins, the rest added to the last;  Q_i = the first i bins merged into `levels`, spread again
              over those of them that are not empty

    Args:
        density: Of magnitudes.
        levels: Quantization levels of one side.

    Returns:
        The threshold, at most the largest magnitude.
    """
    high = float(density.edges[-1]) if density.edges.size else 0.0
    bins = levels * ENTROPY_BINS_PER_LEVEL
    masses = density.linear(bins, high) if high > 0 else np.zeros(0)
    if not masses.sum() > 0:
        return high
    divergence = _Divergence(masses, levels)
    # The widest first: of equal divergences the one that clips least is taken.
    coarse = np.arange(bins, levels - 1, -_COARSE_STEP)
    best = int(coarse[np.argmin(divergence(coarse))])
    near = np.arange(min(bins, best + _COARSE_STEP - 1), max(levels, best - _COARSE_STEP + 1) - 1, -1)
    best = int(near[np.argmin(divergence(near))])
    return high * best / bins


class _Divergence:
    """KL divergences for numbers of bins kept, in time proportional to the levels, by sums over the bins made once.

    Within a level the quantized distribution is flat, so that `sum p log q` needs the mass of each level only.
    """

    def __init__(self, masses: Numbers, levels: int) -> None:
        self._masses, self._levels = masses, levels
        self._sums = np.concatenate([[0.0], np.cumsum(masses)])
        self._used = np.concatenate([[0.0], np.cumsum(masses > 0)])
        self._entropy = np.concatenate([[0.0], np.cumsum(_times_log(masses))])

    def __call__(self, counts: np.ndarray[Any, np.dtype[np.int64]]) -> Numbers:
        total = self._sums[-1]
        bounds = counts[:, None] * np.arange(self._levels + 1) // self._levels
        mass, used = np.diff(self._sums[bounds], axis=1), np.diff(self._used[bounds], axis=1)
        inside = self._sums[counts][:, None]
        share = np.divide(mass, used * inside, out=np.ones_like(mass), where=(mass > 0) & (inside > 0))
        clipped = total - self._sums[counts]
        last = self._masses[counts - 1]
        into = np.where(last > 0, share[:, -1], _UNSEEN)
        own = self._entropy[counts - 1] + _times_log(last + clipped)
        crossed = np.sum(mass * np.log(share), axis=1) + clipped * np.log(into)
        result: Numbers = (own - crossed) / total - np.log(total)
        return np.where(inside[:, 0] > 0, result, np.inf)


def _times_log(x: Numbers) -> Numbers:
    result: Numbers = x * np.log(np.where(x > 0, x, 1.0))
    return result


def least_squares(
    density: Density, rough: Density, low: float, high: float, *, levels: int, symmetric: bool
) -> tuple[float, float]:
    """The range of a uniform quantizer with the least squared error over a density.

    Args:
        density: Of the elements.
        rough: The same in fewer bins, to search where the best range may be.
        low: Smallest, at most 0.
        high: Largest, at least 0.
        levels: Quantization levels.
        symmetric: Whether both ends are to be equally far from zero.

    Returns:
        The range, within [low, high] unless it is symmetric.
    """
    if symmetric:
        low, high = -max(-low, high), max(-low, high)

    def both(on: Density) -> Errors:
        return lambda x: squared_errors(on, low * x, high * x, levels)

    def right_of(on: Density, left: float) -> Errors:
        return lambda x: squared_errors(on, np.full_like(x, low * left), high * x, levels)

    def left_of(on: Density, right: float) -> Errors:
        return lambda x: squared_errors(on, low * x, np.full_like(x, high * right), levels)

    together = _least(both(rough), _coarse_grid())
    if symmetric or low == 0.0 or high == 0.0:
        together = _least(both(density), _fine_grid(together))
        return low * together, high * together
    # Together first, then each end in turn: a heavy tail on one side only is the usual case.
    left = right = together
    for _ in range(_ROUNDS):
        before = (left, right)
        right = _least(right_of(rough, left), _coarse_grid())
        left = _least(left_of(rough, right), _coarse_grid())
        if (left, right) == before:
            break
    right = _least(right_of(density, left), _fine_grid(right))
    left = _least(left_of(density, right), _fine_grid(left))
    return low * left, high * right


def squared_errors(density: Density, low: Numbers, high: Numbers, levels: int) -> Numbers:
    """The sums of squared errors of quantizing a density with `levels` steps, zero being a level.

    Args:
        density: Of the elements.
        low: Lower ends of the candidates, `[k]`.
        high: Upper ends, `[k]`.
        levels: Quantization levels.

    Returns:
        One sum per candidate.
    """
    step = np.maximum((high - low) / (levels - 1), np.finfo(np.float64).tiny)[:, None]
    zero = np.rint(-low[:, None] / step)
    scaled = density.edges / step
    integral = _error_integral(scaled, -zero, levels - 1 - zero)
    widths = np.diff(scaled, axis=1)
    mean = np.divide(np.diff(integral, axis=1), widths, out=np.zeros_like(widths), where=widths > 0)
    result: Numbers = (mean @ density.masses) * np.square(step[:, 0])
    return result


def _error_integral(t: Numbers, least: Numbers, most: Numbers) -> Numbers:
    """The integral from 0 to t of the squared distance to the nearest integer within [least, most]."""
    inside = np.minimum(np.maximum(t, least - 0.5), most + 0.5)
    nearest = np.floor(inside + 0.5)
    rest = inside - nearest
    result: Numbers = nearest / 12 + rest * rest * rest / 3
    beyond = t - inside
    # Clipped: the distance to the end grows from a half, on either side with the sign of t - end.
    distance = np.abs(beyond) + 0.5
    result += np.sign(beyond) * (distance * distance * distance - 0.125) / 3
    return result


def _coarse_grid() -> Numbers:
    """Factors of the extremes, the widest first."""
    result: Numbers = _SHRINK ** np.arange(_SHRINKINGS, dtype=np.float64)
    return result


def _fine_grid(best: float) -> Numbers:
    """Factors around a point of the coarse grid, itself first."""
    around = best * _SHRINK ** (np.arange(-_FINE_STEPS + 1, _FINE_STEPS) / _FINE_STEPS)
    return np.concatenate([[best], np.minimum(around, 1.0)])


def _least(errors: Errors, grid: Numbers) -> float:
    """The first of the factors with the least error."""
    return float(grid[int(np.argmin(errors(grid)))])
