"""Statistics of tensors over samples: monoids, so that order and grouping of the samples do not matter.

`observe` gathers them for observables; `collect` turns them into ranges, which is all that quantization and a plan keep.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, Self

import numpy as np

from irc.runner.histogram import Histogram

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Kind = Literal["min-max", "distribution", "moments", "gram"]


@dataclasses.dataclass(frozen=True)
class Observable:
    """Asks for one statistic of one value.

    Attributes:
        value_name: The value, by its name in the model.
        kind: "min-max" (`Extremes`), "distribution" (`Distribution`), "moments" (`Moments`) or "gram" (`Gram`).
        axis: Which axis counts channels; None for the whole tensor. A gram is over the channels of its axis.
    """

    value_name: str
    kind: Kind = "min-max"
    axis: int | None = None

    def __post_init__(self) -> None:
        if self.kind == "gram" and self.axis is None:
            raise ValueError("a gram needs the axis of the channels")


class Statistic(Protocol):
    """A monoid over samples: `merge` is associative and commutative, the statistic of nothing is its identity."""

    @property
    def empty(self) -> bool:
        """Whether nothing was seen yet."""

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes; does not grow with the samples."""

    def merge(self, other: Self) -> Self:
        """The statistic of both sets of samples together."""


@dataclasses.dataclass(frozen=True)
class MinMax:
    """Smallest and largest element seen, or an interval chosen from what was seen.

    Attributes:
        low: Smallest; infinity before any element.
        high: Largest; minus infinity before any element.
        count: How many samples contributed an element.
    """

    low: float = math.inf
    high: float = -math.inf
    count: int = 0

    @property
    def empty(self) -> bool:
        """Whether no element was seen."""
        return self.low > self.high

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        return 24

    def merge(self, other: MinMax) -> MinMax:
        """The statistic of both sets of samples together."""
        return MinMax(min(self.low, other.low), max(self.high, other.high), self.count + other.count)


@dataclasses.dataclass(frozen=True, eq=False)
class Extremes:
    """Extremes over all samples, and the sums over samples of each sample's own extremes.

    All arrays are float64 of shape `[]`, or `[C]` with channels.

    Attributes:
        low: Smallest elements.
        high: Largest elements.
        low_sum: Sums of the smallest elements of each sample, [2, ...]: the sum and what rounding left of it.
        high_sum: Sums of the largest, likewise.
        count: How many samples contributed an element.
    """

    low: Numbers
    high: Numbers
    low_sum: Numbers
    high_sum: Numbers
    count: Numbers

    @classmethod
    def nothing(cls, shape: tuple[int, ...] = ()) -> Extremes:
        """The extremes of no sample."""
        zeros = np.zeros((2, *shape))
        return cls(np.full(shape, math.inf), np.full(shape, -math.inf), zeros, zeros.copy(), np.zeros(shape))

    @classmethod
    def of(cls, low: Numbers, high: Numbers) -> Extremes:
        """The extremes of one sample; where there was no element, infinity and minus infinity."""
        seen = low <= high
        rest = np.zeros_like(low)
        lows, highs = np.where(seen, low, 0.0), np.where(seen, high, 0.0)
        return cls(low, high, np.stack([lows, rest]), np.stack([highs, rest]), seen.astype(np.float64))

    @property
    def empty(self) -> bool:
        """Whether no element was seen."""
        return not bool(np.any(self.low <= self.high))

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        return 7 * self.low.nbytes

    def merge(self, other: Extremes) -> Extremes:
        """The statistic of both sets of samples together."""
        return Extremes(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            _added(self.low_sum, other.low_sum),
            _added(self.high_sum, other.high_sum),
            self.count + other.count,
        )

    def part(self, index: int | slice) -> Extremes:
        """Some of the channels."""
        return Extremes(*(field[..., index] for field in dataclasses.astuple(self)))

    @property
    def range(self) -> MinMax:
        """The extremes over everything, channels included."""
        if self.empty:
            return MinMax()
        return MinMax(float(self.low.min()), float(self.high.max()), int(self.count.max()))

    @property
    def mean(self) -> MinMax:
        """The means of the extremes of the samples, rounded to float32, so that the order of summing does not show."""
        if self.empty:
            return MinMax()
        count = np.maximum(self.count, 1)
        low, high = (s[0] / count + s[1] / count for s in (self.low_sum, self.high_sum))
        seen = self.count > 0
        lowest, highest = float(low[seen].min()), float(high[seen].max())
        return MinMax(_narrowed(lowest), _narrowed(highest), int(self.count.max()))


