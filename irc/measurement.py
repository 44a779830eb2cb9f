"""The samples of a build and everything measured on them: verification, statistics, latency, coverage."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from irc.calibration import (
    DataSource,
    Feed,
    Observable,
    Observations,
    Sample,
    StatisticRequest,
    Statistics,
    observe,
    open_data,
    runnable_feeds,
    take,
)
from irc.calibration.cache import StatisticsCache, digest_of_data, digest_of_model, statistics_key
from irc.calibration.collector import joined, observers_text, ranges_of
from irc.calibration.statistics import AnyStatistic
from irc.coverage import Coverage
from irc.errors import DataError, RunnerError, UsageError
from irc.ir import weight_bytes
from irc.latency import SECONDS_PER_MODEL, LatencyComparison, batched, compare_latency
from irc.ledger import Ledger
from irc.pass_base import node_id
from irc.runner import Opened, Runner
from irc.verification import Verifier

if TYPE_CHECKING:
    from irc.driver import Request
    from irc.target import Target

VERIFICATION_SAMPLES = 3
LATENCY_SAMPLES = 4
REMEMBERED_BYTES = 128 << 20
"""Observations are kept for another observer to read while they take at most this (128 MiB)."""
REOPENED_BYTES = 512 << 20
"""Models above this size (512 MiB) are opened once to be timed; smaller ones twice, in both orders."""
QUANTIZABLE = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Measurement:
    """One build's samples, and what is asked of them.

    Args:
        path: The input file.
        model: The loaded input.
        request: Data, label, seed and threads.
        runner: Where models run.
        planned: Statistics of a plan to replay; None to calibrate.
        examples: Feeds that the input is known to take, used instead of generated ones.

    Attributes:
        source: The user's data; None without.
        name: The data in words; "" without.
        notes: What the user should know about the samples.
        refused: Why the runtime does not open the original; None if it does, or was not asked.
    """

    def __init__(
        self,
        path: Path,
        model: ir.Model,
        request: Request,
        runner: Runner,
        *,
        planned: Mapping[str, Any] | None,
        examples: Sequence[Feed] = (),
    ) -> None:
        self._path, self._model, self._request, self._runner = path, model, request, runner
        self._planned = planned
        self._sweeps: list[_Sweep] = []
        self._observed: _Observed | None = None
        self._data_digest: str | None = None
        self._first: list[Sample] | None = None
        self._generated: list[Feed] | None = list(examples[:LATENCY_SAMPLES]) or None
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
        return {"sweeps": [sweep.to_dict() for sweep in self._sweeps]} if self._sweeps else {}

    @property
    def collected(self) -> int:
        """Number of samples the statistics come from."""
        return max((sweep.statistics.samples for sweep in self._sweeps), default=0)

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
        sample = self._samples(source)[0]
        try:
            opened = self._runner.open(self._path)
        except RunnerError as error:
            self._refuse(error)
            return
        with opened:
            try:
                opened.run(sample.feed)
            except RunnerError as error:
                raise DataError(f"{sample.origin} does not run through the model: {error}") from error
            if self._request.batch is not None and self._request.measure:
                _try_batch(opened, sample, self._request.batch)

    def _samples(self, source: DataSource) -> list[Sample]:
        """The first samples, read once: a user's function may take long to give the first."""
        if self._first is None:
            self._first = take(source, LATENCY_SAMPLES)
        return self._first

    # -- verification ---------------------------------------------------------------------------------------------

    def feeds(self, count: int) -> list[Feed]:
        """The first feeds of the data, else generated ones that the original accepts; none if it accepts none."""
        if self.source is not None:
            return [sample.feed for sample in self._samples(self.source)[:count]]
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
        """Ranges over all samples; those already known for the same model are not collected again."""
        by_observer: dict[str, list[StatisticRequest]] = {}
        for request in requests:
            by_observer.setdefault(request.observer.text, []).append(request)
        found = [self._collect(model, group) for group in by_observer.values()] or [self._collect(model, [])]
        return found[0] if len(found) == 1 else joined(found)

    def _collect(self, model: ir.Model, requests: Sequence[StatisticRequest]) -> Statistics:
        """Ranges by one observer."""
        names = {request.value_name for request in requests}
        observer = observers_text(requests)
        structure = _structure(model)
        if self._planned is not None:
            return _planned_statistics(self._planned, structure, observer, names)
        if self.source is None:
            raise UsageError("calibration needs data; give --data")
        tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
        known = [s for s in self._sweeps if s.is_of(structure, tensors) and s.statistics.observer == observer]
        for sweep in known:
            if names <= _known(sweep.statistics):
                return sweep.statistics
        before = known[0].statistics if known else Statistics()
        new = [request for request in requests if request.value_name not in _known(before)]
        statistics = ranges_of(new, lambda observables: self._observe_once(model, structure, tensors, observables))
        if 0 < statistics.samples < statistics.available:
            self.notes.append(f"calibration stopped early: {statistics.samples} of {statistics.available} samples used")
        if known:
            known[0].statistics = statistics = joined([before, statistics])
        else:
            self._sweeps.append(_Sweep(structure, tensors, statistics))
        return statistics

    def _observe_once(
        self, model: ir.Model, structure: str, tensors: list[Any], observables: Sequence[Observable]
    ) -> Observations:
        """Observations, those of the last model remembered: another observer may ask for the same."""
        last = self._observed
        if last is None or not last.is_of(structure, tensors):
            last = self._observed = _Observed(structure, tensors, Observations())
        missing = [o for o in observables if o not in last.found and o.value_name not in last.found.missing]
        if missing or not last.found.samples:
            found = self.observe(model, missing)
            last.found = Observations(
                {**last.found.found, **found.found},
                {**last.found.missing, **found.missing},
                found.samples,
                found.available,
            )
            if sum(_bytes_of(statistic) for statistic in last.found.found.values()) > REMEMBERED_BYTES:
                self._observed = None
        return last.found

    def observe(self, model: ir.Model, observables: Sequence[Observable]) -> Observations:
        """Statistics over all samples, from the cache if an earlier build gathered them.

        Raises:
            UsageError: If there is no data.
            DataError: If a value is not finite on some sample, or the model does not run on it.
        """
        request, source = self._request, self.source
        if source is None:
            raise UsageError("calibration needs data; give --data")
        cache = StatisticsCache.default() if request.cache else None
        key = ""
        if cache is not None and observables:
            request.progress(0.0, "looking for known statistics")
            stop = request.early_stop
            if self._data_digest is None:
                self._data_digest = digest_of_data(source, ordered=stop is not None)
            key = statistics_key(digest_of_model(model), self._data_digest, observables, early_stop=stop)
            if (known := cache.get(key)) is not None:
                request.progress(1.0, f"statistics of {known.samples} samples are known from an earlier build")
                return known
        found = observe(
            self._runner, model, source, observables, progress=request.progress, early_stop=request.early_stop
        )
        if cache is not None and key:
            cache.put(key, found)
        return found

    # -- the artifact -----------------------------------------------------------------------------------------------

    def latency_feeds(self) -> list[Feed]:
        """The feeds that latency is measured on; none if the original accepts none."""
        feeds = self.feeds(LATENCY_SAMPLES)
        return feeds if self._request.batch is None else [batched(feed, self._request.batch) for feed in feeds]

    def latency(self, file: Path) -> LatencyComparison | None:
        """The artifact against the original, both opened by the stock runtime from their files."""
        feeds = self.latency_feeds()
        if not feeds:
            self.notes.append("latency not measured: no inputs")
            return None
        try:
            if weight_bytes(self._model) > REOPENED_BYTES:
                return self._compared(file, feeds, 2 * SECONDS_PER_MODEL)
            first = self._compared(file, feeds, SECONDS_PER_MODEL)
            return first.joined(self._compared(file, feeds, SECONDS_PER_MODEL, artifact_first=True))
        except RunnerError as error:
            if self._request.batch is not None:
                raise UsageError(
                    f"--batch {self._request.batch}: the model does not run at this batch: {error}"
                ) from error
            self.notes.append(f"latency not measured: {error}")
            return None

    def _compared(
        self, file: Path, feeds: Sequence[Feed], seconds: float, *, artifact_first: bool = False
    ) -> LatencyComparison:
        """One measurement, in sessions of its own."""
        with contextlib.ExitStack() as stack:
            paths = (file, self._path) if artifact_first else (self._path, file)
            opened = {path: stack.enter_context(self._runner.open(path)) for path in paths}
            return compare_latency(
                self._runner,
                opened[self._path],
                opened[file],
                feeds,
                seconds=seconds,
                batch=_batch_of(feeds[0]),
                threads=self._request.threads,
                seed=self._request.seed,
            )

    def coverage(
        self, target: Target, base: ir.Model, ledger: Ledger, file: Path, *, besides: frozenset[str] = frozenset()
    ) -> Coverage | None:
        """Which quantizable nodes of the float model the runtime executes as integers; sites of passes `besides` are none."""
        rewriting = [r for r in ledger if r.contract == "approximate" and r.name not in besides]
        sites = {entry.site for r in rewriting for entry in (*r.rewritten, *r.undone)}
        nodes = [
            (node_id(node), node.op_type)
            for node in base.graph.all_nodes()
            if node_id(node) in sites or (node.op_type in QUANTIZABLE and _has_constant(node))
        ]
        try:
            return target.coverage(self._runner, file, nodes, Ledger(rewriting))
        except RunnerError as error:
            self.notes.append(f"coverage not read back: {error}")
            return None


