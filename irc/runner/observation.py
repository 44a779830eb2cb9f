"""What the runtime process keeps of the activations it sees: histograms and sums, never the activations.

Imports numpy only: the process starts before every build.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from irc.runner.histogram import Codes, Counter, Histogram

Array = np.ndarray[Any, Any]
Largest = dict[str, tuple[int, int]]
"""By output, the largest float16 codes of numbers of either sign, without the sign; -1 where there is none."""


@dataclasses.dataclass
class Observation:
    """Accumulators by the name of the output that feeds them.

    Attributes:
        waiting: Outputs of the last run that were not taken yet; float16 ones are codes.
        histograms: By output; one per channel where the codes have a row per channel.
        sums: By output, in double precision.
    """

    waiting: dict[str, Array] = dataclasses.field(default_factory=dict)
    histograms: dict[str, list[Histogram]] = dataclasses.field(default_factory=dict)
    sums: dict[str, Array] = dataclasses.field(default_factory=dict)
    _counters: dict[str, list[Counter]] = dataclasses.field(default_factory=dict)

    def largest_codes(self) -> Largest:
        """The largest magnitudes among the codes that wait."""
        found = {}
        for name, array in self.waiting.items():
            if array.dtype != np.float16:
                continue
            # As int16 a positive number is its code, as uint16 a negative one is above all others.
            positive = int(array.view(np.int16).max(initial=-1))
            negative = int(array.view(np.uint16).max(initial=0)) - 0x8000
            found[name] = (max(positive, -1), max(negative, -1))
        return found

    def take(self, exponents: Mapping[str, int]) -> None:
        """Adds what waits.

        Args:
            exponents: Of the scales of the outputs that are codes, `[1, n]` or `[C, n]`; the other outputs are summed.
        """
        for name, array in self.waiting.items():
            if name not in exponents:
                self.sums[name] = self.sums[name] + array if name in self.sums else array.astype(np.float64)
                continue
            codes: Codes = array.view(np.uint16)
            counters = self._counters.setdefault(name, [Counter() for _ in range(len(codes))])
            for counter, row in zip(counters, codes, strict=True):
                counter.add(row, exponents[name])
        self.waiting = {}

    def finished(self) -> Observation:
        """The same with all codes counted."""
        self.histograms = {name: [c.histogram() for c in counters] for name, counters in self._counters.items()}
        self._counters = {}
        self.waiting = {}
        return self
