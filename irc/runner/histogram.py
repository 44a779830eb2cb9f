"""Histograms on the float's own bits: one sweep, no range to know before, the same counts in whatever order samples come.

A bin is a number of 11 significant bits (1 + m/1024) * 2^e with either sign, which every element is rounded to: 1 024
bins per octave wherever the numbers lie. The runtime does the rounding, by its Cast of `x * 2^scale` to float16, on all
its threads; what is left here is to count 16-bit codes. Below the `OCTAVES` octaves under the largest magnitude, where
float16 may run out of exponents, everything counts as zero: less than a hundredth of the step of any 8-bit quantizer.

Imports numpy only: the runtime process counts, so that no activation crosses to the compiler.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

Counts = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.uint16]]
Numbers = np.ndarray[Any, np.dtype[np.float64]]

BINS_PER_OCTAVE = 1024
OCTAVES = 14
LARGEST_HALF = 65504.0
"""Above this a number has no code; at `SMALLEST_MAXIMUM` its octave is the last with `OCTAVES` normal ones below it."""
SMALLEST_MAXIMUM = 1.0
_BIAS = 15
_NORMAL = BINS_PER_OCTAVE
"""The first code of a normal number; below are zero and numbers of fewer bits."""
_INFINITY = 0x7C00
_SIGN = 0x8000
_BLOCK = 1 << 17
"""Codes counted at once: as indices they fit the second-level cache."""
_WORTH_COUNTING = 1 << 15
_MOST_COUNTED = (1 << 31) - 1
"""Elements after which counts of 32 bits are added to those of 64."""


@dataclasses.dataclass
class Magnitudes:
    """Counts of numbers of one sign, by position `exponent * 1024 + mantissa`.

    Attributes:
        first: Position of the first count.
        counts: int64, without zeros at the ends.
    """

    first: int = 0
    counts: Counts = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, first: int, counts: Counts) -> None:
        """Adds counts that start at a position."""
        used = np.flatnonzero(counts)
        if not used.size:
            return
        first, counts = first + int(used[0]), counts[used[0] : used[-1] + 1]
        if not self.counts.size:
            self.first, self.counts = first, counts.astype(np.int64)
            return
        low, high = min(self.first, first), max(self.first + len(self.counts), first + len(counts))
        if high - low > len(self.counts):
            wider = np.zeros(high - low, np.int64)
            wider[self.first - low : self.first - low + len(self.counts)] = self.counts
            self.first, self.counts = low, wider
        self.counts[first - low : first - low + len(counts)] += counts

    @property
    def last(self) -> int | None:
        """Position of the largest magnitude; None if there is none."""
        return self.first + len(self.counts) - 1 if self.counts.size else None


@dataclasses.dataclass
class Histogram:
    """How often each number occurs, rounded to 11 significant bits; a monoid over samples.

    Attributes:
        positive: Counts of positive numbers.
        negative: Counts of negative numbers, by magnitude.
        small: How many were zero, or too small for the scale they were taken at.
        not_a_number: How many were NaN.
    """

    positive: Magnitudes = dataclasses.field(default_factory=Magnitudes)
    negative: Magnitudes = dataclasses.field(default_factory=Magnitudes)
    small: int = 0
    not_a_number: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was counted."""
        return not (self.small or self.positive.counts.size or self.negative.counts.size)

    @property
    def nbytes(self) -> int:
        """Memory the counts take, in bytes; grows with the octaves, not with the samples."""
        return self.positive.counts.nbytes + self.negative.counts.nbytes + 16

    @property
    def total(self) -> int:
        """How many elements were counted."""
        return int(self.positive.counts.sum() + self.negative.counts.sum()) + self.small

    def add_counts(self, counts: Counts, exponent: int) -> None:
        """Adds counts by float16 code of `x * 2^exponent`.

        Args:
            counts: How often each code occurs, from code 0 on; infinities are counted as the largest number.
            exponent: Of the scale.
        """
        for side, start in ((self.positive, 0), (self.negative, _SIGN)):
            part = counts[start : start + _SIGN]
            if not part.size:
                continue
            self.small += int(part[:_NORMAL].sum())
            self.not_a_number += int(part[_INFINITY + 1 :].sum())
            finite = part[_NORMAL : _INFINITY + 1]
            if finite.size > _INFINITY - _NORMAL and finite[-1]:
                finite = finite.copy()
                finite[-2] += finite[-1]
                finite[-1] = 0
            side.add((1 - _BIAS - exponent) * BINS_PER_OCTAVE, finite)

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both sets of samples together."""
        merged = Histogram(small=self.small + other.small, not_a_number=self.not_a_number + other.not_a_number)
        for part in (self, other):
            merged.positive.add(part.positive.first, part.positive.counts)
            merged.negative.add(part.negative.first, part.negative.counts)
        return merged

    def ends(self) -> tuple[float, float]:
        """The outermost bins, and zero if it was counted; (inf, -inf) if nothing was."""
        numbers = [0.0] if self.small else []
        for side, sign in ((self.positive, 1.0), (self.negative, -1.0)):
            if side.last is not None:
                numbers += (sign * magnitudes(np.array([side.first, side.last]))).tolist()
        return min(numbers, default=math.inf), max(numbers, default=-math.inf)

    def settled(self) -> Histogram:
        """The histogram with everything below `OCTAVES` octaves under the largest magnitude counted as zero.

        Two histograms of the same elements are equal when settled, whatever scales they were taken at.
        """
        tops = [side.last for side in (self.positive, self.negative) if side.last is not None]
        result = Histogram(small=self.small, not_a_number=self.not_a_number)
        if not tops:
            return result
        # A number just below the cut may be rounded up to it at one scale and not at another, so the cut goes too.
        cut = (max(tops) // BINS_PER_OCTAVE - OCTAVES) * BINS_PER_OCTAVE + 1
        for side, kept in ((self.positive, result.positive), (self.negative, result.negative)):
            dropped = min(max(cut - side.first, 0), len(side.counts))
            result.small += int(side.counts[:dropped].sum())
            kept.add(side.first + dropped, side.counts[dropped:])
        return result


def code_magnitude(code: int) -> float:
    """The magnitude a float16 code stands for, without its sign; infinity for NaN as well, 0 for -1."""
    if code >= _INFINITY:
        return math.inf
    return float(np.array(code, np.uint16).view(np.float16)) if code >= 0 else 0.0


def magnitudes(positions: Counts) -> Numbers:
    """The numbers at positions: `(1 + m/1024) * 2^e` for `e * 1024 + m`."""
    exponents, mantissas = np.divmod(positions, BINS_PER_OCTAVE)
    return np.ldexp(1.0 + mantissas / BINS_PER_OCTAVE, exponents)


def edges(first: int, count: int) -> Numbers:
    """The `count + 1` edges of neighbouring bins: halfway between the numbers they are rounded to."""
    centres = magnitudes(np.arange(first - 1, first + count + 1))
    result: Numbers = (centres[1:] + centres[:-1]) / 2
    return result


@functools.cache
def _scratch() -> tuple[Codes, Codes, np.ndarray[Any, np.dtype[np.intp]]]:
    """Codes that count as small, one after another; room for codes; room for indices.

    What follows a Relu is half zeros, and counting the same number again and again waits for itself each time, so zeros are
    raised to numbers that differ and count as small too.
    """
    spread = (np.arange(_BLOCK) % 512).astype(np.uint16)
    return spread, np.empty(_BLOCK, np.uint16), np.empty(_BLOCK, np.intp)


class Counter:
    """Counts the codes of one value over many runs; those of small tensors are gathered first.

    Args:
        exponent: Of the scale.
    """

    def __init__(self, exponent: int = 0) -> None:
        self._exponent = exponent
        self._waiting: list[Codes] = []
        self._size = 0
        self._counts = np.zeros(0, np.int32)
        self._counted = 0
        self._histogram = Histogram()

    def add(self, codes: Codes, exponent: int) -> None:
        """Counts an array of codes taken at a scale; the array may be overwritten afterwards."""
        if exponent != self._exponent:
            self._settle()
            self._exponent = exponent
        flat = codes.reshape(-1)
        if flat.size >= _WORTH_COUNTING:
            self._count(flat)
            return
        self._waiting.append(flat.copy())
        self._size += flat.size
        if self._size >= _WORTH_COUNTING:
            self._gather()

    def histogram(self) -> Histogram:
        """Everything counted so far."""
        self._settle()
        return self._histogram

    def _gather(self) -> None:
        if self._size:
            joined = np.concatenate(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._count(joined)

    def _count(self, codes: Codes) -> None:
        if self._counted + codes.size > _MOST_COUNTED:
            self._into_histogram()
        spread, raised, indices = _scratch()
        for start in range(0, codes.size, _BLOCK):
            block = codes[start : start + _BLOCK]
            size = block.size
            np.maximum(block, spread[:size], out=raised[:size])
            np.copyto(indices[:size], raised[:size])
            found = np.bincount(indices[:size])
            if len(found) > len(self._counts):
                self._counts = np.concatenate([self._counts, np.zeros(len(found) - len(self._counts), np.int32)])
            part = self._counts[: len(found)]
            np.add(part, found, out=part, casting="unsafe")
        self._counted += codes.size

    def _into_histogram(self) -> None:
        self._histogram.add_counts(self._counts.astype(np.int64), self._exponent)
        self._counts = np.zeros(0, np.int32)
        self._counted = 0

    def _settle(self) -> None:
        self._gather()
        if self._counted:
            self._into_histogram()
