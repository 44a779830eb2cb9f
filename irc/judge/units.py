"""Independent units of evidence: rows of a batch where the batch axis is plain to see, else whole samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


def batch_size(feed: Mapping[str, Array]) -> int | None:
    """The common size of axis 0 of all inputs, or None if they differ or a lone scalar is all there is."""
    sizes = {array.shape[0] for array in feed.values() if array.ndim > 0}
    return sizes.pop() if len(sizes) == 1 else None


def rows(array: Array, feed: Mapping[str, Array]) -> list[Array]:
    """An output (or label) as its units: one per row of the batch, padding removed; else the whole array.

    Padding is what an integer or bool input named `...mask`, shaped [N, T] like the array's first two axes, marks by 0.
    """
    size = batch_size(feed)
    if size is None or array.ndim == 0 or array.shape[0] != size:
        return [array]
    mask = _padding_mask(array, feed)
    if mask is None:
        # Not list(array): the elements of a vector of strings are no arrays.
        return [array[index, ...] for index in range(size)]
    return [row[kept] for row, kept in zip(array, mask, strict=True)]


def _padding_mask(array: Array, feed: Mapping[str, Array]) -> npt.NDArray[np.bool_] | None:
    if array.ndim < 2 or (array.ndim == 2 and is_float(array)):
        return None
    for name in sorted(feed):
        given = feed[name]
        if name.lower().endswith("mask") and given.dtype.kind in "bui" and given.shape == array.shape[:2]:
            kept = given != 0
            if not kept.all() and bool(kept.any(axis=1).all()):
                return np.asarray(kept, np.bool_)
    return None


def as_float(array: Array) -> Floats:
    """Any numeric array as float64; complex numbers become pairs."""
    if array.dtype.kind == "c":
        return np.ascontiguousarray(array, np.complex128).view(np.float64)
    return np.asarray(array, np.float64)


def is_float(array: Array) -> bool:
    """Whether an array holds floating-point or complex numbers, bfloat16 and float8 included."""
    return array.dtype.kind in "fc" or (array.dtype.kind == "V" and array.dtype.names is None)


def non_finite(candidate: Array, reference: Array) -> int:
    """How many NaN or infinite numbers a candidate's output has where the original's has none."""
    if not is_float(candidate):
        return 0
    bad = ~np.isfinite(as_float(candidate))
    if is_float(reference) and reference.shape == candidate.shape:
        bad &= np.isfinite(as_float(reference))
    return int(bad.sum())


class UnitTable:
    """Sums per unit, kept by the unit's content so that order does not matter and equal samples count once."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._rows: dict[tuple[str, int], Floats] = {}

    def set(self, key: str, row: int, *values: float) -> None:
        """Stores the sums of one unit; a repeated sample replaces its equal."""
        self._rows[key, row] = np.array(values, np.float64)

    def columns(self) -> tuple[Floats, ...]:
        """The columns, each of shape [units], in an order that depends on the content alone."""
        if not self._rows:
            return (np.zeros(0),) * self._columns
        return tuple(np.stack([self._rows[key] for key in sorted(self._rows)]).T)