def _narrowed(number: float) -> float:
    """A number to float32 precision where float32 holds it."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = float(np.float32(number))
    return narrow if math.isfinite(narrow) and (narrow or not number) else number


def _added(a: Numbers, b: Numbers) -> Numbers:
    """The sum of two sums, each with what rounding left of it (Knuth, TAOCP 2, 4.2.2, theorem B)."""
    total = a[0] + b[0]
    virtual = total - a[0]
    rest = (a[0] - (total - virtual)) + (b[0] - virtual)
    result: Numbers = np.stack([total, a[1] + b[1] + rest])
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
    """A histogram with its ends.

    Attributes:
        range: Smallest and largest element, rounded to 11 significant bits.
        histogram: Counts by value.
    """

    range: MinMax
    histogram: Histogram

    @property
    def empty(self) -> bool:
        """Whether no element was seen."""
        return self.range.empty

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        return self.range.nbytes + self.histogram.nbytes

    def merge(self, other: Distribution) -> Distribution:
        """The statistic of both sets of samples together."""
        return Distribution(self.range.merge(other.range), self.histogram.merge(other.histogram))


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Number, sum and sum of squares of the elements, in double precision between samples.

    Attributes:
        count: Number of elements, per channel.
        total: Sums, `[]` or `[C]`.
        squares: Sums of squares, likewise.
    """

    count: float
    total: Numbers
    squares: Numbers

    @property
    def empty(self) -> bool:
        """Whether no element was seen."""
        return not self.count

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        return 8 + 2 * self.total.nbytes

    @property
    def mean(self) -> Numbers:
        """First moments."""
        return np.asarray(self.total / max(self.count, 1))

    @property
    def second(self) -> Numbers:
        """Second moments, about zero."""
        return np.asarray(self.squares / max(self.count, 1))

    def merge(self, other: Moments) -> Moments:
        """The statistic of both sets of samples together."""
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)


@dataclasses.dataclass(frozen=True, eq=False)
class Gram:
    """The sum of `x x^T` over all positions, x being the vector of channels at one.

    Attributes:
        count: Number of positions.
        total: `[C, C]`, symmetric.
    """

    count: float
    total: Numbers

    @property
    def empty(self) -> bool:
        """Whether no position was seen."""
        return not self.count

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        return 8 + self.total.nbytes

    def merge(self, other: Gram) -> Gram:
        """The statistic of both sets of samples together."""
        return Gram(self.count + other.count, self.total + other.total)


AnyStatistic = Extremes | Moments | Gram | tuple[Distribution, ...]
"""What `observe` gives for an observable: distributions come one per channel, or one for the whole tensor."""


@dataclasses.dataclass
class Observations(Mapping[Observable, AnyStatistic]):
    """Statistics by observable; what was always an empty tensor is in it, and is empty.

    Attributes:
        found: By observable.
        missing: Values that could not be observed, with the reason.
        samples: How many samples were run.
        available: How many there were.
    """

    found: dict[Observable, AnyStatistic] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    samples: int = 0
    available: int = 0

    def __getitem__(self, observable: Observable) -> AnyStatistic:
        return self.found[observable]

    def __iter__(self) -> Iterator[Observable]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def merge(self, other: Observations) -> Observations:
        """The observations of both sets of samples together, for the same observables."""
        merged: dict[Observable, AnyStatistic] = {}
        for observable, mine in self.found.items():
            theirs = other.found[observable]
            if isinstance(mine, tuple) and isinstance(theirs, tuple):
                merged[observable] = tuple(a.merge(b) for a, b in zip(mine, theirs, strict=True))
            elif not isinstance(mine, tuple) and not isinstance(theirs, tuple):
                merged[observable] = mine.merge(theirs)  # type: ignore[arg-type]
        missing = {**self.missing, **other.missing}
        return Observations(merged, missing, self.samples + other.samples, self.available + other.available)


@dataclasses.dataclass
class Statistics(Mapping[str, MinMax]):
    """The range of every value by name; values that were always empty tensors are not in the mapping.

    Attributes:
        ranges: Range of every observed value, by name.
        missing: Values that could not be observed, with the reason.
        samples: Number of samples they come from.
        observer: How the ranges were taken, as text.
        available: Number of samples there were; more than `samples` if calibration was stopped early.
    """

    ranges: dict[str, MinMax] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    samples: int = 0
    observer: str = "min-max"
    available: int = 0

    def __getitem__(self, value_name: str) -> MinMax:
        found = self.ranges[value_name]
        if found.empty:
            raise KeyError(value_name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name, found in self.ranges.items() if not found.empty)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def to_dict(self) -> dict[str, Any]:
        """JSON- and YAML-ready fields; floats round-trip exactly, and None is the range of what was never seen."""
        return {
            "observer": self.observer,
            "ranges": {name: None if r.empty else [r.low, r.high, r.count] for name, r in self.ranges.items()},
            "missing": dict(self.missing),
            "samples": self.samples,
            "available": self.available,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Statistics:
        """The inverse of `to_dict`."""
        ranges = {
            name: MinMax() if r is None else MinMax(float(r[0]), float(r[1]), int(r[2]))
            for name, r in document.get("ranges", {}).items()
        }
        samples = int(document.get("samples", 0))
        return cls(
            ranges,
            dict(document.get("missing", {})),
            samples,
            str(document.get("observer", "min-max")),
            int(document.get("available", samples)),
        )
