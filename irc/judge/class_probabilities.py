"""Class scores of any kind as log-probabilities, one row per decision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from irc.judge.classifier import ClassScores
from irc.judge.units import Array, Floats, as_float

_FLOOR = 1e-12
_CHUNK = 1 << 20


def decisions(row: Array, reading: ClassScores) -> Array:
    """The scores of one unit as a matrix [decisions, classes]; a sigmoid becomes its two classes."""
    if reading.scores == "sigmoid":
        positive = as_float(row).reshape(-1, 1)
        return np.concatenate([1.0 - positive, positive], axis=1)
    moved = np.moveaxis(row, reading.axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def chunks(matrix: Array) -> Iterator[slice]:
    """Slices of the decisions that bound the memory of a computation in float64."""
    step = max(1, _CHUNK // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], step):
        yield slice(start, start + step)


def log_probabilities(matrix: Array, reading: ClassScores) -> Floats:
    """Log-probabilities [decisions, classes] in nats; probabilities are floored at 1e-12."""
    values = as_float(matrix)
    if reading.scores in ("probabilities", "sigmoid"):
        clipped = np.maximum(values, _FLOOR)
        return np.asarray(np.log(clipped / clipped.sum(axis=1, keepdims=True)))
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def entropies(log_p: Floats) -> Floats:
    """Entropy of each decision in nats, shape [decisions]."""
    return np.asarray(-(np.exp(log_p) * np.where(np.isfinite(log_p), log_p, 0.0)).sum(axis=1))


def defined(matrix: Array) -> npt.NDArray[np.bool_]:
    """Which decisions have no NaN and a finite largest score, shape [decisions]."""
    values = as_float(matrix)
    return np.asarray(~np.isnan(values).any(axis=1) & np.isfinite(values.max(axis=1)), np.bool_)
