"""Evaluations side by side: the same results for any number of workers, the first error, no process left behind."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from runner_models import affine, endless

from irc.errors import IrcError, RunnerError
from irc.search import evaluate

FEED = {"x": np.arange(4, dtype=np.float32)}


def run_affine(scale, runner):
    with runner.open(affine(scale)) as model:
        return model.run(FEED)["y"].tobytes(), runner.process.pid


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_results_in_order(workers):
    scales = [float(i) for i in range(9)]
    found = evaluate(scales, run_affine, workers=workers)
    assert [y for y, _ in found] == [(scale * FEED["x"] + 1).tobytes() for scale in np.float32(scales)]
    assert 1 <= len({pid for _, pid in found}) <= workers


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_error_of_the_first_in_order_is_raised(workers):
    later_failed = threading.Event()

    def fail(candidate, runner):
        if candidate == 2 and workers > 1:
            assert later_failed.wait(10)
        if candidate >= 2:
            later_failed.set() if candidate == 3 else None
            raise RunnerError(f"candidate {candidate}")
        return candidate

    with pytest.raises(RunnerError, match="candidate 2"):
        evaluate(range(6), fail, workers=workers)


def test_nothing_after_a_failure_is_started():
    seen = []

    def fail(candidate, runner):
        seen.append(candidate)
        if candidate == 1:
            raise ValueError
        return candidate

    with pytest.raises(ValueError):
        evaluate(range(100), fail, workers=1)
    assert seen == [0, 1]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_ctrl_c_ends_the_processes():
    pids, running = [], threading.Barrier(3)

    def run_forever(candidate, runner):
        with runner.open(endless()) as model:
            pids.append(runner.process.pid)
            running.wait(30)
            model.run({"turns": np.array(2**60), "x": FEED["x"]})

    def interrupt():
        running.wait(30)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        evaluate(range(8), run_forever, workers=2)
    assert len(pids) == 2 and all(gone(pid) for pid in pids)


def test_nothing_to_evaluate_needs_no_process():
    assert evaluate([], run_affine, workers=4) == []
    with pytest.raises(IrcError, match="0 workers"):
        evaluate([1.0], run_affine, workers=0)
