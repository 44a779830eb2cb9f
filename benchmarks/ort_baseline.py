#!/usr/bin/env python3
"""What ONNX Runtime's own quantization makes of real models, in the configurations that its documentation names.

    python benchmarks/ort_baseline.py --zoo DIR --irc     # the models of DIR/zoo.py and the shipped example, and irc's artifacts
    python benchmarks/ort_baseline.py --only digits       # the shipped example alone

Four configurations of `quantize_static` and `quantize_dynamic`, each with the sentence it comes from: "guide" is
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "docstring" that of `quantize_static` in
onnxruntime 1.31. All start from the model that `quant_pre_process` returns ("it is best to perform model optimization during
pre-processing instead of during quantization", guide); its three steps are "optional" there, and a step that fails is left
out and named. A configuration that fails on the pre-processed model is tried on the original. Where the documentation says
nothing, options are the defaults.

- `s8s8`: "S8S8 with QDQ is the default setting and balances performance and accuracy. It should be the first choice." (guide)
- `u8s8`: "x86/x64 CPU with VNNI [...]: Use activation_type=QuantType.QUInt8 and weight_type=QuantType.QInt8 with
  reduce_range=False", and "Setting per_channel=False (the default) gives the best throughput on CPU." (docstring)
- `u8s8-channel`: "Per-channel quantization can improve the accuracy for models whose weight ranges are large. Try it if the
  accuracy loss is large." (guide)
- `qoperator`: U8S8 in the other of the "two ways to represent quantized ONNX models" (guide); U8S8, since "S8S8 with
  QOperator will be slow on x86-64 CPUs and should be avoided in general." (guide)
- `dynamic`: "it is recommended to use dynamic quantization for RNNs and transformer-based models" (guide)

`--reduce-range` gives the U8S8 ones 7-bit weights: "designed for the U8S8 format on AVX2 and AVX512 (non-VNNI) machines" (guide).

For each: the metric on the whole test split, latency ratios, bytes of the files, seconds to produce, or the message
with which it failed. irc's artifact is that of `irc.optimize` with its defaults on the same calibration samples.

All models take turns in one process, in a random order and then in its reverse (in a fixed one those at its ends would run
twice in a row, with warm caches), on a few calibration samples. A ratio is the median of the
ratios of neighbouring runs; its interval comes from order statistics of the medians of neighbouring rounds, at 95 %.
Sessions are opened anew halfway through, in the other order, since one of two equal sessions may be slow for as long as it lives. A
session stops spinning when its run ends (`session.force_spinning_stop`), or its threads would slow down whoever runs next.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from int8_accuracy_speed import Digits, Feed, size, tasks
from int8_accuracy_speed import session as scoring_session
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

FLOAT, IRC = "float", "irc"
STATIC: dict[str, dict[str, Any]] = {
    "s8s8": {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8},
    "u8s8": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8},
    "u8s8-channel": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True},
    "qoperator": {
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "quant_format": QuantFormat.QOperator,
    },
}
WARM_UP = 5
LEAST_ROUNDS = 40
OPENINGS = 2
BLOCKS = 20
BLOCK_INTERVAL = (5, 14)
"""The 6th and the 15th smallest of 20 block medians hold the median between them with 95.9 %."""


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio of latencies; above 1 when the model it is about is the faster one.

    Attributes:
        value: Median of the ratios of neighbouring runs.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the model is at least as fast."""
        if self.low <= 1 <= self.high:
            return "level"
        return "yes" if self.value > 1 else "no"


