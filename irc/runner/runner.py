"""Run models: open them in the runtime process, feed them, compare them, time them."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from irc.errors import RunnerError
from irc.runner.difference import OutputDifference
from irc.runner.node_time import NodeTime
from irc.runner.observation import Largest, Observation
from irc.runner.portable import PortableModel, SpilledWeight, WeightStore
from irc.runner.process import WorkerProcess

if TYPE_CHECKING:
    import onnx_ir as ir

Feed = dict[str, "np.ndarray[Any, Any]"]
Progress = Callable[[float], None]


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

    Use it as a context manager. The process starts with the first model, is restarted after a crash, and ends with this
    object.

    Args:
        threads: Threads per session; None lets the runtime use every core.

    Attributes:
        threads: As given.
        process: The child.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        self.threads = threads
        self.process = WorkerProcess()
        self._weights = WeightStore(self.process.folder)

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts the process without waiting for it, so that it is ready when the first model is."""
        self.process.start()

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
            model: An in-memory model, whose weights are not serialized, or a path, opened as users of the runtime do.
            optimization: "none", "basic", "extended" or "all".
            threads: Overrides the runner's.
            extra_outputs: Names of values of an in-memory model that become outputs.

        Raises:
            RunnerError: If the runtime refuses the model.
        """
        return Opened(self, *self.portable(model, extra_outputs), optimization, threads or self.threads)

    def runtime_graph(self, model: ir.Model | Path | str) -> list[RuntimeNode]:
        """The runtime's own optimized graph of a model, subgraphs included.

        Raises:
            RunnerError: If the runtime refuses the model.
        """
        portable, _kept = self.portable(model)
        return self._runtime_graph(portable, self.threads)

    def profile(self, model: ir.Model | Path | str, feeds: Sequence[Feed], *, seconds: float = 1.0) -> list[NodeTime]:
        """How long each node of the runtime's own optimized graph of a model takes.

        Args:
            model: An in-memory model or a path.
            feeds: Run in turn.
            seconds: Time to spend, loading not counted.

        Raises:
            RunnerError: If the runtime refuses the model or a feed.
        """
        portable, _kept = self.portable(model)
        folder = tempfile.mkdtemp(dir=self.process.folder)
        try:
            found: list[NodeTime] = self.process.call("profile", portable, list(feeds), seconds, self.threads, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    def compare(
        self,
        reference: Opened,
        candidate: Opened,
        feeds: Sequence[Feed],
        *,
        progress: Progress | None = None,
    ) -> list[OutputDifference]:
        """Runs two open models on the same feeds and says how far their common outputs are apart.

        Only the figures leave the process, not the outputs.

        Args:
            reference: The baseline.
            candidate: The other model.
            feeds: Inputs.
            progress: Told the share done.

        Returns:
            One entry per output, in the order of the reference, and per element of a sequence or map.

        Raises:
            RunnerError: If one of them cannot run a feed.
        """
        handles = self._handles([reference, candidate])
        found: list[OutputDifference] = self.process.call("compare", *handles, list(feeds), progress=progress)
        return found

    def latency(
        self,
        models: Sequence[Opened],
        feeds: Sequence[Feed],
        *,
        seconds: float = 3.0,
        min_rounds: int = 5,
        max_rounds: int = 5000,
        progress: Progress | None = None,
    ) -> list[list[float]]:
        """Milliseconds of single runs, one list per model; every round runs each model once, on the same feed.

        Args:
            models: What to time.
            feeds: Round r uses feed r modulo their number; rounds are a multiple of it.
            seconds: Time to spend on all models together, after a warm-up of about a tenth of it.
            min_rounds: At least this many rounds, however long they take.
            max_rounds: At most this many.
            progress: Told the share done, about twice a second.

        Raises:
            RunnerError: If one of them cannot run a feed.
        """
        if not models or not feeds:
            raise RunnerError(f"latency needs models and feeds, got {len(models)} and {len(feeds)}")
        times: list[list[float]] = self.process.call(
            "latency", self._handles(models), list(feeds), seconds, min_rounds, max_rounds, progress=progress
        )
        return times

    def observe(self, observation: str, exponents: Mapping[str, int]) -> None:
        """Takes the outputs that the last `Opened.fetch` kept into the accumulators of an observation.

        Args:
            observation: As given to `fetch`.
            exponents: Outputs that are float16 codes of `x * 2^exponent`, for histograms; the others are summed.
        """
        self.process.call("observe", observation, dict(exponents))

    def observed(self, observation: str) -> Observation:
        """What an observation gave; it is gone from the process then.

        Raises:
            RunnerError: If the process died since.
        """
        found: Observation = self.process.call("observed", observation)
        return found

    def shelve(self, shelf: str, arrays: Feed) -> None:
        """Puts arrays on a shelf of the process, for `Opened.advance`: what runs on them need not cross to it every time."""
        self.process.call("shelve", shelf, arrays)

    def shelved(self, shelf: str, name: str) -> Any:
        """An array that lies on a shelf.

        Raises:
            RunnerError: If it does not, as after a crash.
        """
        return self.process.call("shelved", shelf, name)

    def unshelve(self, shelves: Sequence[str], names: Sequence[str] | None = None) -> None:
        """Forgets arrays by name, or whole shelves."""
        self.process.call("unshelve", list(shelves), None if names is None else list(names))

    def portable(
        self, model: ir.Model | Path | str, extra_outputs: Sequence[str] = ()
    ) -> tuple[PortableModel | str, list[SpilledWeight]]:
        """A model as the process takes it, and the files of weights that must be kept while it may be opened."""
        if isinstance(model, str | Path):
            path = Path(model).resolve()
            if not path.is_file():
                raise RunnerError(f"there is no model file {path}")
            if extra_outputs:
                raise RunnerError(f"extra outputs need an in-memory model, not the path {path}")
            return str(path), []
        from irc.runner.emulation import emulated, needs_emulation

        # The CPU provider has no bfloat16; what an artifact for another runtime computes is still to be judged.
        return self._weights.portable(emulated(model) if needs_emulation(model) else model, extra_outputs)

    def _runtime_graph(self, model: PortableModel | str, threads: int | None) -> list[RuntimeNode]:
        folder = tempfile.mkdtemp(dir=self.process.folder)
        try:
            nodes = self.process.call("runtime_graph", model, threads, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return [RuntimeNode(name, op, domain, tuple(i), tuple(o)) for name, op, domain, i, o in nodes]

    def _handles(self, models: Sequence[Opened]) -> list[int]:
        """Handles of one and the same process: reopening the second model may find the process of the first gone."""
        handles = [model.handle for model in models]
        return handles if handles == [model.handle for model in models] else [model.handle for model in models]


class Opened:
    """A model open in the runtime process; opened again without notice if the process had to be restarted.

    Attributes:
        inputs: The inputs as the runtime declares them.
        outputs: The outputs as the runtime declares them.
    """

    def __init__(
        self,
        runner: Runner,
        model: PortableModel | str,
        weights: Sequence[SpilledWeight],
        optimization: str,
        threads: int | None,
    ) -> None:
        self._runner, self._optimization, self._threads = runner, optimization, threads
        self._model: PortableModel | str | None = model
        self._weights = list(weights)
        self._handle = -1
        self._generation = -1
        self.inputs: list[RuntimeValue] = []
        self.outputs: list[RuntimeValue] = []
        self._open()

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def handle(self) -> int:
        """The handle in the current process.

        Raises:
            RunnerError: If this was closed, or cannot be opened again.
        """
        if self._model is None:
            raise RunnerError("this model was closed")
        if self._generation != self._runner.process.generation:
            self._open()
        return self._handle

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Runs one feed and returns outputs by name.

        Args:
            feed: Every input, exactly as a session takes it.
            outputs: Which outputs to compute; None for all.

        Raises:
            RunnerError: If the runtime refuses the feed, or dies (`crashed`).
        """
        names = list(outputs) if outputs is not None else None
        result: dict[str, Any] = self._runner.process.call("run", self.handle, feed, names)
        return result

    def fetch(self, feed: Feed, observation: str, kept: Sequence[str]) -> tuple[dict[str, Any], Largest]:
        """Runs one feed; some outputs stay in the process until `Runner.observe` takes them.

        Args:
            feed: Every input, exactly as a session takes it.
            observation: Any name for what is being observed.
            kept: Outputs that stay; the others are returned.

        Returns:
            The other outputs, and the largest codes of either sign of the kept ones that are codes.

        Raises:
            RunnerError: If the runtime refuses the feed, or dies (`crashed`).
        """
        result: tuple[dict[str, Any], Largest] = self._runner.process.call(
            "fetch", self.handle, feed, observation, list(kept)
        )
        return result

    def advance(self, shelves: Sequence[str], known: Sequence[str], made: Sequence[str]) -> None:
        """Runs on arrays that lie on each of some shelves, and puts the outputs there too.

        Args:
            shelves: One run each.
            known: The inputs.
            made: The outputs.

        Raises:
            RunnerError: If the runtime refuses, or dies; shelves are empty then.
        """
        self._runner.process.call("advance", self.handle, list(shelves), list(known), list(made))

    def runtime_graph(self) -> list[RuntimeNode]:
        """The runtime's own optimized graph of this model, subgraphs included."""
        if self._model is None:
            raise RunnerError("this model was closed")
        return self._runner._runtime_graph(self._model, self._threads)

    def close(self) -> None:
        """Frees the model in the process, and its files; does nothing the second time."""
        self._model = None
        self._weights.clear()
        process = self._runner.process
        if self._handle >= 0 and self._generation == process.generation and process.pid is not None:
            process.call("close", self._handle)
        self._handle = -1

    def _open(self) -> None:
        handle, inputs, outputs = self._runner.process.call("open", self._model, self._optimization, self._threads)
        self._handle, self._generation = handle, self._runner.process.generation
        self.inputs = [RuntimeValue(name, kind, tuple(shape)) for name, kind, shape in inputs]
        self.outputs = [RuntimeValue(name, kind, tuple(shape)) for name, kind, shape in outputs]
