"""Statistics of tensors over samples: monoids, so that order and grouping of the samples do not matter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class StatisticRequest:
    """Asks for one statistic of one value.

    Attributes:
        value_name: The value, by its name in the model.
        kind: "min-max".
    """

    value_name: str
    kind: Literal["min-max"] = "min-max"


@dataclasses.dataclass(frozen=True)
class MinMax:
    """Smallest and largest element seen.

    Attributes:
        low: Smallest; infinity before any element.
        high: Largest; minus infinity before any element.
        count: How many samples contributed.
    """

    low: float = math.inf
    high: float = -math.inf
    count: int = 0

    @property
    def empty(self) -> bool:
        """Whether no element was seen."""
        return self.low > self.high

    def merge(self, other: MinMax) -> MinMax:
        """The statistic of both sets of samples together."""
        return MinMax(min(self.low, other.low), max(self.high, other.high), self.count + other.count)


@dataclasses.dataclass
class Statistics:
    """What a sweep over the data gave.

    Attributes:
        ranges: Min-max by value name.
        missing: Values that could not be observed, with the reason.
        samples: Number of samples of the sweep.
    """

    ranges: dict[str, MinMax] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    samples: int = 0

    def __getitem__(self, value_name: str) -> MinMax:
        return self.ranges[value_name]

    def get(self, value_name: str) -> MinMax | None:
        """The range of a value, or None if it was not observed."""
        found = self.ranges.get(value_name)
        return None if found is None or found.empty else found

    def to_dict(self) -> dict[str, Any]:
        """JSON- and YAML-ready fields; floats round-trip exactly."""
        return {
            "ranges": {name: [r.low, r.high, r.count] for name, r in self.ranges.items() if not r.empty},
            "missing": dict(self.missing),
            "samples": self.samples,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Statistics:
        """The inverse of `to_dict`."""
        ranges = {name: MinMax(float(r[0]), float(r[1]), int(r[2])) for name, r in document.get("ranges", {}).items()}
        return cls(ranges, dict(document.get("missing", {})), int(document.get("samples", 0)))