@dataclasses.dataclass
class Candidate:
    """One way to make a model, and what came of it.

    Attributes:
        name: `float`, a configuration, or `irc`.
        path: The model file; None where it could not be made.
        score: Task metric on the whole test split.
        loss: Loss of the metric relative to the float original; negative is a gain.
        speedup: Latency of the float original over this one's.
        against_irc: Latency of irc's artifact over this one's.
        size_bytes: Bytes of the model and its data.
        seconds: Time to produce it, pre-processing included.
        note: What was left out, or what irc says of its own artifact.
        error: Why there is nothing.
    """

    name: str
    path: Path | None = None
    score: float | None = None
    loss: float | None = None
    speedup: Ratio | None = None
    against_irc: Ratio | None = None
    size_bytes: int | None = None
    seconds: float | None = None
    note: str = ""
    error: str = ""

    def row(self) -> str:
        """One line of the table."""
        if self.error:
            return f"  {self.name:13s} {self.error}"
        fields = [
            f"{self.score:9.4f}" if self.score is not None else " " * 9,
            f"{self.loss:8.2%}" if self.loss is not None else " " * 8,
            _interval(self.speedup),
            _interval(self.against_irc),
            f"{self.size_bytes:11d}" if self.size_bytes is not None else " " * 11,
            f"{self.seconds:5.0f}s" if self.seconds is not None else " " * 6,
        ]
        return f"  {self.name:13s} {' '.join(fields)}  {self.note}".rstrip()


def _interval(ratio: Ratio | None) -> str:
    return " " * 19 if ratio is None else f"{ratio.value:5.2f} ({ratio.low:.2f} to {ratio.high:.2f})".ljust(19)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds in the form that the calibrator takes."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next feed."""
        return next(self._feeds, None)


def preprocessed(model: Path, folder: Path) -> tuple[Path, str]:
    """The model after as many of the documented steps as it survives, and what was left out."""
    out = folder / "preprocessed.onnx"
    attempts: tuple[tuple[str, dict[str, bool]], ...] = (
        ("", {}),
        ("without symbolic shape inference", {"skip_symbolic_shape": True}),
        ("without optimization and symbolic shapes", {"skip_symbolic_shape": True, "skip_optimization": True}),
    )
    for note, options in attempts:
        try:
            # What fails in the middle leaves a file in the working directory.
            with contextlib.chdir(out.resolve().parent):
                quant_pre_process(str(model.resolve()), str(out.resolve()), **options)
            return out, note
        except Exception as error:  # another library's failure is a result here
            reason = describe(error)
    return model, f"not pre-processed: {reason}"


