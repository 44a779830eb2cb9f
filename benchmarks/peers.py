#!/usr/bin/env python3
"""irc beside the peers on real models, each peer in an environment of its own: metric, latency, size, seconds to produce.

    python benchmarks/peers.py --zoo DIR [--names resnet20 minilm] [--peers nncf onnxsim] [--json FILE]
    python benchmarks/peers.py                      # the model that ships in examples/

The rows of a model, all from the same calibration samples (128), no option chosen per model:

- `fp32`: the original.
- `irc`: `irc optimize -O2 --data FOLDER`, as a command.
- `ort-static`: the best of the four documented configurations of `quantize_static` (ort_baseline.py says which): the fastest
  of those whose metric is within `--tolerance` of the most accurate one's. The note has the other three.
- `ort-dynamic`: `quantize_dynamic` with its defaults, on the pre-processed model as its documentation asks.
- `nncf`: `nncf.quantize(model, nncf.Dataset(feeds), subset_size=samples)`; `nncf-transformer`: with `model_type=TRANSFORMER`, which its
  documentation asks for on transformers. Where it fails it gets what onnxsim made of the model, and the note says so.
- `onnxsim`: `onnxsim.simplify(model)`, a simplifier: it stays float.

Metric: on the whole test split, in stock ONNX Runtime; `loss` is relative to the original, negative is a gain. Latency: that of
the row over that of the original, and over that of irc's artifact, with 95 % intervals; the three take turns in one process, sessions
are opened anew halfway through in the other order, a value is the mean of both and an interval spans both. Below 1 is faster.
Size: bytes of the files over those of the original. Seconds: from the model file to the artifact's file, without imports; irc's are those
of its report, in which it also judges and times what it made.

Environments lie in `--environments` (default: a folder in the user's cache) and are made on first use, by `python -m venv` and pip
from the index that pip is configured for, in the versions that `ENVIRONMENTS` names; irc is in none. What cannot be installed, fails,
or takes longer than `--limit` is said in its row, and the rest goes on. `zoo.py` is as int8_accuracy_speed.py says.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from int8_accuracy_speed import Feed, size
from int8_accuracy_speed import session as scoring_session
from ort_baseline import STATIC, chosen, describe

from irc.errors import RunnerError
from irc.latency import Ratio, measure
from irc.runner import Runner

FLOAT, IRC, BEST = "fp32", "irc", "ort-static"
ENVIRONMENTS = {
    # onnxruntime in the version of the stock runtime that judges; NNCF and onnxsim name no versions of it and of onnx.
    "onnxruntime": ("onnxruntime==1.31.1", "onnx==1.23.2", "sympy==1.14.0"),
    "nncf": ("nncf==3.4.0", "onnxruntime==1.31.1", "onnx==1.23.2", "onnxsim==0.8.1"),
    "onnxsim": ("onnxsim==0.8.1", "onnxruntime==1.31.1", "onnx==1.23.2"),
}
WAYS = {"onnxruntime": "ort", "nncf": "nncf", "onnxsim": "onnxsim"}
PEERS = {
    BEST: ("onnxruntime", tuple(STATIC)),
    "ort-dynamic": ("onnxruntime", ("dynamic",)),
    "nncf": ("nncf", ("",)),
    "nncf-transformer": ("nncf", ("transformer",)),
    "onnxsim": ("onnxsim", ("",)),
}
"""Environment and configurations by row; of several configurations the best is the row."""
WORKER = Path(__file__).resolve().with_name("peers_worker.py")
INSTALL_SECONDS = 1200


class PeerError(Exception):
    """Why there is no artifact, in one line."""


@dataclasses.dataclass(eq=False)
class Row:
    """One way to make a model, and what came of it.

    Attributes:
        name: `fp32`, `irc`, a peer, or `ort-static:CONFIGURATION`.
        path: The artifact; None where there is none.
        score: Task metric on the whole test split.
        loss: Loss of the metric relative to the original; negative is a gain.
        latency: Latency over the original's.
        over_irc: Latency over that of irc's artifact.
        size: Bytes over the original's.
        seconds: Time to produce it.
        note: What was left out, or what irc says of its own artifact.
        error: Why there is nothing.
    """

    name: str
    path: Path | None = None
    score: float | None = None
    loss: float | None = None
    latency: Ratio | None = None
    over_irc: Ratio | None = None
    size: float | None = None
    seconds: float | None = None
    note: str = ""
    error: str = ""

    def line(self) -> str:
        """One line of the table."""
        if self.error:
            return f"  {self.name:16s} {self.error}"
        fields = [
            f"{self.score:8.4f}" if self.score is not None else " " * 8,
            f"{self.loss:8.2%}" if self.loss is not None else " " * 8,
            _interval(self.latency),
            _interval(self.over_irc),
            f"{self.size:6.3f}" if self.size is not None else " " * 6,
            f"{self.seconds:5.0f}s" if self.seconds is not None else " " * 6,
        ]
        return f"  {self.name:16s} {' '.join(fields)}  {self.note}".rstrip()

    def plain(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "path"}


def _interval(ratio: Ratio | None) -> str:
    return " " * 19 if ratio is None else f"{ratio.value:5.2f} ({ratio.low:.2f} to {ratio.high:.2f})".ljust(19)


def default_environments() -> Path:
    """A folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irc-peers"


