"""Single runs of several models, timed in turns, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

Run = Callable[[Any], object]
WARMUP_SHARE = 0.1
WARMUP_SECONDS = 0.3
REPORTS_PER_SECOND = 2.0


def take_turns(
    runs: Sequence[Run],
    feeds: Sequence[Any],
    *,
    seconds: float,
    min_rounds: int,
    max_rounds: int,
    report: Callable[[float], None],
) -> list[list[float]]:
    """Milliseconds of single runs, one list per model; round r uses feed r modulo the number of feeds.

    A round runs every model once, in an order that is reversed from round to round. The time is spent in whole sweeps
    over the feeds.

    Args:
        runs: One callable per model.
        feeds: Inputs.
        seconds: Time to spend on timed runs, warm-up not counted.
        min_rounds: At least this many rounds, however long they take (rounded up to whole sweeps).
        max_rounds: At most this many.
        report: Told the share done, now and then.
    """
    order = list(range(len(runs)))
    _warm_up(runs, feeds, min(WARMUP_SHARE * seconds, WARMUP_SECONDS))
    times: list[list[float]] = [[] for _ in runs]
    sweeps = -(-min_rounds // len(feeds)), max(-(-max_rounds // len(feeds)), 1)
    clock = time.perf_counter
    collecting = gc.isenabled()
    gc.disable()
    try:
        begin = last = clock()
        done = 0
        while done < sweeps[1]:
            for feed in feeds:
                for i in order:
                    start = clock()
                    runs[i](feed)
                    times[i].append((clock() - start) * 1e3)
                order.reverse()
            if len(feeds) % 2 == 0:
                # Otherwise a feed would meet the models in the same order in every sweep.
                order.reverse()
            done += 1
            now = clock()
            if now - begin >= seconds and done >= sweeps[0]:
                break
            if now - last > 1 / REPORTS_PER_SECOND:
                last = now
                report(min(done / sweeps[0], max((now - begin) / seconds, done / sweeps[1]), 1.0))
    finally:
        if collecting:
            gc.enable()
    return times


def _warm_up(runs: Sequence[Run], feeds: Sequence[Any], seconds: float) -> None:
    """Runs every model on every feed (on the first only, if that already takes the time), then until time is up."""
    begin = time.perf_counter()
    first = True
    while first or time.perf_counter() - begin < seconds:
        for index, feed in enumerate(feeds):
            if index and time.perf_counter() - begin > 2 * seconds:
                return
            for run in runs:
                run(feed)
        first = False
