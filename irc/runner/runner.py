"""Run models: open them in the runtime process, feed them, time them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.errors import RunnerError
from irc.ir.skeleton import Skeleton, skeleton
from irc.runner.process import WorkerProcess

Feed = dict[str, "np.ndarray[Any, Any]"]


@dataclasses.dataclass(frozen=True)
class RuntimeNode:
    """A node of the runtime's own optimized graph."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class RuntimeValue:
    """An input or output as the runtime declares it: name, type such as "tensor(float)", dims."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class Runner:
    """Hosts ONNX Runtime in a child process, so that a crash, its memory and its threads stay out of the compiler.

    Use it as a context manager. The process starts with the first model and is restarted after a crash.

    Args:
        threads: Threads per session; None lets the runtime use every core.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self.threads = threads
        self.process = WorkerProcess()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; models opened in it are gone."""
        self.process.close()

    def open(
        self,
        model: ir.Model | Path | str,
        *,
        optimization: str = "all",
        threads: int | None = None,
        extra_outputs: Sequence[str] = (),
    ) -> Opened:
        """Opens a model.

        Args:
            model: An in-memory model, whose weights are not serialized, or a path, opened as any user of ONNX Runtime would.
            optimization: "none", "basic", "extended" or "all".
            threads: Overrides the runner's.
            extra_outputs: Names of values of an in-memory model that become outputs.

        Raises:
            RunnerError: If the runtime refuses the model.
        """
        return Opened(self, self._portable(model, extra_outputs), optimization, threads or self.threads)

    def runtime_graph(self, model: ir.Model | Path | str) -> list[RuntimeNode]:
        """The runtime's own optimized graph of a model, subgraphs included.

        Raises:
            RunnerError: If the runtime refuses the model.
        """
        path = self.process.temporary_folder() / "optimized.onnx"
        nodes = self.process.call("runtime_graph", self._portable(model, ()), self.threads, str(path))
        return [RuntimeNode(n, o, d, tuple(i), tuple(u)) for n, o, d, i, u in nodes]

    def latency(
        self,
        models: Sequence[Opened],
        feeds: Sequence[Feed],
        *,
        warmup: int = 3,
        rounds: int = 1000,
        seconds: float = 3.0,
    ) -> list[list[float]]:
        """Milliseconds of single runs of each model, the models taking turns.

        Args:
            models: What to time.
            feeds: Used in turn.
            warmup: Runs per model and feed before timing.
            rounds: At most this many timed runs per model.
            seconds: Stop after this time (5 rounds at least).
        """
        handles = [model.handle for model in models]
        result: list[list[float]] = self.process.call("latency", handles, list(feeds), warmup, rounds, seconds)
        return result

    def _portable(self, model: ir.Model | Path | str, extra_outputs: Sequence[str]) -> Skeleton | str:
        if not isinstance(model, ir.Model):
            return str(Path(model).resolve())
        folder = Path(tempfile.mkdtemp(dir=self.process.temporary_folder()))
        return skeleton(model, extra_outputs=extra_outputs).spill(folder)


class Opened:
    """A model open in the runtime process.

    Attributes:
        inputs: The inputs as the runtime declares them.
        outputs: The outputs as the runtime declares them.
    """

    def __init__(self, runner: Runner, model: Skeleton | str, optimization: str, threads: int | None) -> None:
        self._runner, self._model, self._optimization, self._threads = runner, model, optimization, threads
        self._handle: int | None = None
        self._generation = -1
        self.inputs: list[RuntimeValue] = []
        self.outputs: list[RuntimeValue] = []
        self._open()

    @property
    def handle(self) -> int:
        """The handle in the current process; reopened if the process had to be restarted."""
        if self._handle is None:
            raise RunnerError("this model was closed")
        if self._generation != self._runner.process.generation:
            self._open()
        return self._handle

    def _open(self) -> None:
        self._handle, inputs, outputs = self._runner.process.call(
            "open", self._model, self._optimization, self._threads
        )
        self._generation = self._runner.process.generation
        self.inputs = [RuntimeValue(n, t, tuple(s)) for n, t, s in inputs]
        self.outputs = [RuntimeValue(n, t, tuple(s)) for n, t, s in outputs]

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Runs one feed and returns outputs by name.

        Raises:
            RunnerError: If the runtime refuses the feed, or dies.
        """
        result: dict[str, Any] = self._runner.process.call(
            "run", self.handle, feed, list(outputs) if outputs is not None else None
        )
        return result

    def runtime_graph(self) -> list[RuntimeNode]:
        """The runtime's own optimized graph of this model."""
        path = self._runner.process.temporary_folder() / "optimized.onnx"
        nodes = self._runner.process.call("runtime_graph", self._model, self._threads, str(path))
        return [RuntimeNode(n, o, d, tuple(i), tuple(u)) for n, o, d, i, u in nodes]

    def close(self) -> None:
        """Frees the model in the runtime process and its spilled weights."""
        if self._handle is not None and self._generation == self._runner.process.generation:
            self._runner.process.call("close", self._handle)
        self._handle = None
        if isinstance(self._model, Skeleton):
            _remove_spilled(self._model)


def _remove_spilled(model: Skeleton) -> None:
    folders = {
        Path(weight.path).parent
        for weight in model.weights.values()
        if hasattr(weight, "path") and "irc-runner-" in weight.path
    }
    for folder in folders:
        for file in folder.glob("*.bin"):
            file.unlink(missing_ok=True)


__all__ = ["Feed", "Opened", "Runner", "RuntimeNode", "RuntimeValue"]