def _has_constant(node: ir.Node) -> bool:
    return any(value is not None and value.const_value is not None for value in node.inputs[1:2])


def _batch_of(feed: Feed) -> int | None:
    sizes = [array.shape[0] for array in feed.values() if array.ndim]
    return int(sizes[0]) if sizes else None


def _try_batch(opened: Opened, sample: Sample, batch: int) -> None:
    """Says at once what would otherwise end the build when everything but the latency is done."""
    try:
        opened.run(batched(sample.feed, batch))
    except RunnerError as error:
        raise UsageError(f"--batch {batch}: the model does not run at this batch: {error}") from error


@dataclasses.dataclass
class _OfModel:
    """Something about a model: its structure, and its weights, which are kept so that no other has their id."""

    structure: str
    tensors: list[Any]

    def is_of(self, structure: str, tensors: list[Any]) -> bool:
        return (
            structure == self.structure
            and len(tensors) == len(self.tensors)
            and all(a is b for a, b in zip(tensors, self.tensors, strict=True))
        )


@dataclasses.dataclass
class _Observed(_OfModel):
    """Observations of a model."""

    found: Observations


@dataclasses.dataclass
class _Sweep(_OfModel):
    """Ranges of a model's values by one observer."""

    statistics: Statistics

    def to_dict(self) -> dict[str, Any]:
        return {"model": self.structure, **self.statistics.to_dict()}


