"""Two models side by side: what differs in the graph, how far the outputs are apart, which is faster.

`compare` never fails because two models cannot be compared in some respect; it says in `notes` what was not compared
and why. The JSON of `irc compare --json` is `Comparison.to_dict`:

    irc, schema          version of irc; 1 (grows when a field changes its meaning or goes away, not when one is added)
    identical            whether the files are equal byte by byte
    a, b                 facts of each model, as `irc inspect --json` gives them, without lists of nodes and tensors
    interface            differences of inputs and outputs, in words; empty if there are none
    operators            [{operator, a, b}]: numbers of nodes, where they differ
    constants            {equal, changed, only_a, only_b}: numbers of constants by name; equal: type, shape and bytes
    data                 {name, samples, generated}; null if nothing was run
    outputs              [{name, name_b, dtype, identical, sqnr_db, relative_error, largest_error, agreement,
                         top1_agreement, decisions, non_finite, shapes}]; null where it does not apply
    layers               [{name, operator, sqnr_db, relative_error, inputs_db, module, shapes}] in graph order;
                         null if not asked for
    latency              {original: A, artifact: B, each {median_ms, low_ms, high_ms, runs};
                         speedup, low, high, batch, threads}, or null
    notes                what was not compared and why; how inputs were adapted

Numbers that are not finite are the texts "inf", "-inf" and "nan".
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from irc.analysis.description import describe
from irc.analysis.graph_difference import constant_differences, equal_files, operator_differences
from irc.analysis.interface_difference import Pairing, interface_differences, pair_inputs, pair_outputs
from irc.analysis.type_names import type_name
from irc.errors import DataError, RunnerError, UsageError
from irc.judge.classifier import class_scores
from irc.layer_comparison import LayerDifference, compare_layers
from irc.numeric_difference import NumericDifference, TopOne

if TYPE_CHECKING:
    from irc.calibration import DataSource, Feed
    from irc.latency import LatencyComparison
    from irc.runner import Opened, Runner

SCHEMA = 1
GENERATED_SAMPLES = 8
LATENCY_SAMPLES = 4
Progress = Callable[[float, str], None]


@dataclasses.dataclass(frozen=True)
class OutputDifference:
    """One output of both models over all samples.

    Attributes:
        name: Its name in A.
        name_b: Its name in B.
        dtype: Its element type in A.
        identical: Whether it is equal, bit for bit up to the sign of zero and the kind of NaN.
        sqnr_db: SQNR in dB, infinite for no difference; None for what is not floating point.
        relative_error: Relative error; None like `sqnr_db`.
        largest_error: Largest absolute difference; None like `sqnr_db`.
        agreement: Share of equal elements, for what is not floating point.
        top1_agreement: Share of equal decisions, for class scores.
        decisions: How many decisions that is.
        non_finite: Elements that are NaN or infinite in one model only.
        shapes: The first pair of shapes that differ, in words; such samples are not compared.
    """

    name: str
    name_b: str
    dtype: str
    identical: bool
    sqnr_db: float | None
    relative_error: float | None
    largest_error: float | None
    agreement: float | None
    top1_agreement: float | None
    decisions: int
    non_finite: int
    shapes: str


@dataclasses.dataclass
class Comparison:
    """What two models have in common and what not; the module describes the JSON.

    Attributes:
        a: Facts of A.
        b: Facts of B.
        identical: Whether the files are equal.
        interface: Differences of inputs and outputs, in words.
        operators: Numbers of nodes in A and B, by operator, where they differ.
        constants: Numbers of equal, changed and lonely constants.
        outputs: Differences of outputs; empty if they were not compared.
        data: What the samples are, in words; "" if nothing was run.
        samples: How many ran through both.
        generated: Whether the samples are made up.
        layers: Differences of values of the same name; None if not asked for.
        latency: A is the original, B the artifact; None if not measured.
        notes: What was not compared and why.
    """

    a: dict[str, Any]
    b: dict[str, Any]
    identical: bool
    interface: list[str]
    operators: dict[str, tuple[int, int]]
    constants: dict[str, int]
    outputs: list[OutputDifference] = dataclasses.field(default_factory=list)
    data: str = ""
    samples: int = 0
    generated: bool = False
    layers: list[LayerDifference] | None = None
    latency: LatencyComparison | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        import irc
        from irc.report.build_report import json_ready

        document = {
            "irc": irc.__version__,
            "schema": SCHEMA,
            "identical": self.identical,
            "a": self.a,
            "b": self.b,
            "interface": self.interface,
            "operators": [{"operator": name, "a": a, "b": b} for name, (a, b) in self.operators.items()],
            "constants": self.constants,
            "data": {"name": self.data, "samples": self.samples, "generated": self.generated} if self.data else None,
            "outputs": [dataclasses.asdict(output) for output in self.outputs],
            "layers": None if self.layers is None else [dataclasses.asdict(layer) for layer in self.layers],
            "latency": None if self.latency is None else self.latency.to_dict(),
            "notes": self.notes,
        }
        ready: dict[str, Any] = json_ready(document)
        return ready


def compare(
    a: str | Path,
    b: str | Path,
    *,
    data: Any = None,
    samples: int | None = None,
    per_layer: bool = False,
    measure: bool = True,
    batch: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress = lambda fraction, what: None,
) -> Comparison:
    """Compares two model files; A is the reference.

    Args:
        a: An ONNX file.
        b: Another.
        data: Samples as in `irc.optimize`, fitting A; None for made-up inputs.
        samples: Use at most this many.
        per_layer: Compare values of the same name inside the models too.
        measure: Measure latency.
        batch: Batch size of the latency measurement: samples are repeated along axis 0.
        threads: Threads of the runtime; default all cores.
        seed: Seed of made-up inputs.
        progress: Called with a fraction in [0, 1] and what is being done.

    Raises:
        ModelError: If a model cannot be loaded.
        DataError: If the data does not fit A.
        UsageError: If a number is out of range.
    """
    from irc.ir import load
    from irc.runner import Runner

    for name, value in (("samples", samples), ("batch", batch), ("threads", threads)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; it must be at least 1")
    progress(0.0, "loading the models")
    paths = (Path(a), Path(b))
    models = (load(paths[0]), load(paths[1]))
    facts = [_facts(model, path) for model, path in zip(models, paths, strict=True)]
    found = Comparison(
        a=facts[0],
        b=facts[1],
        identical=equal_files(*paths, data_files=[row["file"] for row in facts[0]["external_data"]]),
        interface=interface_differences(*models),
        operators=operator_differences(*models),
        constants=constant_differences(*models),
    )
    with Runner(threads=threads) as runner:
        _Execution(found, paths, models, runner, data, samples, seed, progress).run(
            per_layer=per_layer, measure=measure, batch=batch
        )
    progress(1.0, "done")
    return found


class _Execution:
    """Runs both models and fills in what a comparison of graphs cannot tell."""

    def __init__(
        self,
        found: Comparison,
        paths: tuple[Path, Path],
        models: tuple[ir.Model, ir.Model],
        runner: Runner,
        data: Any,
        samples: int | None,
        seed: int,
        progress: Progress,
    ) -> None:
        self._found, self._paths, self._models, self._runner = found, paths, models, runner
        self._limit, self._progress = samples, progress
        self._source = self._open_data(data, seed)
        self._inputs = pair_inputs(*models)

    def run(self, *, per_layer: bool, measure: bool, batch: int | None) -> None:
        notes = self._found.notes
        if self._source is None:
            return
        if self._inputs.impossible:
            notes.append(f"nothing was run: {self._inputs.impossible}")
            return
        notes += self._inputs.notes
        opened = self._open()
        if opened is None:
            return
        if not self._compare_outputs(*opened):
            return
        if measure:
            self._measure(*opened, batch)
        if per_layer:
            self._compare_layers()

    def _open_data(self, data: Any, seed: int) -> DataSource | None:
        from irc.calibration import generate_feeds, open_data

        found = self._found
        if data is not None:
            source = open_data(data, self._models[0], seed=seed)
        else:
            try:
                source = generate_feeds(
                    self._models[0], count=min(self._limit or GENERATED_SAMPLES, GENERATED_SAMPLES), seed=seed
                )
            except DataError as error:
                found.notes.append(f"nothing was run: {error}")
                return None
        found.generated = source.synthetic
        return source

    def _feeds(self) -> Iterator[Feed]:
        assert self._source is not None
        return (sample.feed for sample in itertools.islice(self._source.samples(), self._limit))

    @property
    def _count(self) -> int:
        total = len(self._source) if self._source is not None else 0
        return min(total, self._limit or total)

    def _open(self) -> tuple[Opened, Opened] | None:
        opened = []
        for letter, path in zip("AB", self._paths, strict=True):
            self._progress(0.05, f"opening {path.name}")
            try:
                opened.append(self._runner.open(path))
            except RunnerError as error:
                self._found.notes.append(f"nothing was run: the runtime does not open {letter}, {path.name}: {error}")
                return None
        return opened[0], opened[1]

    # -- outputs ------------------------------------------------------------------------------------------------------

    def _compare_outputs(self, first: Opened, second: Opened) -> bool:
        """Runs every sample through both; whether both run."""
        found = self._found
        pairing = pair_outputs(*self._models)
        if pairing.impossible:
            found.notes.append(f"outputs were not compared: {pairing.impossible}")
        found.notes += pairing.notes
        values = {value.name: value for value in self._models[0].graph.outputs}
        totals = {name: NumericDifference() for name in pairing.names}
        readings = {name: class_scores(values[name]) for name in pairing.names}
        decided = {name: TopOne(reading) for name, reading in readings.items() if reading is not None}
        count = self._count
        for index, feed in enumerate(self._feeds()):
            self._progress(0.1 + 0.5 * index / max(count, 1), f"comparing outputs, sample {index + 1} of {count}")
            mine = self._run("A", first, feed, index)
            theirs = self._run("B", second, self._inputs.feed(feed), index) if mine is not None else None
            if mine is None or theirs is None:
                break
            for name, other in pairing.names.items():
                totals[name].add(mine[name], theirs[other])
                if name in decided:
                    decided[name].add(mine[name], theirs[other])
            found.samples += 1
        if not found.samples:
            return False
        assert self._source is not None
        found.data = self._source.name
        found.outputs = [
            _output_difference(
                name, pairing.names[name], type_name(values[name].dtype), totals[name], decided.get(name)
            )
            for name in totals
        ]
        return True

    def _run(self, letter: str, opened: Opened, feed: Feed, index: int) -> dict[str, Any] | None:
        try:
            return opened.run(feed)
        except RunnerError as error:
            what = "made-up inputs do not run through" if self._found.generated else "does not run through"
            subject = what if self._found.generated else f"sample {index} {what}"
            advice = "; give --data" if self._found.generated and letter == "A" else ""
            done = f"only {index} samples were compared" if index else "outputs were not compared"
            self._found.notes.append(f"{done}: {subject} {letter}: {error}{advice}")
            return None

    # -- layers, latency ----------------------------------------------------------------------------------------------

    def _compare_layers(self) -> None:
        found = self._found

        def progress(fraction: float, what: str) -> None:
            self._progress(0.7 + 0.3 * fraction, what)

        try:
            found.layers = compare_layers(
                self._runner, *self._models, self._feeds(), self._inputs, count=self._count, progress=progress
            )
        except RunnerError as error:
            found.notes.append(f"layers were not compared: {error}")
            return
        if not found.layers:
            found.notes.append("layers were not compared: no value has the same name in both models")

    def _measure(self, first: Opened, second: Opened, batch: int | None) -> None:
        from irc.latency import batched, compare_latency

        found = self._found
        if not self._inputs.same:
            found.notes.append("latency was not measured: the models do not take the same inputs")
            return
        self._progress(0.62, "measuring latency")
        feeds = list(itertools.islice(self._feeds(), LATENCY_SAMPLES))
        if batch is not None:
            feeds = [batched(feed, batch) for feed in feeds]
        try:
            found.latency = compare_latency(
                self._runner, first, second, feeds, batch=_batch_of(feeds[0]), threads=self._runner.threads
            )
        except RunnerError as error:
            advice = f" at batch {batch}" if batch is not None else ""
            found.notes.append(f"latency was not measured: the models do not run{advice}: {error}")


def _output_difference(
    name: str, other: str, dtype: str, total: NumericDifference, decided: TopOne | None
) -> OutputDifference:
    floating = total.floating and total.elements > 0
    top1 = decided.agreement if decided is not None else None
    return OutputDifference(
        name=name,
        name_b=other,
        dtype=dtype,
        identical=total.identical,
        sqnr_db=total.sqnr_db,
        relative_error=total.relative_error,
        largest_error=total.largest if floating else None,
        agreement=None if floating else total.agreement,
        top1_agreement=top1,
        decisions=decided.decisions if decided is not None and top1 is not None else 0,
        non_finite=total.non_finite,
        shapes=total.shapes,
    )


def _facts(model: ir.Model, path: Path) -> dict[str, Any]:
    document = describe(model, path=path, top=0)
    return {key: value for key, value in document.items() if key not in ("irc", "schema", "heaviest_nodes", "tensors")}


def _batch_of(feed: Feed) -> int | None:
    sizes = {array.shape[0] for array in feed.values() if array.ndim}
    return int(sizes.pop()) if len(sizes) == 1 else None


__all__ = ["Comparison", "LayerDifference", "OutputDifference", "Pairing", "compare"]