def child_variables() -> dict[str, str]:
    """The environment of a peer's process: no other packages than its own, no progress bars, no telemetry of NNCF."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return {**kept, "NNCF_CI": "1", "TQDM_DISABLE": "1"}


def run(command: Sequence[str | Path], log: Path, seconds: float, *, cwd: Path | None = None) -> int:
    """Exit code of a command whose output goes to a file.

    Raises:
        PeerError: If it takes too long, or cannot be started.
    """
    with log.open("wb") as stream:
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, timeout=seconds, cwd=cwd,
                env=child_variables(),
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PeerError(f"no answer within {seconds:.0f} s") from None
        except OSError as error:
            raise PeerError(describe(error)) from error


def last_words(log: Path) -> str:
    """The last line with text, an error of pip before any other."""
    lines = [" ".join(line.split()) for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return ([*lines, *errors] or ["no output"])[-1][:200]


def interpreter(name: str, folder: Path) -> Path:
    """The interpreter of an environment, which is made unless it is there in these versions.

    Raises:
        PeerError: If it cannot be made.
    """
    where = folder / name
    python = where / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    made, wanted = where / "requirements.txt", "\n".join(ENVIRONMENTS[name]) + "\n"
    if made.exists() and made.read_text() == wanted:
        return python
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(where, ignore_errors=True)
    venv: list[str | Path] = [sys.executable, "-m", "venv", where]
    pip: list[str | Path] = [python, "-I", "-m", "pip", "install", "--quiet", "--no-input"]
    log = folder / f"{name}.log"
    for command in (venv, [*pip, "--disable-pip-version-check", *ENVIRONMENTS[name]]):
        if run(command, log, INSTALL_SECONDS) != 0:
            raise PeerError(f"environment not made: {last_words(log)}")
    made.write_text(wanted)
    return python


class Bench:
    """Makes the artifacts.

    Args:
        environments: Folder of the environments.
        limit: Seconds that one artifact may take.
        threads: Threads of irc's runtime; the peers have no such option.
        reduce_range: 7-bit weights in the U8S8 configurations.

    Attributes:
        versions: Packages by environment, as its process saw them.
    """

    def __init__(self, environments: Path, *, limit: float, threads: int, reduce_range: bool) -> None:
        self._environments, self._limit = environments, limit
        self._threads, self._reduce_range = threads, reduce_range
        self._failed: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}

    def irc(self, model: Path, feeds: Path, folder: Path) -> Row:
        """What `irc optimize -O2` makes; its cache of statistics stays out, or a second run would take less time."""
        output, log = folder / "model.onnx", folder / "report.json"
        command: list[str | Path] = [sys.executable, "-m", "irc", "optimize", model, "-O2", "--data", feeds]
        command += ["-o", output, "--threads", str(self._threads), "--no-cache", "--json"]
        try:
            code = run(command, log, self._limit)
        except PeerError as error:
            return Row(IRC, error=str(error))
        text = log.read_text(errors="replace")
        with contextlib.suppress(ValueError):
            # Warnings may stand before the report.
            report = json.loads(text[text.index("{") :])
            if output.exists():
                counts = report["coverage"]["by_op_type"] if report.get("coverage") else {}
                integer = " ".join(f"{op} {c['integer']}/{c['total']}" for op, c in counts.items()) or "none"
                note = f"exit {code}, {report['reverted']} reverted, int8 {integer}"
                return Row(IRC, output, seconds=report["seconds"], note=note)
        return Row(IRC, error=f"exit {code}: {last_words(log)}")

    def peer(self, name: str, environment: str, configuration: str, model: Path, feeds: Path, folder: Path) -> Row:
        """What a peer makes, in its own environment."""
        answer, log = folder / "answer.json", folder / "log.txt"
        request = {
            "way": WAYS[environment],
            "configuration": configuration,
            "model": str(model),
            "feeds": str(feeds),
            "output": str(folder / "model.onnx"),
            "answer": str(answer),
            "reduce_range": self._reduce_range,
        }
        try:
            python = self._python(environment)
            code = run([python, "-I", WORKER, json.dumps(request)], log, self._limit, cwd=folder)
            if not answer.exists():
                raise PeerError(f"the process died ({code}): {last_words(log)}")
        except PeerError as error:
            return Row(name, error=str(error))
        found = json.loads(answer.read_text())
        self.versions[environment] = found["versions"]
        if "error" in found:
            return Row(name, error=found["error"])
        return Row(name, folder / "model.onnx", seconds=found["seconds"], note=found["note"])

    def _python(self, environment: str) -> Path:
        if environment in self._failed:
            raise PeerError(self._failed[environment])
        try:
            return interpreter(environment, self._environments)
        except PeerError as error:
            self._failed[environment] = str(error)
            raise


def judged(zoo: Path | None, name: str, path: Path, threads: int, feeds: Sequence[Feed]) -> float:
    """The metric of a file that also runs the feeds to be timed."""
    run = scoring_session(path, threads)
    for feed in feeds:
        run.run(None, feed)
    return float(chosen(zoo, [name])[name].score(lambda feed: run.run(None, feed)))


def score(row: Row, zoo: Path | None, name: str, threads: int, feeds: Sequence[Feed]) -> None:
    """Fills in the metric, found in a process of its own: a file on which the runtime crashes is a result."""
    context = multiprocessing.get_context("spawn")
    assert row.path is not None
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            row.score = pool.submit(judged, zoo, name, row.path, threads, feeds).result()
        except concurrent.futures.process.BrokenProcessPool:
            row.error = "ONNX Runtime died of it"
        except Exception as error:  # a model that does not run is a result here
            row.error = describe(error)


def time_rows(rows: Sequence[Row], feeds: Sequence[Feed], *, seconds: float, threads: int) -> dict[str, float]:
    """Fills in the ratios of latencies; returns milliseconds by row, of when it was timed last."""
    # Few at a time: of ten that take turns those compared would lie far apart, and a machine changes meanwhile.
    bases = [row for row in rows if row.name in (FLOAT, IRC)]
    halves: dict[str, list[dict[str, Ratio]]] = {row.name: [] for row in rows}
    milliseconds: dict[str, float] = {}
    for direction in (1, -1):
        with Runner(threads=threads) as runner:
            opened = {row.name: runner.open(row.path) for row in rows[::direction] if row.path is not None}
            for row in rows[1:][::direction]:
                names = [turn.name for turn in dict.fromkeys((*bases, row))][::direction]
                measured = measure(runner, [opened[n] for n in names], feeds, seconds_per_model=seconds / 2)
                place = {name: index for index, name in enumerate(names)}
                ratios = {base.name: measured.ratio(place[row.name], place[base.name]) for base in bases}
                halves[row.name].append(ratios)
                milliseconds |= {name: measured.timings[place[name]].median_ms for name in names}
    for row in rows[1:]:
        row.latency = _joined(halves[row.name], FLOAT)
        if row.name != IRC and any(base.name == IRC for base in bases):
            row.over_irc = _joined(halves[row.name], IRC)
    return milliseconds


def _joined(halves: Sequence[Mapping[str, Ratio]], base: str) -> Ratio:
    one, other = (half[base] for half in halves)
    return Ratio(float(np.sqrt(one.value * other.value)), min(one.low, other.low), max(one.high, other.high))


def best(rows: Sequence[Row], *, higher: bool, tolerance: float, name: str) -> Row:
    """The fastest of the configurations that are as accurate as the most accurate one, within a relative tolerance."""
    alive = [row for row in rows if row.score is not None and row.latency is not None]
    if not alive:
        return Row(name, error="; ".join(f"{_configuration(row)}: {row.error or 'not timed'}" for row in rows))
    top = max((row.score or 0.0) if higher else -(row.score or 0.0) for row in alive)
    near = [
        r for r in alive if top - ((r.score or 0.0) if higher else -(r.score or 0.0)) <= tolerance * max(abs(top), 1e-9)
    ]
    row = min(near, key=lambda row: row.latency.value if row.latency else float("inf"))
    others = [
        f"{_configuration(other)} {other.error}"
        if other.error or other.score is None or other.latency is None
        else f"{_configuration(other)} {other.score:.4f} at {other.latency.value:.2f}"
        for other in rows
        if other is not row
    ]
    notes = [
        _configuration(row),
        *([row.note] if row.note else []),
        *(["others: " + ", ".join(others)] if others else []),
    ]
    return dataclasses.replace(row, name=name, note="; ".join(notes))


def _configuration(row: Row) -> str:
    return row.name.rpartition(":")[2]


def advantages(row: Row, mine: Row) -> list[str]:
    """Where a peer is better than irc."""
    found = []
    if row.loss is not None and mine.loss is not None and row.loss < mine.loss:
        found.append(f"metric by {mine.loss - row.loss:.2%}")
    if row.over_irc is not None and row.over_irc.high < 1:
        found.append(f"latency {row.over_irc.value:.2f} of irc's")
    if row.size is not None and mine.size is not None and row.size < mine.size:
        found.append(f"size {row.size / mine.size:.3f} of irc's")
    if row.seconds is not None and mine.seconds is not None and row.seconds < mine.seconds:
        found.append(f"made in {row.seconds / mine.seconds:.2f} of the time")
    return found


def compared(name: str, task: Any, folder: Path, bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Makes, scores and times everything of one model."""
    model, feeds = Path(task.model).resolve(), list(task.calibration(args.samples))
    data = folder / "feeds"
    data.mkdir()
    for i, feed in enumerate(feeds):
        np.savez(data / f"{i:05d}.npz", **feed)

    def place(label: str) -> Path:
        where = folder / label.replace(":", "-")
        where.mkdir()
        return where

    rows = [Row(FLOAT, model)]
    if not args.no_irc:
        rows.append(bench.irc(model, data, place(IRC)))
    for peer in args.peers:
        environment, configurations = PEERS[peer]
        for configuration in configurations:
            label = f"{peer}:{configuration}" if len(configurations) > 1 else peer
            rows.append(bench.peer(label, environment, configuration, model, data, place(label)))
    timed = feeds[: args.feeds]
    for row in rows:
        if row.path is not None:
            score(row, args.zoo, name, args.threads, timed)
            row.size = size(row.path) / size(model)
    original = rows[0].score
    if original is None:
        raise SystemExit(f"{name}: the original does not run: {rows[0].error}")
    alive = [row for row in rows if row.score is not None]
    for row in alive[1:]:
        assert row.score is not None
        row.loss = (original - row.score if task.higher else row.score - original) / abs(original)
    milliseconds, note = {}, ""
    try:
        milliseconds = time_rows(alive, timed, seconds=args.seconds, threads=args.threads)
    except RunnerError as error:
        note = f"not timed: {error}"
    shown = []
    for row in rows:
        peer = row.name.partition(":")[0]
        if peer == row.name:
            shown.append(row)
        elif all(other.name != peer for other in shown):
            group = [other for other in rows if other.name.startswith(f"{peer}:")]
            shown.append(best(group, higher=task.higher, tolerance=args.tolerance, name=peer))
    return {
        "model": name, "metric": task.metric, "higher_is_better": task.higher, "note": note, "rows": shown,
        "configurations": [row for row in rows if ":" in row.name], "milliseconds": milliseconds,
    }  # fmt: skip


