"""Searches for the range of a quantizer: how much clipping is worth finer steps.

Both work on a density, whose bins are flat, so that the error of a quantizer is integrated exactly rather than sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from irc.calibration.densities import Density

Numbers = np.ndarray[Any, np.dtype[np.float64]]

ENTROPY_BINS_PER_LEVEL = 16
"""Equal bins per quantization level: 2 048 for the 128 levels of one side, 4 096 for 256."""
_COARSE_STEPS = 256
_SHRINK = 0.92
_SHRINKINGS = 60
"""Down to a 140th of the extremes."""
_ROUNDS = 2


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
    tail = np.concatenate([np.cumsum(masses[::-1])[::-1], [0.0]])
    known: dict[int, float] = {}

    def divergence(count: int) -> float:
        if count not in known:
            known[count] = _divergence(masses[:count], float(tail[count]), levels)
        return known[count]

    step = max(1, (bins - levels) // _COARSE_STEPS)
    # The widest first: of equal divergences the one that clips least is taken.
    best = min(range(bins, levels - 1, -step), key=divergence)
    near = range(min(bins, best + step - 1), max(levels, best - step + 1) - 1, -1)
    best = min(near, key=divergence)
    return high * best / bins


def _divergence(masses: Numbers, clipped: float, levels: int) -> float:
    used = masses > 0
    reference = masses.copy()
    reference[-1] += clipped
    bounds = np.arange(levels) * len(masses) // levels
    sums, filled = np.add.reduceat(masses, bounds), np.add.reduceat(used.astype(np.float64), bounds)
    sizes = np.diff(np.append(bounds, len(masses)))
    spread = np.repeat(sums / np.maximum(filled, 1), sizes) * used
    p, q = reference / reference.sum(), spread / max(float(spread.sum()), 1e-300)
    # What is clipped into an empty last bin has no counterpart; a small mass there keeps the divergence finite.
    q = np.maximum(q, np.where(p > 0, 1e-9, 0.0))
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))


def least_squares(density: Density, low: float, high: float, *, levels: int, symmetric: bool) -> tuple[float, float]:
    """The range of a uniform quantizer with the least squared error over a density.

    Args:
        density: Of the elements.
        low: Smallest, at most 0.
        high: Largest, at least 0.
        levels: Quantization levels.
        symmetric: Whether both ends are to be equally far from zero.

    Returns:
        The range, within [low, high] unless it is symmetric.
    """
    if symmetric:
        reach = max(-low, high)
        best = _narrowest(lambda x: squared_error(density, -x * reach, x * reach, levels))
        return -best * reach, best * reach
    if low == 0.0 or high == 0.0:
        best = _narrowest(lambda x: squared_error(density, low * x, high * x, levels))
        return low * best, high * best
    # Together first, then each end in turn: a heavy tail on one side only is the usual case.
    together = _narrowest(lambda x: squared_error(density, low * x, high * x, levels))
    left = right = together
    for _ in range(_ROUNDS):
        before = (left, right)
        right = _narrowest(lambda x: squared_error(density, low * left, high * x, levels))  # noqa: B023
        left = _narrowest(lambda x: squared_error(density, low * x, high * right, levels))  # noqa: B023
        if (left, right) == before:
            break
    return low * left, high * right


def squared_error(density: Density, low: float, high: float, levels: int) -> float:
    """The sum of squared errors of quantizing a density with `levels` steps from `low` to `high`, zero being a level."""
    step = (high - low) / (levels - 1)
    if not step > 0:
        middles = (density.edges[1:] + density.edges[:-1]) / 2
        return float(np.sum(density.masses * np.square(middles)))
    zero = round(-low / step)
    scaled = density.edges / step
    integral = _error_integral(scaled, -zero, levels - 1 - zero)
    widths = np.diff(scaled)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(widths > 0, np.diff(integral) / widths, 0.0)
    return float(np.sum(density.masses * mean)) * step * step


def _error_integral(t: Numbers, least: int, most: int) -> Numbers:
    """The integral from 0 to t of the squared distance to the nearest integer within [least, most]."""
    inside = np.clip(t, least - 0.5, most + 0.5)
    nearest = np.floor(inside + 0.5)
    result = nearest / 12 + (inside - nearest) ** 3 / 3
    beyond = np.where(t > inside, t - most, np.where(t < inside, t - least, 0.0))
    outside = (np.abs(beyond) ** 3 - 0.125) / 3
    return np.asarray(result + np.where(t > inside, outside, np.where(t < inside, -outside, 0.0)))


def _narrowest(error: Callable[[float], float]) -> float:
    """The factor in (0, 1] with the least error: a geometric grid, then finer around its best point."""
    grid = [_SHRINK**i for i in range(_SHRINKINGS)]
    errors = [error(x) for x in grid]
    best = int(np.argmin(errors))
    upper, lower = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    fine = [float(x) for x in np.linspace(upper, lower, 17)]
    candidates = [(errors[best], 0, grid[best]), *((error(x), 1, x) for x in fine)]
    return min(candidates, key=lambda c: (c[0], c[1]))[2]
