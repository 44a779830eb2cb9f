"""The runtime process: opens models in ONNX Runtime and runs them on request.

Started by `irc.runner.process` as `python -m irc.runner.worker`. It lives in a session of its own, so that Ctrl-C reaches the
compiler alone, and ends when its input closes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from irc.ir.session import Session, open_session, session_options
from irc.ir.skeleton import Skeleton
from irc.runner.protocol import ConnectionClosed, receive, send
from irc.runner.reference import Reference

Feed = dict[str, "np.ndarray[Any, Any]"]


class Worker:
    """Sessions and references by handle, and the requests that use them."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._references: dict[int, Reference] = {}
        self._next = 0

    def open(self, model: Skeleton | str, optimization: str, threads: int | None) -> tuple[int, list[Any], list[Any]]:
        """Opens a model; returns its handle and the metadata of its inputs and outputs."""
        session = _open(model, optimization, threads)
        self._next += 1
        self._sessions[self._next] = session
        inner = session.session
        describe = lambda values: [(v.name, v.type, v.shape) for v in values]  # noqa: E731
        return self._next, describe(inner.get_inputs()), describe(inner.get_outputs())

    def close(self, handle: int) -> None:
        """Frees a session."""
        self._sessions.pop(handle, None)

    def run(self, handle: int, feed: Feed, outputs: list[str] | None) -> dict[str, Any]:
        """Runs one feed; returns outputs by name."""
        session = self._sessions[handle]
        names = outputs if outputs is not None else [o.name for o in session.session.get_outputs()]
        return dict(zip(names, session.run(names, feed), strict=True))

    def runtime_graph(self, model: Skeleton | str, threads: int | None, path: str) -> list[Any]:
        """The nodes of ONNX Runtime's own optimized graph."""
        import onnx

        if isinstance(model, str):
            import onnxruntime as ort

            ort.InferenceSession(
                model,
                session_options(threads=threads, optimized_model_path=path),
                providers=["CPUExecutionProvider"],
            )
        else:
            open_session(model, threads=threads, optimized_model_path=path)
        graph = onnx.load(path, load_external_data=False).graph
        os.unlink(path)
        found: list[Any] = []
        pending = [graph]
        while pending:
            body = pending.pop()
            for node in body.node:
                found.append((node.name, node.op_type, node.domain, list(node.input), list(node.output)))
                pending += [a.g for a in node.attribute if a.HasField("g")]
        return found

    def latency(
        self, handles: list[int], feeds: list[Feed], warmup: int, rounds: int, seconds: float
    ) -> list[list[float]]:
        """Milliseconds of single runs, the models taking turns, until `rounds` rounds or `seconds` have passed."""
        sessions = [self._sessions[handle].session for handle in handles]
        names = [[o.name for o in session.get_outputs()] for session in sessions]
        for _ in range(warmup):
            for session, outputs in zip(sessions, names, strict=True):
                for feed in feeds:
                    session.run(outputs, feed)
        times: list[list[float]] = [[] for _ in sessions]
        order = list(range(len(sessions)))
        deadline = time.perf_counter() + seconds
        for turn in range(rounds):
            feed = feeds[turn % len(feeds)]
            for i in order if turn % 2 == 0 else reversed(order):
                start = time.perf_counter()
                sessions[i].run(names[i], feed)
                times[i].append((time.perf_counter() - start) * 1e3)
            if time.perf_counter() > deadline and turn >= 4:
                break
        return times

    def reference(self, model: Skeleton | str, feeds: list[Feed], threads: int | None) -> tuple[int, list[str]]:
        """Runs the model unoptimized, again, and optimized; keeps outputs and noise; returns handle and random outputs."""
        reference = Reference.of(lambda optimization: _open(model, optimization, threads), feeds)
        self._next += 1
        self._references[self._next] = reference
        return self._next, reference.random_outputs

    def compare(self, handle: int, model: Skeleton | str, exact: bool, threads: int | None) -> Any:
        """Runs a rewritten model unoptimized and compares it with the reference."""
        return self._references[handle].compare(_open(model, "none", threads), exact=exact)


def _open(model: Skeleton | str, optimization: str, threads: int | None) -> Session:
    if isinstance(model, Skeleton):
        return open_session(model, optimization=optimization, threads=threads)  # type: ignore[arg-type]
    import onnxruntime as ort

    options = session_options(optimization=optimization, threads=threads)  # type: ignore[arg-type]
    return Session(ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]), [])


def main() -> None:
    """Serves requests until the input closes."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    worker = Worker()
    while True:
        try:
            method, arguments = receive(requests)
        except ConnectionClosed:
            return
        handler: Callable[..., Any] = getattr(worker, method)
        try:
            answer = ("ok", handler(*arguments))
        except Exception as error:
            answer = ("error", f"{type(error).__name__}: {error}")
        send(answers, answer)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
