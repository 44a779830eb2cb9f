"""The runtime process: opens models in ONNX Runtime and runs them on request.

Started by `irc.runner.process` as `python -m irc.runner.worker FOLDER`. It ends when its input closes or its
parent is gone, and then removes the folder that the parent can no longer remove.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irc.runner.counting import CountingProcess, helpers_that_pay
from irc.runner.difference import OutputDifference, leaves
from irc.runner.node_profile import profile_nodes
from irc.runner.node_time import NodeTime
from irc.runner.observation import Largest, Observation
from irc.runner.portable import PortableModel
from irc.runner.protocol import ConnectionClosed, receive, send
from irc.runner.reference import Reference
from irc.runner.session import Feed, OpenSession, open_session
from irc.runner.stopwatch import take_turns
from irc.runner.tolerance import Comparison, Rules

PARENT_CHECK_SECONDS = 0.5
Report = Callable[[float], None]


class Worker:
    """Sessions by handle, references by folder, and the requests that use them.

    Args:
        report: Sends the share done of a long request.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._sessions: dict[int, OpenSession] = {}
        self._references: dict[str, Reference] = {}
        self._observations: dict[str, Observation] = {}
        self._shelves: dict[str, dict[str, Any]] = {}
        self._helpers: list[CountingProcess] | None = None
        self._last = 0

    def open(
        self, model: PortableModel | str, optimization: str, threads: int | None
    ) -> tuple[int, list[tuple[str, str, list[Any]]], list[tuple[str, str, list[Any]]]]:
        """Opens a model; returns its handle and name, type and shape of its inputs and outputs."""
        opened = open_session(model, optimization=optimization, threads=threads)
        self._last += 1
        self._sessions[self._last] = opened
        inputs, outputs = opened.session.get_inputs(), opened.session.get_outputs()
        return self._last, [(v.name, v.type, v.shape) for v in inputs], [(v.name, v.type, v.shape) for v in outputs]

    def close(self, handle: int) -> None:
        """Frees a session."""
        self._sessions.pop(handle, None)

    def run(self, handle: int, feed: Feed, outputs: list[str] | None) -> dict[str, Any]:
        """Runs one feed; returns outputs by name."""
        return self._sessions[handle].run(feed, outputs)

    def shelve(self, shelf: str, arrays: Feed) -> None:
        """Puts arrays on a shelf."""
        self._shelves.setdefault(shelf, {}).update(arrays)

    def advance(self, handle: int, shelves: list[str], known: list[str], made: list[str]) -> None:
        """Runs a session on what lies on each of some shelves, and puts the results there too."""
        for shelf in shelves:
            arrays = self._shelves[shelf]
            arrays |= self._sessions[handle].run({name: arrays[name] for name in known}, made)

    def shelved(self, shelf: str, name: str) -> Any:
        """An array that lies on a shelf."""
        return self._shelves[shelf][name]

    def unshelve(self, shelves: list[str], names: list[str] | None) -> None:
        """Forgets arrays of shelves, or all of them."""
        for shelf in shelves:
            if names is None:
                self._shelves.pop(shelf, None)
            for name in names or ():
                self._shelves.get(shelf, {}).pop(name, None)

    def fetch(self, handle: int, feed: Feed, observation: str, kept: list[str]) -> tuple[dict[str, Any], Largest]:
        """Runs one feed; outputs named in `kept` wait for `observe`, the others are returned, and the largest codes."""
        session = self._sessions[handle]
        outputs = session.run_into_buffers(feed, kept)
        found = self._observations.setdefault(observation, Observation())
        found.waiting = {name: outputs.pop(name) for name in kept}
        largest = found.largest_codes()
        if largest and self._helpers is None:
            self._helpers = [CountingProcess() for _ in range(helpers_that_pay(session.threads))]
        return outputs, largest

    def observe(self, observation: str, exponents: dict[str, int]) -> None:
        """Takes what waits into the observation: codes into histograms, other arrays into sums."""
        self._observations[observation].take(exponents, self._helpers or ())

    def observed(self, observation: str) -> Observation:
        """What was observed; forgotten here."""
        return self._observations.pop(observation).finished(self._helpers or ())

    def runtime_graph(
        self, model: PortableModel | str, threads: int | None, folder: str
    ) -> list[tuple[str, str, str, list[str], list[str]]]:
        """The nodes of ONNX Runtime's own optimized graph: name, op type, domain, inputs, outputs."""
        import onnx

        path = Path(folder) / "optimized.onnx"
        open_session(model, threads=threads, optimized_model_path=path)
        pending = [onnx.load(path, load_external_data=False).graph]
        nodes = []
        while pending:
            for node in pending.pop().node:
                nodes.append((node.name, node.op_type, node.domain, list(node.input), list(node.output)))
                pending += [a.g for a in node.attribute if a.HasField("g")]
        return nodes

    def profile(
        self, model: PortableModel | str, feeds: list[Feed], seconds: float, threads: int | None, folder: str
    ) -> list[NodeTime]:
        """How long each node of the runtime's optimized graph takes."""
        return profile_nodes(model, feeds, seconds=seconds, threads=threads, folder=Path(folder))

    def latency(
        self, handles: list[int], feeds: list[Feed], seconds: float, min_rounds: int, max_rounds: int
    ) -> list[list[float]]:
        """Milliseconds of single runs, the models taking turns."""
        runs = [self._runner(handle) for handle in handles]
        return take_turns(
            runs, feeds, seconds=seconds, min_rounds=min_rounds, max_rounds=max_rounds, report=self._report
        )

    def _runner(self, handle: int) -> Callable[[Feed], object]:
        opened = self._sessions[handle]
        session, names = opened.session, opened.output_names
        return lambda feed: session.run(names, feed)

    def compare(self, reference: int, candidate: int, feeds: list[Feed]) -> list[OutputDifference]:
        """Differences of the outputs that two open models share, over all feeds."""
        first, second = self._sessions[reference], self._sessions[candidate]
        names = [name for name in first.output_names if name in set(second.output_names)]
        found: dict[str, OutputDifference] = {}
        for index, feed in enumerate(feeds):
            a, b = first.run(feed, names), second.run(feed, names)
            for name in names:
                theirs = dict(leaves(name, b[name]))
                for label, array in leaves(name, a[name]):
                    entry = found.setdefault(label, OutputDifference(label))
                    if label in theirs:
                        entry.update(array, theirs[label])
                    else:
                        entry.message = entry.message or f"missing on feed {index}"
            self._report((index + 1) / len(feeds))
        return list(found.values())

    def reference(
        self,
        folder: str,
        model: PortableModel | str,
        feeds: list[Feed],
        rules: Rules,
        threads: int | None,
    ) -> dict[str, str]:
        """Computes reference outputs into a folder; returns the outputs that cannot be compared, with the reason."""
        for gone in [known for known in self._references if not Path(known).is_dir()]:
            del self._references[gone]
        shutil.rmtree(folder, ignore_errors=True)
        session = open_session(model, optimization="none", threads=threads)
        self._references[folder] = Reference.compute(Path(folder), session, feeds, rules)
        return self._references[folder].facts.unstable

    def noise(self, folder: str, model: PortableModel | str, threads: int | None) -> dict[str, str]:
        """Measures the rounding noise of a reference; returns the outputs that cannot be compared, with the reason."""
        reference = self._reference(folder)
        reference.measure_noise(open_session(model, threads=threads))
        return reference.facts.unstable

    def verify(self, folder: str, model: PortableModel | str, exact: bool, threads: int | None) -> Comparison:
        """Runs a rewritten model unoptimized and compares it with a reference."""
        session = open_session(model, optimization="none", threads=threads)
        return self._reference(folder).compare(session, exact=exact)

    def _reference(self, folder: str) -> Reference:
        if folder not in self._references:
            self._references[folder] = Reference(Path(folder))
        return self._references[folder]


def main(folder: str) -> None:
    """Serves requests until the input closes or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _no_core_dumps()
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not end up between the answers
    threading.Thread(target=_watch_parent, args=(os.getppid(), folder), daemon=True).start()
    worker = Worker(lambda share: send(answers, ("progress", share)))
    try:
        send(answers, "ready")
        while True:
            method, arguments = receive(requests)
            handler: Callable[..., Any] = getattr(worker, method)
            try:
                answer = ("ok", handler(*arguments))
            except Exception as error:
                answer = ("error", _explain(error))
            send(answers, answer)
            del arguments, answer
    except (ConnectionClosed, BrokenPipeError):
        _leave(folder)


def _explain(error: Exception) -> str:
    """A message without ONNX Runtime's codes and source locations."""
    text = str(error)
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
        return text.split("): ", 1)[-1] if text.startswith("/onnxruntime_src") else text
    return f"{type(error).__name__}: {text}"


def _watch_parent(parent: int, folder: str) -> None:
    """Ends the process in the middle of a long run when the parent was killed."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    _leave(folder)


def _leave(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    # Neither waits for the threads of a run that still goes on, nor runs destructors that may crash.
    os._exit(0)


def _no_core_dumps() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1])
