#!/usr/bin/env python3
"""What `irc optimize` (its defaults, 128 samples, no per-model options) does to real models, in one table.

    python benchmarks/int8_accuracy_speed.py --zoo DIR      # the models and metrics of DIR/zoo.py
    python benchmarks/int8_accuracy_speed.py                # the model that ships in examples/

For each model: the task metric of the original and of the artifact on the whole test split, both in stock ONNX Runtime; the
latency ratio, the two taking turns in one process on the first calibration sample; the size of the artifact against
the file that `-O0` writes. `--peers` adds ONNX Runtime's own static quantization with its defaults.

`zoo.py` is a module with `TASKS` and `load(name) -> task`, where a task has `.model` (path), `.calibration(n)` (feeds),
`.score(run)` (metric), `.metric` and `.higher`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

ROOT = Path(__file__).resolve().parent.parent
Feed = dict[str, np.ndarray]
Run = Callable[[Feed], list[np.ndarray]]


@dataclasses.dataclass
class Row:
    """One model in the table; ratios are artifact to original, speed-up is original to artifact time."""

    model: str
    metric: str
    original: float
    artifact: float
    loss: float
    speedup: float
    size_ratio: float
    int8: str
    reverted: int
    exit_code: int
    seconds: float
    peer: str = ""


class Digits:
    """The example that ships with the project, in the form of a zoo task."""

    metric, higher = "top-1 accuracy", True
    model = ROOT / "examples" / "digits" / "digits.onnx"

    def __init__(self) -> None:
        calibration = np.load(self.model.with_name("calib.npz"))
        test = np.load(self.model.with_name("test.npz"))
        name = ort.InferenceSession(str(self.model), providers=["CPUExecutionProvider"]).get_inputs()[0].name
        (label,) = [key for key in test.files if key != name]
        self._name, self._x, self._y, self._calibration = name, test[name], test[label], calibration[name]

    def calibration(self, count: int) -> list[Feed]:
        """The first calibration feeds."""
        return [{self._name: x[None]} for x in self._calibration[:count]]

    def score(self, run: Run) -> float:
        """Accuracy on the test split."""
        hits = sum(
            int((run({self._name: self._x[i : i + 64]})[0].argmax(-1) == self._y[i : i + 64]).sum())
            for i in range(0, len(self._y), 64)
        )
        return hits / len(self._y)


def tasks(zoo: Path | None, names: Sequence[str]) -> dict[str, Any]:
    """Tasks by name: those of the zoo, or the shipped example."""
    if zoo is None:
        return {"digits": Digits()}
    spec = importlib.util.spec_from_file_location("zoo", zoo / "zoo.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{zoo} has no zoo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo"] = module
    spec.loader.exec_module(module)
    return {name: module.load(name) for name in (names or module.TASKS)}


def session(path: Path, threads: int) -> ort.InferenceSession:
    """A stock session."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def speedup(a: Path, b: Path, feed: Feed, *, threads: int, seconds: float) -> float:
    """Median time of `a` over median time of `b`, the two taking turns."""
    sessions = [session(a, threads), session(b, threads)]
    for s in sessions:
        for _ in range(5):
            s.run(None, feed)
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 20:
        for s, t in zip(sessions, times, strict=True):
            start = time.perf_counter()
            s.run(None, feed)
            t.append(time.perf_counter() - start)
    return float(np.median(times[0]) / np.median(times[1]))


def size(path: Path) -> int:
    """Bytes of a model and its data file."""
    data = path.with_name(path.name + ".data")
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


def peer(task: Any, feeds: list[Feed], folder: Path, threads: int) -> str:
    """ONNX Runtime's `quantize_static` with its defaults."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    out = folder / "peer.onnx"
    try:
        quantize_static(str(task.model), str(out), Reader())
        run = session(out, threads)
        score = task.score(lambda feed: run.run(None, feed))
        return f"{score:.4f}, {speedup(task.model, out, feeds[0], threads=threads, seconds=3):.2f}x"
    except Exception as error:  # a peer that crashes is a result
        return f"crash: {type(error).__name__}"


def measure(name: str, task: Any, *, samples: int, threads: int, level: str, peers: bool) -> Row:
    """Optimizes one model and measures the artifact."""
    # Here, since peers_worker.py uses this module where irc is not installed.
    import irc

    feeds = task.calibration(samples)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        calib = folder / "calib"
        calib.mkdir()
        for i, feed in enumerate(feeds):
            np.savez(calib / f"{i:05d}.npz", **feed)
        plain = irc.optimize(task.model, level="O0", output=folder / "o0.onnx", measure=False).output
        start = time.perf_counter()
        report = irc.optimize(task.model, data=calib, level=level, output=folder / "out.onnx", threads=threads)
        seconds = time.perf_counter() - start
        before, after = session(task.model, threads), session(report.output, threads)
        original = task.score(lambda feed: before.run(None, feed))
        artifact = task.score(lambda feed: after.run(None, feed))
        loss = (original - artifact if task.higher else artifact - original) / abs(original)
        counts = report.coverage.by_op_type() if report.coverage is not None else {}
        return Row(
            model=name,
            metric=task.metric,
            original=original,
            artifact=artifact,
            loss=loss,
            speedup=speedup(task.model, report.output, feeds[0], threads=threads, seconds=5),
            size_ratio=size(report.output) / size(plain),
            int8=" ".join(f"{op} {done}/{total}" for op, (done, total) in counts.items()),
            reverted=report.reverted,
            exit_code=report.exit_code,
            seconds=seconds,
            peer=peer(task, feeds, folder, threads) if peers else "",
        )


def main() -> None:
    """Prints the table, and with `--json` the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="folder with zoo.py; default: the shipped example")
    parser.add_argument("--model", action="append", default=[], help="only this model (repeatable)")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--level", default="O2")
    parser.add_argument("--peers", action="store_true", help="ONNX Runtime's own static quantization beside it")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    columns = ("original", "artifact", "loss", "speed", "size/O0", "back", "exit", "time")
    widths = (9, 9, 8, 7, 8, 5, 4, 6)
    header = " ".join([f"{'model':12s}", *(f"{c:>{w}s}" for c, w in zip(columns, widths, strict=True))])
    print(header + "  int8" + ("   peer: metric, speed" if args.peers else ""))
    rows = []
    for name, task in tasks(args.zoo, args.model).items():
        row = measure(name, task, samples=args.samples, threads=args.threads, level=args.level, peers=args.peers)
        rows.append(row)
        print(
            f"{row.model:12s} {row.original:9.4f} {row.artifact:9.4f} {row.loss:8.2%} {row.speedup:6.2f}x {row.size_ratio:7.3f}x "
            f"{row.reverted:5d} {row.exit_code:4d} {row.seconds:5.0f}s  {row.int8}"
            + (f"   {row.peer}" if row.peer else ""),
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
