"""What the runtime process keeps of the activations it sees: histograms and sums, never the activations.

Imports numpy only: the process starts before every build.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irc.runner.counting import WORTH_SHARING, Counters, CountingProcess, Task, split
from irc.runner.histogram import Histogram

Array = np.ndarray[Any, Any]
Largest = dict[str, tuple[int, int]]
"""By output, the largest float16 codes of numbers of either sign, without the sign; -1 where there is none."""


_SIGN = 0x8000


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
    _counters: Counters = dataclasses.field(default_factory=Counters)

    def largest_codes(self) -> Largest:
        """The largest magnitudes among the codes that wait."""
        found = {}
        for name, array in self.waiting.items():
            if array.dtype != np.float16:
                continue
            # As uint16 a negative number is above all others; without one a look at int16 would see the same.
            largest = int(array.view(np.uint16).max(initial=0))
            if largest < _SIGN:
                found[name] = (largest if array.size else -1, -1)
            else:
                found[name] = (max(int(array.view(np.int16).max()), -1), largest - _SIGN)
        return found

    def take(self, exponents: Mapping[str, int], helpers: Sequence[CountingProcess] = ()) -> None:
        """Adds what waits.

        Args:
            exponents: Of the scales of the outputs that are codes, `[1, n]` or `[C, n]`; the other outputs are summed.
            helpers: Processes that count a share; they may still do so when this returns.
        """
        tasks: list[Task] = []
        for name, array in self.waiting.items():
            if name in exponents:
                tasks.append((name, array.view(np.uint16), exponents[name]))
            else:
                self.sums[name] = self.sums[name] + array if name in self.sums else array.astype(np.float64)
        if sum(codes.size for _, codes, _ in tasks) < WORTH_SHARING:
            helpers = ()
        mine, *others = split(tasks, len(helpers))
        for helper, share in zip(helpers, others, strict=True):
            helper.count(share)
        for name, codes, exponent in mine:
            self._counters.add(name, codes, exponent)
        self.waiting = {}

    def finished(self, helpers: Sequence[CountingProcess] = ()) -> Observation:
        """The same with all codes counted, also those that helpers took."""
        parts = [self._counters.histograms(), *(helper.histograms() for helper in helpers)]
        for part in parts:
            for name, found in part.items():
                known = self.histograms.get(name)
                merged = found if known is None else [a.merge(b) for a, b in zip(known, found, strict=True)]
                self.histograms[name] = merged
        self._counters = Counters()
        self.waiting = {}
        return self
