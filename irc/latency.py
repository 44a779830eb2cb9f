"""Measured latency of one model against another: alternating single runs, medians, an interval of the ratio.

Machines are noisy and drift; a ratio of neighbours in time does not. Every round runs both models on the same feed, in
alternating order; the speed-up is the ratio of the medians and its interval is bootstrapped over rounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from irc.runner import Feed, Opened, Runner

RESAMPLES = 400


@dataclasses.dataclass(frozen=True)
class Timing:
    """Latency of one model.

    Attributes:
        median_ms: Median of the single runs, in milliseconds.
        low_ms: Lower quartile.
        high_ms: Upper quartile.
        runs: Number of timed runs.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Timing:
        """Summarizes single runs."""
        low, median, high = np.quantile(milliseconds, [0.25, 0.5, 0.75])
        return cls(float(median), float(low), float(high), len(milliseconds))


@dataclasses.dataclass(frozen=True)
class LatencyComparison:
    """The original and the artifact, side by side.

    Attributes:
        original: Timing of the original.
        artifact: Timing of the artifact.
        speedup: Ratio of the medians, above 1 when the artifact is faster.
        low: Lower end of the 95 % interval of the ratio.
        high: Upper end.
        batch: Batch size of the feeds.
        threads: Threads of the runtime; None for its default.
    """

    original: Timing
    artifact: Timing
    speedup: float
    low: float
    high: float
    batch: int | None
    threads: int | None

    def slower_than(self, factor: float) -> bool:
        """Whether the speed-up is below `factor` beyond doubt: the whole interval is, by more than 2 %."""
        return self.high < factor and self.speedup < 0.98 * factor

    def describe(self) -> str:
        """The speed-up in words: "1.83x (1.79 to 1.88)"."""
        return f"{self.speedup:.2f}x ({self.low:.2f} to {self.high:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return dataclasses.asdict(self)


def compare_latency(
    runner: Runner,
    original: Opened,
    artifact: Opened,
    feeds: Sequence[Feed],
    *,
    seconds: float = 2.0,
    batch: int | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> LatencyComparison:
    """Times two open models against each other.

    Args:
        runner: Where both are open.
        original: The baseline.
        artifact: The candidate.
        feeds: Used in turn.
        seconds: Time to spend.
        batch: For the record.
        threads: For the record.
        seed: Seed of the bootstrap.
    """
    times = np.asarray(runner.latency([original, artifact], feeds, seconds=seconds, rounds=3000))
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, times.shape[1], (RESAMPLES, times.shape[1]))
    ratios = np.median(times[0][picks], axis=1) / np.median(times[1][picks], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    speedup = float(np.median(times[0]) / np.median(times[1]))
    return LatencyComparison(
        Timing.of(times[0]), Timing.of(times[1]), speedup, float(low), float(high), batch, threads
    )


def batched(feed: Feed, batch: int) -> Feed:
    """A feed repeated along axis 0 until it has `batch` rows; arrays without axes stay."""
    result = {}
    for name, array in feed.items():
        if array.ndim == 0 or array.shape[0] == 0:
            result[name] = array
            continue
        repeats = -(-batch // array.shape[0])
        result[name] = np.concatenate([array] * repeats)[:batch]
    return result
