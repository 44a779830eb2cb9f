"""Counting codes in processes of their own, beside the runtime process: counting holds the interpreter, so threads do not help.

A counting process shares a block of memory with the runtime process, which copies codes into it, and says what lies where; it
counts them and keeps the histograms until it is asked for them. It ends when its input closes. Where the system has no
anonymous shared memory, or one core, everything is counted by whoever asks.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from irc.runner.histogram import Codes, Counter, Histogram
from irc.runner.protocol import ConnectionClosed, Reader, Writer, receive, send

MOST_PROCESSES = 3
WORTH_SHARING = 1 << 20
"""Fewer codes than this are counted faster than they are handed over."""

Task = tuple[str, Codes, int]
"""Name, codes `[rows, n]`, exponent of their scale."""


def helpers_that_pay(threads: int | None) -> int:
    """How many counting processes there should be: none where the runtime is to use one core."""
    if not hasattr(os, "memfd_create"):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores - 1, (threads or cores) - 1, MOST_PROCESSES)


class Counters:
    """Counters by name, one per row of codes."""

    def __init__(self) -> None:
        self._counters: dict[str, list[Counter]] = {}

    def add(self, name: str, codes: Codes, exponent: int) -> None:
        """Counts codes."""
        counters = self._counters.setdefault(name, [Counter() for _ in range(len(codes))])
        for counter, row in zip(counters, codes, strict=True):
            counter.add(row, exponent)

    def histograms(self) -> dict[str, list[Histogram]]:
        """Everything counted so far."""
        return {name: [counter.histogram() for counter in counters] for name, counters in self._counters.items()}


class CountingProcess:
    """A process that counts; started at once."""

    def __init__(self) -> None:
        self._memory = os.memfd_create("irc-codes")
        self._map: mmap.mmap | None = None
        self._busy = False
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from irc.runner.counting import main; main({self._memory})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=(self._memory,),
        )

    def count(self, tasks: Sequence[Task]) -> None:
        """Hands codes over and returns while they are being counted."""
        self.wait()
        size = sum(codes.nbytes for _, codes, _ in tasks)
        if self._map is None or len(self._map) < size:
            os.ftruncate(self._memory, size)
            self._map = mmap.mmap(self._memory, size)
        shared = np.frombuffer(self._map, np.uint16)
        layout, offset = [], 0
        for name, codes, exponent in tasks:
            shared[offset : offset + codes.size] = codes.reshape(-1)
            layout.append((name, offset, codes.shape, exponent))
            offset += codes.size
        self._ask(("count", layout))

    def wait(self) -> Any:
        """Waits until the last request is answered."""
        if not self._busy:
            return None
        self._busy = False
        try:
            return receive(cast(Reader, self._child.stdout))
        except ConnectionClosed as error:
            raise RuntimeError(f"the process that counts died with exit code {self._child.wait()}") from error

    def histograms(self) -> dict[str, list[Histogram]]:
        """Everything counted so far; forgotten there."""
        self.wait()
        self._ask(("histograms", None))
        found: dict[str, list[Histogram]] = self.wait()
        return found

    def _ask(self, request: Any) -> None:
        try:
            send(cast(Writer, self._child.stdin), request)
        except BrokenPipeError as error:
            raise RuntimeError(f"the process that counts died with exit code {self._child.wait()}") from error
        self._busy = True


def split(tasks: Sequence[Task], helpers: int) -> list[list[Task]]:
    """Tasks in parts of about equal size, the first for whoever asks."""
    groups: list[list[Task]] = [[] for _ in range(1 + helpers)]
    loads = [0] * len(groups)
    for task in sorted(tasks, key=lambda t: (-t[1].size, t[0])):
        least = loads.index(min(loads))
        groups[least].append(task)
        loads[least] += task[1].size
    return groups


def main(memory: int) -> None:
    """Serves requests until the input closes."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    counters = Counters()
    shared: Codes = np.zeros(0, np.uint16)
    try:
        while True:
            method, layout = receive(requests)
            if method == "histograms":
                send(answers, counters.histograms())
                counters = Counters()
                continue
            size = os.fstat(memory).st_size
            if shared.nbytes < size:
                shared = np.frombuffer(mmap.mmap(memory, size, access=mmap.ACCESS_READ), np.uint16)
            for name, offset, shape, exponent in layout:
                count = int(np.prod(shape, dtype=np.int64))
                counters.add(name, shared[offset : offset + count].reshape(shape), exponent)
            send(answers, "counted")
    except (ConnectionClosed, BrokenPipeError):
        return
