"""How far two arrays, or streams of them, are apart.

For floating-point values a (the reference) and b, summed over everything seen,

    SQNR = 10 log10(sum a^2 / sum (a - b)^2)  in dB,        relative error = sqrt(sum (a - b)^2 / sum a^2)

6 dB are one bit, 20 dB a relative error of 10 %, 40 dB of 1 %. Where either has NaN or infinity and the other not the
same, the element is counted and left out of the sums. Integers, booleans and texts: the share of equal elements.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from irc.judge.class_probabilities import decisions, defined, entropies, log_probabilities
from irc.judge.classifier import ClassScores, looks_like_classes
from irc.judge.units import as_float, is_float


@dataclasses.dataclass
class NumericDifference:
    """The difference of two streams of arrays.

    Attributes:
        signal: Sum of squares of the reference.
        noise: Sum of squares of the difference.
        largest: Largest absolute difference.
        elements: Elements compared.
        equal: Elements that are equal, NaN equal to NaN.
        non_finite: Elements that are NaN or infinite in one and not so in the other.
        shapes: The first pair of shapes that differ, in words; such arrays are not compared.
        floating: Whether all arrays were floating point.
    """

    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    elements: int = 0
    equal: int = 0
    non_finite: int = 0
    shapes: str = ""
    floating: bool = True

    def add(self, a: Any, b: Any) -> None:
        """Adds a pair of arrays, or of anything else an output may be."""
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
            self.floating = False
            self.elements += 1
            self.equal += int(_same(a, b))
            return
        if a.shape != b.shape:
            self.shapes = self.shapes or f"{list(a.shape)} and {list(b.shape)}"
            return
        self.elements += a.size
        if not (is_float(a) and is_float(b)):
            self.floating = False
            self.equal += int((a == b).sum())
            return
        x, y = as_float(a), as_float(b)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        self.equal += int(same.sum())
        finite = np.isfinite(x) & np.isfinite(y)
        self.non_finite += int((~finite & ~same).sum())
        if not finite.all():
            x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
        difference = x - y
        self.signal += float(np.vdot(x, x).real)
        self.noise += float(np.vdot(difference, difference).real)
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    @property
    def identical(self) -> bool:
        """Whether everything seen is equal, and something was seen."""
        return not self.shapes and self.equal == self.elements

    @property
    def agreement(self) -> float | None:
        """Share of equal elements in [0, 1]; None if nothing was compared."""
        return self.equal / self.elements if self.elements else None

    @property
    def sqnr_db(self) -> float | None:
        """SQNR in dB, infinite for no difference; None if nothing was compared or not floating point."""
        if not self.floating or not self.elements:
            return None
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0.0 else -math.inf

    @property
    def relative_error(self) -> float | None:
        """Relative error, 0 for no difference; None like `sqnr_db`."""
        if not self.floating or not self.elements:
            return None
        if self.noise == 0.0:
            return 0.0
        return math.sqrt(self.noise / self.signal) if self.signal > 0.0 else math.inf


class TopOne:
    """How often two models decide for the same class.

    Args:
        reading: How the output is read as class scores.
    """

    def __init__(self, reading: ClassScores) -> None:
        self._reading = reading
        self.decisions = 0
        self.agreeing = 0
        self._entropy = 0.0
        self._classes = 0
        self._chosen: set[int] = set()

    def add(self, a: Any, b: Any) -> None:
        """Adds the outputs of both models on one sample; decisions that are NaN in A are left out."""
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or a.shape != b.shape or not a.size:
            return
        mine, theirs = decisions(a, self._reading), decisions(b, self._reading)
        kept = defined(mine)
        mine, theirs = mine[kept], theirs[kept]
        if not len(mine):
            return
        best = mine.argmax(axis=1)
        self.decisions += len(mine)
        self.agreeing += int((best == theirs.argmax(axis=1)).sum())
        self._entropy += float(entropies(log_probabilities(mine, self._reading)).sum())
        self._classes = mine.shape[1]
        self._chosen.update(best.tolist())

    @property
    def agreement(self) -> float | None:
        """Share of equal decisions in [0, 1]; None if there are none or the scores are no classifier's."""
        if not self.decisions or not self._believed:
            return None
        return self.agreeing / self.decisions

    @property
    def _believed(self) -> bool:
        """Whether presumed logits look like class scores: embeddings and boxes come from equal graphs."""
        if self._reading.confirmed:
            return True
        return looks_like_classes(self._entropy / self.decisions, self._classes, len(self._chosen), self.decisions)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)
