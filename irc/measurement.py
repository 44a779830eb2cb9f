"""The samples of a build and everything measured on them: verification, statistics, latency, coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from irc.calibration import (
    DataSource,
    Feed,
    StatisticRequest,
    Statistics,
    collect,
    open_data,
    runnable_feeds,
    take,
)
from irc.coverage import Coverage
from irc.errors import DataError, RunnerError, UsageError
from irc.latency import LatencyComparison, batched, compare_latency
from irc.ledger import Ledger
from irc.pass_base import node_id
from irc.runner import Runner
from irc.verification import Verifier

if TYPE_CHECKING:
    from irc.driver import Request
    from irc.target import Target

VERIFICATION_SAMPLES = 3
LATENCY_SAMPLES = 4
QUANTIZABLE = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Measurement:
    """One build's samples, and what is asked of them.

    Args:
        path: The input file.
        model: The loaded input.
        request: Data, label, seed and threads.
        runner: Where models run.
        planned: Statistics of a plan to replay; None to calibrate.

    Attributes:
        source: The user's data; None without.
        name: The data in words; "" without.
        notes: What the user should know about the samples.
        refused: Why the runtime does not open the original; None if it does, or was not asked.
    """

    def __init__(
        self, path: Path, model: ir.Model, request: Request, runner: Runner, *, planned: Mapping[str, Any] | None
    ) -> None:
        self._path, self._model, self._request, self._runner = path, model, request, runner
        self._planned = planned
        self._cache: dict[tuple[int, str], Any] = {}
        self._collected: list[dict[str, Any]] = []
        self._generated: list[Feed] | None = None
        self.notes: list[str] = []
        self.source: DataSource | None = None
        self.refused: str | None = None
        if request.data is not None:
            self._open_data()
        self.name = self.source.describe() if self.source is not None else ""

    @property
    def statistics(self) -> Mapping[str, Any]:
        """What was calibrated, for the plan."""
        if self._planned is not None:
            return self._planned
        return {"sweeps": self._collected} if self._collected else {}

    @property
    def collected(self) -> int:
        """Number of samples the statistics come from."""
        return max((int(sweep["samples"]) for sweep in self._collected), default=0)

    def _open_data(self) -> None:
        """Opens the user's data; a model that does not run leaves generated data without a source."""
        request = self._request
        try:
            self.source = open_data(
                request.data, self._model, label=request.label, seed=request.seed, runner=self._runner
            )
        except RunnerError as error:
            self._refuse(error)
            return
        if self.source.synthetic:
            self.notes.append("the data is generated: accuracy figures say little about real inputs")
        self._try_first(self.source)

    def _refuse(self, error: RunnerError) -> None:
        self.refused = str(error)
        self.notes.append(f"the runtime cannot run the original: {error}")

    def _try_first(self, source: DataSource) -> None:
        """The first sample must run through the original: otherwise the data is at fault, not a pass."""
        sample = next(iter(source.samples()))
        try:
            opened = self._runner.open(self._path)
        except RunnerError as error:
            self._refuse(error)
            return
        try:
            opened.run(sample.feed)
        except RunnerError as error:
            raise DataError(f"{sample.origin} does not run through the model: {error}") from error
        finally:
            opened.close()

    # -- verification ---------------------------------------------------------------------------------------------

    def feeds(self, count: int) -> list[Feed]:
        """The first feeds of the data, else generated ones that the original accepts; none if it accepts none."""
        if self.source is not None:
            return [sample.feed for sample in take(self.source, count)]
        if self._generated is None:
            self._generated = self._generate()
        return self._generated[:count]

    def _generate(self) -> list[Feed]:
        try:
            source = runnable_feeds(self._runner, self._model, count=LATENCY_SAMPLES, seed=self._request.seed)
            return [sample.feed for sample in source.samples()]
        except DataError as error:
            self.notes.append(f"no inputs could be generated: {error}")
        except RunnerError as error:
            self.notes.append(f"the runtime cannot run the original: {error}")
        return []

    def verifier(self, model: ir.Model) -> Verifier:
        """A verifier with a model as reference, on the first samples."""
        return Verifier(self._runner, model, self.feeds(VERIFICATION_SAMPLES))

    # -- statistics -----------------------------------------------------------------------------------------------

    def collect(self, model: ir.Model, requests: Sequence[StatisticRequest]) -> Statistics:
        """Statistics over all samples; those already known for the same model are not collected again."""
        if self._planned is not None:
            return _planned_statistics(self._planned, requests)
        if self.source is None:
            raise UsageError("calibration needs data; give --data")
        token = _token(model)
        for sweep_token, statistics in self._cache.values():
            if sweep_token == token and all(
                r.value_name in statistics.ranges or r.value_name in statistics.missing for r in requests
            ):
                return statistics  # type: ignore[no-any-return]
        statistics = collect(self._runner, model, self.source, requests, progress=self._request.progress)
        self._cache[len(self._cache), "sweep"] = (token, statistics)
        self._collected.append(statistics.to_dict())
        return statistics

    # -- the artifact -----------------------------------------------------------------------------------------------

    def latency(self, file: Path) -> LatencyComparison | None:
        """The artifact against the original, both opened by the stock runtime from their files."""
        feeds = self.feeds(LATENCY_SAMPLES)
        if not feeds:
            self.notes.append("latency not measured: no inputs")
            return None
        if self._request.batch is not None:
            feeds = [batched(feed, self._request.batch) for feed in feeds]
        try:
            original, artifact = self._runner.open(self._path), self._runner.open(file)
            comparison = compare_latency(
                self._runner,
                original,
                artifact,
                feeds,
                batch=_batch_of(feeds[0]),
                threads=self._request.threads,
                seed=self._request.seed,
            )
        except RunnerError as error:
            if self._request.batch is not None:
                raise UsageError(
                    f"--batch {self._request.batch}: the model does not run at this batch: {error}"
                ) from error
            self.notes.append(f"latency not measured: {error}")
            return None
        original.close()
        artifact.close()
        return comparison

    def coverage(self, target: Target, base: ir.Model, ledger: Ledger, file: Path) -> Coverage | None:
        """Which quantizable nodes of the float model the runtime executes as integers."""
        sites = {entry.site for r in ledger if r.contract == "approximate" for entry in (*r.rewritten, *r.undone)}
        nodes = [
            (node_id(node), node.op_type)
            for node in base.graph.all_nodes()
            if node_id(node) in sites or (node.op_type in QUANTIZABLE and _has_constant(node))
        ]
        try:
            return target.coverage(self._runner, file, nodes, ledger)
        except RunnerError as error:
            self.notes.append(f"coverage not read back: {error}")
            return None


def _has_constant(node: ir.Node) -> bool:
    return any(value is not None and value.const_value is not None for value in node.inputs[1:2])


def _batch_of(feed: Feed) -> int | None:
    sizes = [array.shape[0] for array in feed.values() if array.ndim]
    return int(sizes[0]) if sizes else None


def _token(model: ir.Model) -> int:
    """Equal for two copies of one model: same nodes in the same order, same tensors."""
    nodes = tuple((node_id(node), node.op_type) for node in model.graph.all_nodes())
    tensors = tuple(id(value.const_value) for value in model.graph.initializers.values())
    return hash((nodes, tensors))


def _planned_statistics(planned: Mapping[str, Any], requests: Sequence[StatisticRequest]) -> Statistics:
    """The sweep of a plan that holds what is asked."""
    names = {request.value_name for request in requests}
    sweeps = [Statistics.from_dict(sweep) for sweep in planned.get("sweeps", [])]
    for statistics in sweeps:
        if names <= statistics.ranges.keys() | statistics.missing.keys():
            return statistics
    missing = sorted(names - (sweeps[0].ranges.keys() if sweeps else set()))[:3]
    raise UsageError(f"the plan has no statistics for {', '.join(missing)}; build again without --plan")