def describe(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


def produced(name: str, make: Callable[[Path], str], path: Path) -> Candidate:
    """Makes a model; a failure is recorded."""
    start = time.perf_counter()
    try:
        note = make(path)
    except Exception as error:  # another library's failure is a result here
        return Candidate(name, error=describe(error))
    return Candidate(name, path, size_bytes=size(path), seconds=time.perf_counter() - start, note=note)


def peers(
    model: Path, feeds: Sequence[Feed], folder: Path, *, reduce_range: bool, only: str | None = None
) -> list[Candidate]:
    """The four static configurations and the dynamic one, or one of them."""
    start = time.perf_counter()
    source, note = preprocessed(model, folder)
    common = time.perf_counter() - start

    def loadable(quantize: Callable[[Path, Path], None]) -> Callable[[Path], str]:
        def make(path: Path) -> str:
            try:
                quantize(source, path)
                scoring_session(path, 1)
            except Exception as error:  # another library's failure is a result here
                quantize(model, path)
                scoring_session(path, 1)
                return f"from the original model: the pre-processed one gave {describe(error)}"
            return note

        return make

    def static(options: Mapping[str, Any]) -> Callable[[Path, Path], None]:
        reduced = reduce_range and options["activation_type"] == QuantType.QUInt8
        return lambda source, path: quantize_static(
            str(source), str(path), Reader(feeds), reduce_range=reduced, **options
        )

    def dynamic(source: Path, path: Path) -> None:
        quantize_dynamic(str(source), str(path))

    ways = {**{name: static(options) for name, options in STATIC.items()}, "dynamic": dynamic}
    asked = {name: way for name, way in ways.items() if only in (None, name)}
    found = [produced(name, loadable(way), folder / f"{name}.onnx") for name, way in asked.items()]
    for candidate in found:
        if candidate.seconds is not None:
            candidate.seconds += common
    return found


def compiled(model: Path, feeds: list[Feed], path: Path, threads: int) -> Candidate:
    """The artifact of irc's defaults."""
    # Here, since peers_worker.py uses this module where irc is not installed.
    import irc

    def make(path: Path) -> str:
        report = irc.optimize(model, data=feeds, output=path, threads=threads)
        counts = report.coverage.by_op_type() if report.coverage is not None else {}
        integer = " ".join(f"{op} {done}/{total}" for op, (done, total) in counts.items())
        return f"exit {report.exit_code}, {report.reverted} reverted, int8 {integer or 'none'}"

    return produced(IRC, make, path)


def timing_session(path: Path, threads: int) -> ort.InferenceSession:
    """A stock session that leaves the processor alone between its runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def latencies(paths: Sequence[Path], feeds: Sequence[Feed], *, threads: int, seconds: float) -> np.ndarray:
    """Seconds of single runs, [models, rounds]; every round runs every model on one feed."""
    rounds: list[list[float]] = []
    order = list(range(len(paths)))
    random = np.random.default_rng(0)
    turns = order
    for opening in range(OPENINGS):
        opened = {i: timing_session(paths[i], threads) for i in (order if opening % 2 == 0 else order[::-1])}
        for _, feed, i in itertools.product(range(WARM_UP), feeds, order):
            opened[i].run(None, feed)
        end = time.perf_counter() + seconds / OPENINGS
        here = 0
        while here < LEAST_ROUNDS or time.perf_counter() < end:
            # Both orders on a feed before the next feed.
            feed = feeds[here // 2 % len(feeds)]
            turns = [int(i) for i in random.permutation(order)] if here % 2 == 0 else turns[::-1]
            times = [0.0] * len(paths)
            for i in turns:
                start = time.perf_counter()
                opened[i].run(None, feed)
                times[i] = time.perf_counter() - start
            rounds.append(times)
            here += 1
    return np.array(rounds).T


def ratio(slow: np.ndarray, fast: np.ndarray) -> Ratio:
    """How much faster the second model is, from their runs in the same rounds."""
    ratios = slow / fast
    medians = np.sort([np.median(block) for block in np.array_split(ratios, BLOCKS)])
    value = float(np.median(ratios))
    low, high = (float(medians[i]) for i in BLOCK_INTERVAL)
    return Ratio(value, min(low, value), max(high, value))


def verdict(candidates: Mapping[str, Candidate], times: Mapping[str, np.ndarray], *, higher: bool) -> dict[str, Any]:
    """Which of the four is best, and where irc stands."""
    four = [candidates[name] for name in STATIC if name in times]
    if not four:
        return {}
    fastest = max(four, key=lambda c: c.speedup.value if c.speedup else 0.0).name
    best = max(four, key=lambda c: (c.score or 0.0) * (1 if higher else -1))
    found: dict[str, Any] = {"fastest": fastest, "most_accurate": best.name, "best_score": best.score}
    if IRC in times:
        found["irc_over_fastest"] = ratio(times[fastest], times[IRC])
        found["irc_over_float"] = ratio(times[FLOAT], times[IRC])
        if "dynamic" in times:
            found["irc_over_dynamic"] = ratio(times["dynamic"], times[IRC])
    return found


def measured(
    name: str, task: Any, folder: Path, *, samples: int, threads: int, seconds: float, feeds_timed: int, with_irc: bool,
    reduce_range: bool,
) -> dict[str, Any]:  # fmt: skip
    """Makes, scores and times all candidates of one model."""
    model, feeds = Path(task.model), list(task.calibration(samples))
    found = [Candidate(FLOAT, model, size_bytes=size(model))]
    found += peers(model, feeds, folder, reduce_range=reduce_range)
    if with_irc:
        found.append(compiled(model, feeds, folder / "irc.onnx", threads))
    for candidate in found:
        if candidate.path is None:
            continue
        try:
            run = scoring_session(candidate.path, threads)
            candidate.score = task.score(lambda feed, run=run: run.run(None, feed))
            for feed in feeds[:feeds_timed]:
                run.run(None, feed)
        except Exception as error:  # a model that does not run is a result here
            candidate.error = describe(error)
    candidates = {candidate.name: candidate for candidate in found}
    alive = [c for c in found if c.path is not None and not c.error]
    paths = [c.path for c in alive if c.path is not None]
    times = dict(
        zip(
            [c.name for c in alive],
            latencies(paths, feeds[:feeds_timed], threads=threads, seconds=seconds),
            strict=True,
        )
    )
    original = candidates[FLOAT].score
    for candidate in alive:
        if candidate.name != FLOAT:
            candidate.speedup = ratio(times[FLOAT], times[candidate.name])
        if original is not None and candidate.score is not None and candidate.name != FLOAT:
            change = original - candidate.score if task.higher else candidate.score - original
            candidate.loss = change / abs(original)
        if IRC in times and candidate.name != IRC:
            candidate.against_irc = ratio(times[IRC], times[candidate.name])
    return {
        "model": name,
        "metric": task.metric,
        "higher_is_better": task.higher,
        "candidates": found,
        "verdict": verdict(candidates, times, higher=task.higher),
        "milliseconds": {key: float(np.median(value)) * 1e3 for key, value in times.items()},
        "rounds": int(next(iter(times.values())).size),
    }


def show(result: Mapping[str, Any]) -> None:
    """Prints the table of one model and its verdict."""
    found: Sequence[Candidate] = result["candidates"]
    print(f"{result['model']}: {result['metric']}, {result['rounds']} rounds", flush=True)
    columns = f"{'metric':>9s} {'loss':>8s} {'speed over float':19s} {'speed over irc':19s} {'bytes':>11s} {'made':>6s}"
    print(f"  {'':13s} {columns}")
    for candidate in found:
        print(candidate.row())
    says = result["verdict"]
    if says:
        print(
            f"  of the four: fastest {says['fastest']}, most accurate {says['most_accurate']} ({says['best_score']:.4f})"
        )
        questions = {
            "irc_over_fastest": "at least as fast as the fastest of the four",
            "irc_over_float": "at least as fast as float",
            "irc_over_dynamic": "at least as fast as dynamic",
        }
        for key, question in questions.items():
            if key in says:
                print(f"  irc {question}: {says[key].verdict}, {_interval(says[key])}")
    print(flush=True)


def plain(value: Any) -> Any:
    """JSON-ready form; paths stay out of it."""
    if isinstance(value, Candidate):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.name != "path"}
        return {key: plain(item) for key, item in fields.items()}
    if isinstance(value, Ratio):
        return {**dataclasses.asdict(value), "verdict": value.verdict}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def chosen(zoo: Path | None, only: Sequence[str]) -> dict[str, Any]:
    """The tasks asked for: those of the zoo, if there is one, and the shipped example."""
    wanted = [name for name in only if name != "digits"]
    found = tasks(zoo, wanted) if zoo is not None and (wanted or not only) else {}
    if not only or "digits" in only:
        found["digits"] = Digits()
    if not found:
        raise SystemExit(f"{', '.join(only)}: give --zoo, the folder of its zoo.py")
    return found


def main() -> None:
    """Prints a table and a verdict per model, and with `--json` writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="folder with zoo.py; default: only the shipped example")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these models")
    parser.add_argument("--irc", action="store_true", help="irc's artifacts beside them")
    parser.add_argument("--samples", type=int, default=128, help="calibration samples")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="of timing, per model")
    parser.add_argument("--feeds", type=int, default=4, help="calibration samples that are timed, in turn")
    parser.add_argument("--reduce-range", action="store_true", help="7-bit weights for U8S8: a machine without VNNI")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the models in DIR/MODEL")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    results = []
    for name, task in chosen(args.zoo, args.only).items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) if args.keep is None else args.keep / name
            folder.mkdir(parents=True, exist_ok=True)
            result = measured(
                name, task, folder, samples=args.samples, threads=args.threads, seconds=args.seconds,
                feeds_timed=args.feeds, with_irc=args.irc, reduce_range=args.reduce_range,
            )  # fmt: skip
        show(result)
        results.append(plain(result))
        if args.json:
            runtime = {"onnxruntime": ort.__version__, "samples": args.samples, "threads": args.threads}
            args.json.write_text(json.dumps({**runtime, "models": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
