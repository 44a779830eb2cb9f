"""How far two values of one output are apart, for every kind of value ONNX Runtime returns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
CHUNK = 1 << 20


def leaves(name: str, value: Any) -> Iterator[tuple[str, Array]]:
    """The arrays of an output with a label each: a tensor is one, sequences and maps have one per element."""
    if isinstance(value, np.ndarray):
        yield name, value
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from leaves(f"{name}[{key}]", value[key])
    elif isinstance(value, list | tuple):
        yield f"len({name})", np.asarray(len(value))
        for index, item in enumerate(value):
            yield from leaves(f"{name}[{index}]", item)
    elif value is None:
        yield f"{name} is None", np.asarray(True)
    else:
        yield name, np.asarray(value)


def is_float(array: Array) -> bool:
    """Whether rounding applies to the values; complex numbers included."""
    return bool(np.issubdtype(array.dtype, np.inexact))


def same_form(a: Array, b: Array) -> bool:
    """Whether shape and dtype are equal."""
    return bool(a.shape == b.shape and a.dtype == b.dtype)


def identical(a: Array, b: Array) -> bool:
    """Equal in form and in every element; NaN equals NaN, and zero equals minus zero."""
    return same_form(a, b) and bool(np.array_equal(a, b, equal_nan=is_float(a)))


def same_exceptions(a: Array, b: Array) -> bool:
    """Whether two float arrays have NaN and each infinity in the same places."""
    odd_a, odd_b = ~np.isfinite(a), ~np.isfinite(b)
    return bool(np.array_equal(odd_a, odd_b)) and bool(np.array_equal(a[odd_a], b[odd_b], equal_nan=True))


def largest_difference(a: Array, b: Array) -> float:
    """Largest |a - b| over the elements that are finite in both, in double precision."""
    largest = 0.0
    for x, y in _chunks(a, b):
        finite = np.isfinite(x) & np.isfinite(y)
        largest = max(largest, float(np.max(np.abs(x[finite] - y[finite]), initial=0.0)))
    return largest


def scale(a: Array) -> float:
    """Largest |a| over finite elements."""
    return float(np.max(np.abs(a), where=np.isfinite(a), initial=0.0)) if a.size else 0.0


def disagreement(a: Array, b: Array) -> float:
    """Share of elements that differ."""
    return float(np.mean(a != b)) if a.size else 0.0


@dataclasses.dataclass
class OutputDifference:
    """One output of two models, over all feeds.

    Attributes:
        name: The output.
        max_error: max |a - b| over finite elements; 1.0 for values that are not numbers and differ.
        signal: Sum of a * a.
        error: Sum of (a - b) * (a - b).
        elements: Number of elements compared.
        differing: Number of elements that are not equal.
        message: What made the values incomparable ("" if nothing): other shapes, NaN in other places.
    """

    name: str
    max_error: float = 0.0
    signal: float = 0.0
    error: float = 0.0
    elements: int = 0
    differing: int = 0
    message: str = ""

    @property
    def sqnr_db(self) -> float:
        """Signal to error ratio, 10 log10(signal / error) in decibels; infinite without error."""
        if self.error == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal else -math.inf

    def update(self, a: Array, b: Array) -> None:
        """Adds one pair of values."""
        if a.shape != b.shape:
            self.message = self.message or f"shape {list(a.shape)} against {list(b.shape)}"
            return
        self.elements += a.size
        if not (np.issubdtype(a.dtype, np.number) and np.issubdtype(b.dtype, np.number)):
            self.differing += int(np.sum(a != b))
            self.max_error = max(self.max_error, float(self.differing > 0))
            return
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            self.message = self.message or "NaN or infinity in other places"
        self.max_error = max(self.max_error, largest_difference(a, b))
        for x, y in _chunks(a, b):
            finite = np.isfinite(x) & np.isfinite(y)
            self.signal += float(np.sum(np.abs(x[finite]) ** 2))
            self.error += float(np.sum(np.abs(x[finite] - y[finite]) ** 2))
            self.differing += int(np.sum(x != y) - np.sum(np.isnan(x) & np.isnan(y)))


def _chunks(a: Array, b: Array) -> Iterator[tuple[Array, Array]]:
    wide = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    for start in range(0, flat_a.size, CHUNK):
        yield flat_a[start : start + CHUNK].astype(wide), flat_b[start : start + CHUNK].astype(wide)
