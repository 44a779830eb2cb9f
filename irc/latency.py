"""Measured latency of models against each other: single runs in turns, paired ratios, an interval of the ratio.

Machines are noisy and drift; a ratio of neighbours in time does not. Every round runs all models on the same feed, in
alternating order. The latency of a model on one feed is the median of its runs; on several feeds, which may differ in
size, the mean of these medians.

The ratio of two models on one feed is taken in blocks of twelve neighbouring rounds: the lower quartile of the runs of
one model over that of the other, since other work on the machine slows single runs by any factor and leaves some alone,
for either model. It is the median of the quieter half of the blocks, where both together are fast. Its interval is a
bootstrap over groups of neighbouring blocks, which keeps together what one disturbance has slowed down (Kuensch 1989,
Annals of Statistics 17(3)).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from irc.runner import Feed, Opened, Runner

RESAMPLES = 1000
BLOCKS = 40
BLOCK_ROUNDS = 12
LEAST_BLOCKS = 8
"""Blocks are smaller where there would be fewer: the interval needs them."""
QUIET_QUANTILE = 0.25
QUIET_SHARE = 0.5
SECONDS_PER_MODEL = 3.0
Times = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Latency of one model.

    Attributes:
        median_ms: Median of the single runs, in milliseconds (mean over feeds of the medians).
        low_ms: Lower quartile, likewise.
        high_ms: Upper quartile, likewise.
        runs: Number of timed runs.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int

    @classmethod
    def of(cls, milliseconds: Sequence[float] | Times, *, feeds: int = 1) -> Timing:
        """Summarizes single runs, run r being on feed r modulo `feeds`."""
        sweeps = np.asarray(milliseconds, dtype=np.float64).reshape(-1, feeds)
        low, median, high = np.quantile(sweeps, [0.25, 0.5, 0.75], axis=0).mean(axis=1)
        return cls(float(median), float(low), float(high), sweeps.size)

    def joined(self, other: Timing) -> Timing:
        """The means of two measurements of the same model."""
        return Timing(
            (self.median_ms + other.median_ms) / 2,
            (self.low_ms + other.low_ms) / 2,
            (self.high_ms + other.high_ms) / 2,
            self.runs + other.runs,
        )

    def describe(self) -> str:
        """Median and quartiles in words: "1.83 ms (1.79 to 1.90)"."""
        return f"{self.median_ms:.3g} ms ({self.low_ms:.3g} to {self.high_ms:.3g})"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio of latencies with its 95 % interval.

    Attributes:
        value: Median ratio of the blocks.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


class Measured:
    """Models timed in turns.

    Args:
        times: Milliseconds of single runs, [models, sweeps, feeds].
        seed: Seed of the bootstrap.

    Attributes:
        timings: One per model.
    """

    def __init__(self, times: Times, *, seed: int = 0) -> None:
        self._times, self._seed = times, seed
        self.timings = tuple(Timing.of(one, feeds=times.shape[2]) for one in times)

    def ratio(self, numerator: int, denominator: int) -> Ratio:
        """Latency of one model over another's, above 1 when the second is faster.

        Args:
            numerator: Index of a model.
            denominator: Index of the other.
        """
        a, b = np.log(self._times[numerator]), np.log(self._times[denominator])
        # How much each feed counts: the geometric mean of both latencies, so that the inverse ratio is the inverse.
        weights = np.exp((np.median(a, axis=0) + np.median(b, axis=0)) / 2)
        picked = [_block_ratios(a[:, feed], b[:, feed]) for feed in range(a.shape[1])]
        value = _combined(np.array([[np.median(ratios)] for ratios in picked]), weights)[0]
        resampled = _combined(np.stack([self._resampled(ratios) for ratios in picked]), weights)
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Ratio(float(value), min(float(low), float(value)), max(float(high), float(value)))

    def _resampled(self, ratios: Times) -> Times:
        """Bootstrapped medians of values in order of time, [RESAMPLES]."""
        blocks = np.array_split(ratios, min(BLOCKS, len(ratios)))
        medians = np.array([np.median(block) for block in blocks])
        picks = np.random.default_rng(self._seed).integers(0, len(blocks), (RESAMPLES, len(blocks)))
        result: Times = np.median(medians[picks], axis=1)
        return result


def _block_ratios(a: Times, b: Times) -> Times:
    """Logarithms of a / b, one per block of neighbouring rounds, in order of time; a and b are logarithms, [rounds]."""
    size = min(BLOCK_ROUNDS, len(a) // LEAST_BLOCKS // 2 * 2)
    if size < 2:
        return a - b
    blocks = len(a) // size
    # Half of the rounds in each order: who runs second finds the caches otherwise.
    grouped = (one[: blocks * size].reshape(blocks, size // 2, 2) for one in (a, b))
    a, b = (np.quantile(one, QUIET_QUANTILE, axis=1).mean(axis=1) for one in grouped)
    quiet = np.sort(np.argsort(a + b, kind="stable")[: max(math.ceil(QUIET_SHARE * blocks), LEAST_BLOCKS)])
    result: Times = (a - b)[quiet]
    return result


def _combined(ratios: Times, weights: Times) -> Times:
    """Ratios of total latency from the logarithms of ratios per feed, [feeds, n] to [n]."""
    half = np.exp(ratios / 2)
    result: Times = (weights @ half) / (weights @ (1 / half))
    return result


def measure(
    runner: Runner,
    models: Sequence[Opened],
    feeds: Sequence[Feed],
    *,
    seconds_per_model: float = SECONDS_PER_MODEL,
    max_rounds: int = 5000,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Measured:
    """Times open models against each other.

    Args:
        runner: Where they are open.
        models: Any number.
        feeds: Used in turn.
        seconds_per_model: Time to spend, warm-up not counted; five rounds are made however long they take.
        max_rounds: Rounds after which tiny models are known well enough.
        seed: Seed of the bootstrap.
        progress: Told the share done, about twice a second.

    Raises:
        RunnerError: If a model cannot run a feed.
    """
    times = runner.latency(
        models, feeds, seconds=seconds_per_model * len(models), max_rounds=max_rounds, progress=progress
    )
    return Measured(np.asarray(times).reshape(len(models), -1, len(feeds)), seed=seed)


@dataclasses.dataclass(frozen=True)
class LatencyComparison:
    """The original and the artifact, side by side.

    Attributes:
        original: Timing of the original.
        artifact: Timing of the artifact.
        speedup: Ratio of the latencies of neighbouring runs, above 1 when the artifact is faster; near the ratio of the
            medians, which a disturbance of one model alone would shift.
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

    def joined(self, other: LatencyComparison) -> LatencyComparison:
        """Both measurements as one: the mean of the speed-ups, and an interval that spans both.

        On a busy machine one of two equal sessions may be slow for as long as it lives, which no number of runs shows.
        """
        return LatencyComparison(
            self.original.joined(other.original),
            self.artifact.joined(other.artifact),
            math.sqrt(self.speedup * other.speedup),
            min(self.low, other.low),
            max(self.high, other.high),
            self.batch,
            self.threads,
        )

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
    seconds: float = 2 * SECONDS_PER_MODEL,
    batch: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> LatencyComparison:
    """Times two open models against each other.

    Args:
        runner: Where both are open.
        original: The baseline.
        artifact: The candidate.
        feeds: Used in turn.
        seconds: Time to spend on both together.
        batch: For the record.
        threads: For the record.
        seed: Seed of the bootstrap.
        progress: Told the share done, about twice a second.

    Raises:
        RunnerError: If a model cannot run a feed.
    """
    measured = measure(runner, [original, artifact], feeds, seconds_per_model=seconds / 2, seed=seed, progress=progress)
    ratio = measured.ratio(0, 1)
    first, second = measured.timings
    return LatencyComparison(first, second, ratio.value, ratio.low, ratio.high, batch, threads)


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