def show(result: Mapping[str, Any]) -> None:
    """Prints the table of one model, and where a peer is better."""
    rows: Sequence[Row] = result["rows"]
    print(f"{result['model']}: {result['metric']} {result['note']}".rstrip())
    print(
        f"  {'':16s} {'metric':>8s} {'loss':>8s} {'latency / fp32':19s} {'latency / irc':19s} {'size':>6s} {'made':>6s}"
    )
    for row in rows:
        print(row.line())
    mine = next((row for row in rows if row.name == IRC and row.score is not None), None)
    if mine is not None:
        for row in rows:
            better = advantages(row, mine) if row.name not in (FLOAT, IRC) and not row.error else []
            if better:
                print(f"  {row.name} is better than irc in: {', '.join(better)}")
    print(flush=True)


def main() -> None:
    """Prints a table per model, and with `--json` writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="folder with zoo.py; default: the shipped example")
    parser.add_argument(
        "--names", nargs="+", default=[], metavar="NAME", help="only these models; digits is the example"
    )
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), metavar="PEER",
                        help=f"of {', '.join(PEERS)}")  # fmt: skip
    parser.add_argument("--no-irc", action="store_true", help="the peers alone")
    parser.add_argument("--samples", type=int, default=128, help="calibration samples")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="of timing, per file, and as much for each it is compared with"
    )
    parser.add_argument("--feeds", type=int, default=4, help="calibration samples that are timed, in turn")
    parser.add_argument("--tolerance", type=float, default=0.001, help="relative, within which metrics count as equal")
    parser.add_argument("--reduce-range", action="store_true", help="7-bit weights for U8S8: a machine without VNNI")
    parser.add_argument("--environments", type=Path, default=default_environments(), metavar="DIR")
    parser.add_argument("--limit", type=float, default=1800.0, metavar="SECONDS", help="that one artifact may take")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the models in DIR/MODEL")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args()
    bench = Bench(args.environments.resolve(), limit=args.limit, threads=args.threads, reduce_range=args.reduce_range)
    wanted = args.names or ([] if args.zoo is not None else ["digits"])
    results = []
    for name, task in chosen(args.zoo, wanted).items():
        with tempfile.TemporaryDirectory(prefix="peers-") as temporary:
            folder = Path(temporary) if args.keep is None else args.keep.resolve() / name
            if args.keep is not None:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            result = compared(name, task, folder, bench, args)
        show(result)
        rows = {key: [row.plain() for row in result[key]] for key in ("rows", "configurations")}
        results.append({**result, **rows})
        if args.json:  # after each model: all of them take long
            facts = {"onnxruntime": ort.__version__, "samples": args.samples, "threads": args.threads}
            document = {**facts, "environments": bench.versions, "models": results}
            args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
