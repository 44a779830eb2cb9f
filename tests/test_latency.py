"""Latency: the right ratio on a noisy machine, intervals that cover, time that is bounded."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
from runner_models import affine, dense

from irc.errors import RunnerError
from irc.latency import LatencyComparison, Measured, Timing, batched, compare_latency, measure
from irc.runner import Runner, stopwatch
from irc.runner.stopwatch import take_turns


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(threads=1) as runner:
        yield runner


def simulated(ratio: float, seed: int, *, sweeps: int = 400, feeds: int = 2) -> np.ndarray:
    """Two models on a machine with jitter, spikes, a slow phase that hits both, and feeds of different size."""
    random = np.random.default_rng(seed)
    size = np.array([1.0, 5.0][:feeds])
    base = np.stack([np.full((sweeps, feeds), ratio), np.ones((sweeps, feeds))]) * size
    jitter = 1 + 0.02 * random.standard_exponential(base.shape)
    spikes = np.where(random.random(base.shape) < 0.05, 4.0, 1.0)
    phase = np.ones(sweeps)
    begin = random.integers(0, sweeps)
    phase[begin : begin + sweeps // 3] = 1.6
    return base * jitter * spikes * phase[None, :, None]


def test_intervals_cover_the_truth_under_disturbance() -> None:
    covered = widths = 0.0
    for seed in range(60):
        ratio = Measured(simulated(1.5, seed)).ratio(0, 1)
        assert ratio.low <= ratio.value <= ratio.high
        covered += ratio.low <= 1.5 <= ratio.high
        widths += ratio.high - ratio.low
    assert covered >= 0.9 * 60
    assert widths / 60 < 0.05


def test_other_work_on_the_machine_that_slows_one_model_more_does_not_move_the_ratio() -> None:
    """Two threads suffer where one does not: unpaired medians said 2.6x (2.5 to 10.2) here."""
    covered = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        times = simulated(2.5, seed)
        busy = np.repeat(random.random(40) < 0.4, 10)
        times[0, busy] *= random.uniform(2, 6, (busy.sum(), 2))
        times[1, busy] *= random.uniform(1, 2, (busy.sum(), 2))
        ratio = Measured(times).ratio(0, 1)
        assert ratio.value == pytest.approx(2.5, rel=0.05)
        assert ratio.high - ratio.low < 0.5
        covered += ratio.low <= 2.5 <= ratio.high
    assert covered >= 0.85 * 40


def test_the_order_within_a_round_does_not_decide_which_rounds_are_quiet() -> None:
    """The second model of a round pays for what the first has evicted, the larger one more."""
    times = np.ones((2, 400, 1))
    times[0, 0::2], times[1, 0::2] = 1.30, 1.00
    times[0, 1::2], times[1, 1::2] = 1.00, 1.10
    times *= 1 + 0.01 * np.random.default_rng(0).standard_exponential(times.shape)
    assert Measured(times).ratio(0, 1).value == pytest.approx(np.sqrt(1.30 / 1.10), rel=0.01)


@pytest.mark.parametrize("sweeps", [5, 10, 20, 40, 400])
def test_equal_models_are_hardly_ever_called_slower(sweeps: int) -> None:
    timing, wrong = Timing(1.0, 1.0, 1.0, 10), 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        busy = (np.arange(sweeps) // max(sweeps // 10, 1))[:, None] % 3 == 0
        times = 1 + 0.05 * random.standard_exponential((2, sweeps, 2))
        times *= np.where(busy, random.uniform(1, 4, times.shape), 1)
        ratio = Measured(times).ratio(0, 1)
        wrong += LatencyComparison(timing, timing, ratio.value, ratio.low, ratio.high, 1, None).slower_than(1.0)
    assert wrong <= 5


def test_medians_ignore_spikes_and_feeds_of_different_size_do_not_mix() -> None:
    times = simulated(1.0, 0)
    timing = Timing.of(times[1].reshape(-1), feeds=2)
    assert timing.median_ms == pytest.approx(3.0, rel=0.1), "mean of the medians 1 and 5"
    assert timing.low_ms <= timing.median_ms <= timing.high_ms
    assert timing.runs == 800
    assert Measured(times).timings[1] == timing


def test_ratios_are_reciprocal_and_seeded() -> None:
    measured = Measured(simulated(2.0, 3))
    there, back = measured.ratio(0, 1), measured.ratio(1, 0)
    assert there.value * back.value == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1, rel=0.01)
    assert measured.ratio(0, 1) == there
    assert measured.ratio(0, 0).low == measured.ratio(0, 0).high == 1.0


def test_few_sweeps_are_enough_for_an_interval() -> None:
    ratio = Measured(np.array([[[2.0], [2.2], [2.1], [2.0], [9.0]], [[1.0], [1.1], [1.0], [1.0], [1.0]]])).ratio(0, 1)
    assert ratio.value == pytest.approx(2.0) and ratio.low <= ratio.value < ratio.high


class Clocked:
    """Pretends to take its time, and notes who ran when on what."""

    def __init__(self, name: str, log: list[tuple[str, object]], seconds: float = 0.0) -> None:
        self.name, self.log, self.seconds = name, log, seconds

    def __call__(self, feed: object) -> None:
        self.log.append((self.name, feed))
        time.sleep(self.seconds)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_models_take_turns_in_both_orders_on_every_feed(count: int) -> None:
    log: list[tuple[str, object]] = []
    runs = [Clocked(name, log) for name in "ABC"]
    times = take_turns(runs, list(range(count)), seconds=0, min_rounds=8, max_rounds=8, report=lambda share: None)
    rounds = -(-8 // count) * count
    assert [len(t) for t in times] == [rounds] * 3
    timed = log[-3 * rounds :]
    orders: dict[object, set[str]] = {}
    for start in range(0, len(timed), 3):
        turn = timed[start : start + 3]
        assert len({feed for _, feed in turn}) == 1
        orders.setdefault(turn[0][1], set()).add("".join(name for name, _ in turn))
    assert all(found == {"ABC", "CBA"} for found in orders.values())
    assert [feed for _, feed in timed[::3]] == [i % count for i in range(rounds)]
    assert len(log) > len(timed), "warm-up is not timed"


def test_time_bounds_the_rounds_of_fast_models_and_five_rounds_are_made_of_slow_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    shares: list[float] = []
    fast = take_turns([Clocked("A", [], 0.001)], [0], seconds=1.2, min_rounds=5, max_rounds=10**6, report=shares.append)
    assert 1.2 < now[0] < 2.5
    assert 1190 < len(fast[0]) < 1210
    assert fast[0] == pytest.approx([1.0] * len(fast[0]))
    assert shares and shares == sorted(shares) and shares[0] > 0 and shares[-1] <= 1
    slow = take_turns(
        [Clocked("A", [], 0.05)], [0, 1], seconds=0.01, min_rounds=5, max_rounds=100, report=lambda s: None
    )
    assert len(slow[0]) == 6
    many = take_turns(
        [Clocked("A", [], 0.001)], [0, 1], seconds=100, min_rounds=5, max_rounds=50, report=lambda s: None
    )
    assert len(many[0]) == 50


def test_a_slower_model_is_measured_as_slower(runner: Runner) -> None:
    feeds = [{"x": np.ones((8, 256), np.float32)}]
    small, large = runner.open(dense(256, depth=2)), runner.open(dense(256, depth=20))
    shares: list[float] = []
    found = compare_latency(runner, large, small, feeds, seconds=1.5, batch=8, threads=1, progress=shares.append)
    assert found.speedup > 2 and found.low > 1
    assert found.original.median_ms > found.artifact.median_ms > 0
    assert found.original.runs == found.artifact.runs >= 5
    assert not found.slower_than(1.0)
    assert (found.batch, found.threads) == (8, 1)
    assert json.loads(json.dumps(found.to_dict()))["original"]["runs"] == found.original.runs
    assert found.describe().startswith(f"{found.speedup:.2f}x (")


def test_any_number_of_models(runner: Runner) -> None:
    models = [runner.open(affine(scale)) for scale in (1.0, 2.0, 3.0)]
    measured = measure(runner, models, [{"x": np.ones(10, np.float32)}], seconds_per_model=0.1)
    assert len(measured.timings) == 3
    assert measured.ratio(0, 2).low < 1.5


def test_errors_of_a_model_are_said(runner: Runner) -> None:
    opened = runner.open(affine())
    with pytest.raises(RunnerError, match="expected"):
        measure(runner, [opened, opened], [{"x": np.ones(3)}])
    with pytest.raises(RunnerError, match="needs models and feeds"):
        measure(runner, [opened], [])


def test_doubt_is_not_slowness() -> None:
    timing = Timing(1.0, 1.0, 1.0, 10)
    make = lambda speedup, low, high: LatencyComparison(timing, timing, speedup, low, high, 1, None)  # noqa: E731
    assert make(0.90, 0.88, 0.92).slower_than(1.0)
    assert not make(0.99, 0.985, 0.995).slower_than(1.0), "within 2 %"
    assert not make(0.90, 0.75, 1.05).slower_than(1.0), "the interval reaches 1"


def test_batched_repeats_rows_and_keeps_scalars() -> None:
    feed = {"x": np.arange(6).reshape(3, 2), "flag": np.array(True), "none": np.zeros((0, 2))}
    found = batched(feed, 4)
    assert found["x"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    assert found["flag"].shape == () and found["none"].shape == (0, 2)
    assert batched(feed, 2)["x"].tolist() == [[0, 1], [2, 3]]


def test_two_measurements_are_one_whose_interval_spans_both() -> None:
    """Of two equal sessions one may be slow for as long as it lives: measured in both orders, they come out equal."""
    timing = Timing(2.0, 1.5, 3.0, 10)
    slow = LatencyComparison(timing, Timing(4.0, 3.5, 5.0, 10), 0.5, 0.49, 0.51, 1, None)
    fast = LatencyComparison(Timing(4.0, 3.5, 5.0, 6), timing, 2.0, 1.9, 2.1, 1, None)
    both = slow.joined(fast)
    assert slow.slower_than(1.0) and not both.slower_than(1.0)
    assert (both.speedup, both.low, both.high) == (1.0, 0.49, 2.1)
    assert both.original == Timing(3.0, 2.5, 4.0, 16) and both.artifact.runs == 20
