"""Independent evaluations side by side: one thread and one runtime process per worker, results as if there were one.

Models run in the child process of an `irc.runner.Runner`, so threads suffice to use several processors.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from irc.errors import IrcError
from irc.runner import Runner

Candidate = TypeVar("Candidate")
Result = TypeVar("Result")

# Seconds between two attempts to end the processes of an interrupted evaluation, and how many there are.
PAUSE = 0.1
ATTEMPTS = 100


def evaluate(
    candidates: Sequence[Candidate],
    evaluate_one: Callable[[Candidate, Runner], Result],
    *,
    workers: int,
    threads: int | None = 1,
) -> list[Result]:
    """What a function says of every candidate, several at a time.

    The results are the same for any number of workers if the function depends on its arguments only; latencies do not,
    since the evaluations disturb each other.

    Args:
        candidates: What to evaluate.
        evaluate_one: Called from several threads, with a candidate and the runner of the thread.
        workers: How many candidates are evaluated at a time, each with its own process; 1 or more.
        threads: Threads per session of a runner; None for every core. It may change the last digits of what a model
            computes, the number of workers may not.

    Returns:
        The results in the order of the candidates.

    Raises:
        IrcError: If there are fewer workers than 1.
        Exception: What `evaluate_one` raised for the first candidate, in their order, for which it raised.
    """
    if workers < 1:
        raise IrcError(f"{workers} workers evaluate nothing; ask for 1 or more")
    if not candidates:
        return []
    evaluation = _Evaluation(candidates, evaluate_one)
    team = [_Worker(evaluation, threads) for _ in range(min(workers, len(candidates)))]
    try:
        for worker in team:
            worker.start()
        for worker in team:
            worker.ended.wait()
    except BaseException:
        _end(evaluation, team)
        raise
    return evaluation.results()


class _Evaluation(Generic[Candidate, Result]):
    """Candidates handed out in order, up to the first that failed."""

    def __init__(self, candidates: Sequence[Candidate], evaluate_one: Callable[[Candidate, Runner], Result]) -> None:
        self._candidates, self._evaluate_one = candidates, evaluate_one
        self._lock = threading.Lock()
        self._next = 0
        self._end = len(candidates)
        self._results: dict[int, Result] = {}
        self._errors: dict[int, BaseException] = {}

    def work(self, runner: Runner) -> None:
        """Evaluates candidates until none is left."""
        while (index := self._take()) is not None:
            try:
                self._results[index] = self._evaluate_one(self._candidates[index], runner)
            except BaseException as error:
                with self._lock:
                    self._errors[index] = error
                    # What comes before may still fail and count; what comes after cannot.
                    self._end = min(self._end, index)

    def stop(self) -> None:
        """Hands out no more candidates."""
        with self._lock:
            self._end = 0

    def results(self) -> list[Result]:
        """The results in order."""
        if self._errors:
            raise self._errors[min(self._errors)]
        return [self._results[index] for index in range(len(self._candidates))]

    def _take(self) -> int | None:
        with self._lock:
            if self._next >= self._end:
                return None
            self._next += 1
            return self._next - 1


class _Worker(threading.Thread):
    """A thread with its own runner."""

    def __init__(self, evaluation: _Evaluation[Candidate, Result], threads: int | None) -> None:
        # A function that never returns must not keep the interpreter from ending.
        super().__init__(name="irc-evaluation", daemon=True)
        self._evaluate: Callable[[Runner], None] = evaluation.work
        self.runner = Runner(threads=threads)
        # An interrupted join takes a thread for ended that still runs (CPython issue 90882).
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            with self.runner:
                self._evaluate(self.runner)
        finally:
            self.ended.set()


def _end(evaluation: _Evaluation[Candidate, Result], team: Sequence[_Worker]) -> None:
    """Ends the processes under their threads, which then find nothing left to do."""
    evaluation.stop()
    for worker in team:
        if worker.ident is None:
            worker.runner.close()
    started = [worker for worker in team if worker.ident is not None]
    for _ in range(ATTEMPTS):
        running = [worker for worker in started if not worker.ended.is_set()]
        for worker in running:
            # Runner.close waits for the call under way, which is the one to be ended.
            if (pid := worker.runner.process.pid) is not None:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        if not running:
            break
        running[0].ended.wait(PAUSE)
