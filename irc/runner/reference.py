"""Reference outputs of a model and the comparison with a rewritten one, computed where the runtime lives.

The tolerance of a rounding pass is the model's own rounding noise: how far its outputs move between two optimization
levels of the runtime. For each output,

    |candidate - reference| <= MULTIPLE * max|optimized - unoptimized| + EPSILONS * eps(dtype) * max|reference|

with NaN and infinities in the same places; integer outputs by agreement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from irc.ir.session import Session

Feed = dict[str, "np.ndarray[Any, Any]"]
Outputs = dict[str, Any]
MULTIPLE = 8.0
EPSILONS = 64.0
INTEGER_AGREEMENT = 0.999


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The worst output of a comparison.

    Attributes:
        ok: Whether all outputs are within tolerance.
        output: Name of the worst one.
        error: Its largest absolute difference, or share of disagreeing elements for integers.
        tolerance: What was allowed.
        message: In words.
    """

    ok: bool
    output: str = ""
    error: float = 0.0
    tolerance: float = 0.0
    message: str = ""


@dataclasses.dataclass
class Reference:
    """Outputs per feed, the rounding noise per output, and the outputs that are random."""

    feeds: list[Feed]
    outputs: list[Outputs]
    noise: dict[str, float]
    random_outputs: list[str]

    @classmethod
    def of(cls, open_at: Callable[[str], Session], feeds: list[Feed]) -> Reference:
        """Runs a model unoptimized (twice) and optimized on every feed."""
        plain = open_at("none")
        outputs = [_run(plain, feed) for feed in feeds]
        again = [_run(plain, feed) for feed in feeds]
        random = [
            name
            for name in outputs[0]
            if any(not _identical(a[name], b[name]) for a, b in zip(outputs, again, strict=True))
        ]
        del plain, again
        noise = dict.fromkeys(outputs[0], 0.0)
        try:
            optimized = open_at("all")
            for feed, expected in zip(feeds, outputs, strict=True):
                for name, value in _run(optimized, feed).items():
                    if _is_float(value) and value.shape == expected[name].shape:
                        noise[name] = max(noise[name], _largest_difference(value, expected[name]))
        except Exception:  # a runtime that cannot optimize a model it can run: no noise is known, eps remains
            pass
        return cls(feeds, outputs, noise, random)

    def compare(self, session: Session, *, exact: bool) -> Comparison:
        """Compares a model with the reference on every feed; returns the worst output."""
        worst = Comparison(True)
        for index, (feed, expected) in enumerate(zip(self.feeds, self.outputs, strict=True)):
            actual = _run(session, feed)
            for name, reference in expected.items():
                if name in self.random_outputs:
                    continue
                found = self._compare_one(name, actual[name], reference, exact, index)
                if (found.ok, -_relative(found)) < (worst.ok, -_relative(worst)):
                    worst = found
        return worst

    def _compare_one(self, name: str, actual: Any, reference: Any, exact: bool, sample: int) -> Comparison:
        where = f"output {name!r} of sample {sample}"
        if not isinstance(reference, np.ndarray):
            same = _identical(actual, reference)
            return Comparison(same, name, 0.0 if same else 1.0, 0.0, "" if same else f"{where} differs")
        if actual.shape != reference.shape or actual.dtype != reference.dtype:
            message = f"{where} was {reference.dtype} {list(reference.shape)} and is {actual.dtype} {list(actual.shape)}"
            return Comparison(False, name, float("inf"), 0.0, message)
        if exact or reference.size == 0:
            same = _identical(actual, reference)
            error = 0.0 if same else _largest_difference(actual, reference) if _is_float(reference) else 1.0
            return Comparison(same, name, error, 0.0, "" if same else f"{where} is not bit-identical (difference {error:.3g})")
        if not _is_float(reference):
            share = float(np.mean(actual != reference))
            ok = share <= 1 - INTEGER_AGREEMENT
            return Comparison(ok, name, share, 1 - INTEGER_AGREEMENT, "" if ok else f"{where}: {share:.2%} of elements differ")
        finite = np.isfinite(reference)
        if not np.array_equal(finite, np.isfinite(actual)) or not _identical(actual[~finite], reference[~finite]):
            return Comparison(False, name, float("inf"), 0.0, f"{where} has NaN or infinity in other places")
        scale = float(np.max(np.abs(reference[finite]), initial=0.0))
        tolerance = MULTIPLE * self.noise[name] + EPSILONS * float(np.finfo(reference.dtype).eps) * scale
        error = _largest_difference(actual, reference)
        ok = error <= tolerance
        return Comparison(ok, name, error, tolerance, "" if ok else f"{where} is off by {error:.3g}; rounding allows {tolerance:.3g}")


def _relative(comparison: Comparison) -> float:
    return comparison.error / comparison.tolerance if comparison.tolerance else comparison.error


def _run(session: Session, feed: Feed) -> Outputs:
    names = [o.name for o in session.session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def _identical(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=_is_float(a)))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_identical(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _largest_difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.max(np.abs(a[both].astype(np.float64) - b[both].astype(np.float64)), initial=0.0))
