"""Counting in processes: the same counts, whoever counts, and no process left behind."""

import os
import time

import numpy as np
import pytest

from irc.runner import counting
from irc.runner.counting import Counters, CountingProcess, helpers_that_pay, split
from irc.runner.observation import Observation

needs_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no anonymous shared memory")


def codes(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16).view(np.uint16)


def plain(histograms):
    return {
        name: [
            (h.positive.first, h.positive.counts.tolist(), h.negative.first, h.negative.counts.tolist(), h.small)
            for h in found
        ]
        for name, found in histograms.items()
    }


@needs_memory
def test_a_process_counts_what_counters_count():
    tasks = [("a", codes(1, 5000), 0), ("b", codes(3, 700, seed=1), 2), ("c", codes(1, 0), 0)]
    process, counters = CountingProcess(), Counters()
    for round_ in range(3):
        grown = [(name, np.tile(array, (1, round_ + 1)), exponent) for name, array, exponent in tasks]
        process.count(grown)
        for task in grown:
            counters.add(*task)
    assert plain(process.histograms()) == plain(counters.histograms())
    assert process.histograms() == {}


@needs_memory
def test_what_was_handed_over_may_be_overwritten():
    process, counters = CountingProcess(), Counters()
    array = codes(1, 1 << 20)
    counters.add("a", array, 0)
    process.count([("a", array, 0)])
    array[:] = 0
    assert plain(process.histograms()) == plain(counters.histograms())


@needs_memory
def test_observations_do_not_depend_on_who_counts(monkeypatch):
    monkeypatch.setattr(counting, "WORTH_SHARING", 0)
    monkeypatch.setattr("irc.runner.observation.WORTH_SHARING", 0)
    alone, shared, helpers = Observation(), Observation(), [CountingProcess(), CountingProcess()]
    for seed in range(4):
        # Sizes change from run to run, so that a value is counted here once and there once.
        arrays = {f"v{i}": codes(1 + i % 2, 100 * (1 + (i + seed) % 5), seed=seed).view(np.float16) for i in range(7)}
        for one, who in ((alone, ()), (shared, helpers)):
            one.waiting = dict(arrays)
            one.take(dict.fromkeys(arrays, seed % 2), who)
    found, expected = plain(shared.finished(helpers).histograms), plain(alone.finished().histograms)
    assert found == expected


def test_parts_are_about_equal():
    tasks = [(f"t{i}", codes(1, size), 0) for i, size in enumerate([900, 100, 500, 400, 100])]
    assert [sum(array.size for _, array, _ in part) for part in split(tasks, 1)] == [1000, 1000]
    assert [len(part) for part in split(tasks, 0)] == [5]


def test_no_helper_for_one_thread(monkeypatch):
    assert helpers_that_pay(1) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert helpers_that_pay(None) in (0, counting.MOST_PROCESSES) and helpers_that_pay(2) <= 1


@needs_memory
def test_it_ends_when_its_owner_is_gone_and_says_when_it_died_itself():
    process = CountingProcess()
    process.count([("a", codes(1, 10), 0)])
    process.wait()
    child = process._child
    child.stdin.close()
    assert child.wait(timeout=10) == 0
    dead = CountingProcess()
    dead._child.kill()
    dead._child.wait()
    with pytest.raises(RuntimeError, match="the process that counts died"):
        dead.count([("a", codes(1, 10), 0)])
        time.sleep(0.1)
        dead.histograms()
