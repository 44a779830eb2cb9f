"""How far two sets of outputs are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def relative_error(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """Largest difference of an element over the largest element of its output, over all outputs; infinite for unlike shapes.

    NaN and infinity must stand at the same places. Outputs that are not floats must be equal.
    """
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return float("inf")
        if one.dtype.kind != "f":
            if (one != other).any():
                return float("inf")
            continue
        a, b = one.astype(np.float64), other.astype(np.float64)
        fine = np.isfinite(a)
        if (fine != np.isfinite(b)).any():
            return float("inf")
        if fine.any():
            scale = float(np.abs(a[fine]).max()) or 1.0
            worst = max(worst, float(np.abs(a[fine] - b[fine]).max()) / scale)
    return worst


def worst_error(expected: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """The largest `relative_error` over several runs."""
    return max(relative_error(one, other) for one, other in zip(expected, found, strict=True))


def shapes_of(runs: Sequence[Sequence[Array]]) -> list[list[tuple[int, ...]]]:
    """The shapes of all outputs of several runs."""
    return [[array.shape for array in outputs] for outputs in runs]
