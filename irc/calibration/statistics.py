"""Statistics of tensors over samples: monoids, so that order and grouping of the samples do not matter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, Self


@dataclasses.dataclass(frozen=True)
class StatisticRequest:
    """Asks for one statistic of one value.

    Attributes:
        value_name: The value, by its name in the model.
        kind: "min-max".
    """

    value_name: str
    kind: Literal["min-max"] = "min-max"


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
    """Smallest and largest element seen.

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


@dataclasses.dataclass
class Statistics(Mapping[str, MinMax]):
    """What a sweep over the data gave, by value name; values that were always empty tensors are not in the mapping.

    Attributes:
        ranges: Min-max of every observed value, by name.
        missing: Values that could not be observed, with the reason.
        samples: Number of samples of the sweep.
    """

    ranges: dict[str, MinMax] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    samples: int = 0

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
            "ranges": {name: None if r.empty else [r.low, r.high, r.count] for name, r in self.ranges.items()},
            "missing": dict(self.missing),
            "samples": self.samples,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Statistics:
        """The inverse of `to_dict`."""
        ranges = {
            name: MinMax() if r is None else MinMax(float(r[0]), float(r[1]), int(r[2]))
            for name, r in document.get("ranges", {}).items()
        }
        return cls(ranges, dict(document.get("missing", {})), int(document.get("samples", 0)))