def _structure(model: ir.Model) -> str:
    """A short hash of which nodes there are, how they are connected and how large weights are; numbers and attributes not included."""
    digest = hashlib.sha256()
    sizes = [(name, value.shape) for graph in model.graphs() for name, value in graph.initializers.items()]
    digest.update(repr([(name, list(shape) if shape is not None else None) for name, shape in sizes]).encode())
    for node in model.graph.all_nodes():
        names = [[value.name if value is not None else "" for value in side] for side in (node.inputs, node.outputs)]
        digest.update(repr((node.domain, node.op_type, names)).encode())
    return digest.hexdigest()[:16]


def _bytes_of(statistic: AnyStatistic) -> int:
    return sum(part.nbytes for part in statistic) if isinstance(statistic, tuple) else statistic.nbytes


def _known(statistics: Statistics) -> set[str]:
    return statistics.ranges.keys() | statistics.missing.keys()


def _planned_statistics(planned: Mapping[str, Any], structure: str, observer: str, names: set[str]) -> Statistics:
    """The sweep of a plan over the same model, by the same observer, that holds what is asked.

    A pipeline may calibrate more than once, and the same value then has a range in each of the models.
    """
    try:
        sweeps = [Statistics.from_dict(sweep) for sweep in planned.get("sweeps", []) if sweep.get("model") == structure]
        sweeps = [sweep for sweep in sweeps if not names or sweep.observer == observer]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UsageError(f"the statistics of the plan are damaged: {error}; build again without --plan") from error
    for statistics in sweeps:
        if names <= _known(statistics):
            return statistics
    missing = sorted(names - (_known(sweeps[0]) if sweeps else set()))[:3]
    raise UsageError(f"the plan has no statistics for {', '.join(missing)}; build again without --plan")
