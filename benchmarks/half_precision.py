#!/usr/bin/env python3
"""What float16 does to real models: irc's `reduce-precision` and ONNX Runtime's own converter, in one table.

    python benchmarks/half_precision.py --zoo DIR      # the models and metrics of DIR/zoo.py
    python benchmarks/half_precision.py                # the model that ships in examples/

For each model and tool: size of the file against the original's; the task metric on the whole test split in stock ONNX
Runtime; agreement with float32 on it (share of equal argmax over all rows, or mean cosine of embeddings); Casts between
float types; time of a run over that of the original, the two taking turns, on the first calibration sample; whether all
outputs are finite on the calibration samples.

ONNX Runtime's CPU provider computes most of float16 in float32, and drops the conversions between; so "computed" is the
metric of the same file with every result rounded to float16 (`irc.runner.emulation`), as hardware with float16 does, and
whether it is finite there.

The peer is `onnxruntime.transformers.float16.convert_float_to_float16(keep_io_types=True)`. For `zoo.py` see
`int8_accuracy_speed.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from int8_accuracy_speed import session, size, speedup, tasks

import irc
import irc.ir
from irc.runner.emulation import emulated

Feed = dict[str, np.ndarray]
Run = Callable[[Feed], list[np.ndarray]]


@dataclasses.dataclass
class Row:
    """One model by one tool; ratios are to the original."""

    model: str
    tool: str
    metric: str
    original: float
    artifact: float = float("nan")
    agreement: float = float("nan")
    computed: float = float("nan")
    size_ratio: float = float("nan")
    time_ratio: float = float("nan")
    casts: int = -1
    finite: bool = False
    finite_computed: bool = False
    float_sites: int = -1
    seconds: float = 0.0
    failure: str = ""


class Recorder:
    """Runs a model and remembers what its first output says: the argmax of each row, or the row itself as a direction."""

    def __init__(self, run: Run, embedding: bool) -> None:
        self._run, self._embedding = run, embedding
        self.rows: list[np.ndarray] = []

    def __call__(self, feed: Feed) -> list[np.ndarray]:
        """The outputs of one feed."""
        outputs = self._run(feed)
        first = outputs[0].reshape(-1, outputs[0].shape[-1])
        if self._embedding:
            self.rows.append(first / np.linalg.norm(first, axis=-1, keepdims=True))
        else:
            self.rows.append(first.argmax(-1).astype(np.int32))
        return outputs

    def agreement(self, other: Recorder) -> float:
        """Share of equal argmax, or mean cosine."""
        pairs = zip(self.rows, other.rows, strict=True)
        if self._embedding:
            return float(np.mean(np.concatenate([(a * b).sum(-1) for a, b in pairs])))
        return float(np.mean(np.concatenate([a == b for a, b in pairs])))


def by_irc(task: Any, folder: Path, out: Path) -> int:
    """Writes irc's artifact; returns how many operators stayed float32 for a reason of their own."""
    report = irc.optimize(task.model, data=folder / "calib", passes="reduce-precision", output=out, measure=False)
    reasons = [entry.reason for entry in report.ledger["reduce-precision"].skipped]
    return sum(reason != "what it moves is float32" for reason in reasons)


def by_peer(task: Any, folder: Path, out: Path) -> int:
    """Writes the peer's artifact."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(str(task.model)), keep_io_types=True)
    onnx.save(model, str(out))
    return -1


TOOLS: dict[str, Callable[[Any, Path, Path], int]] = {"irc": by_irc, "ort converter": by_peer}


def casts(path: Path) -> int:
    """Casts between float32 and float16, bodies included."""
    model = irc.ir.load(path)
    irc.ir.refresh_shapes(model, strict=False)
    both = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
    return sum(
        node.op_type == "Cast" and {node.inputs[0].dtype, node.outputs[0].dtype} == both
        for node in model.graph.all_nodes()
    )


def computed(path: Path, out: Path, threads: int) -> ort.InferenceSession:
    """A session that rounds every float16 result of a model."""
    model = irc.ir.load(path)
    irc.ir.refresh_shapes(model, strict=False)
    irc.ir.save(emulated(model, ir.DataType.FLOAT16), out)
    return session(out, threads)


def finite(run: Run, feeds: list[Feed]) -> bool:
    """Whether all outputs are finite on all feeds."""
    return all(np.isfinite(a).all() for feed in feeds for a in run(feed) if a.dtype.kind == "f")


def measure(name: str, task: Any, *, samples: int, threads: int) -> Iterator[Row]:
    """Converts one model with every tool and measures what they wrote."""
    feeds = task.calibration(samples)
    embedding = "spearman" in task.metric.lower()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "calib").mkdir()
        for i, feed in enumerate(feeds):
            np.savez(folder / "calib" / f"{i:05d}.npz", **feed)
        before = session(task.model, threads)
        reference = Recorder(lambda feed: before.run(None, feed), embedding)
        original = task.score(reference)
        for tool, convert in TOOLS.items():
            out = folder / f"{tool.replace(' ', '-')}.onnx"
            row = Row(name, tool, task.metric, original)
            try:
                start = time.perf_counter()
                row.float_sites = convert(task, folder, out)
                row.seconds = time.perf_counter() - start
                after = session(out, threads)
                recorder = Recorder(lambda feed, s=after: s.run(None, feed), embedding)  # type: ignore[misc]
                row.artifact, row.agreement = task.score(recorder), reference.agreement(recorder)
                row.size_ratio, row.casts = size(out) / size(task.model), casts(out)
                row.finite = finite(lambda feed, s=after: s.run(None, feed), feeds)  # type: ignore[misc]
                row.time_ratio = 1 / speedup(task.model, out, feeds[0], threads=threads, seconds=5)
                rounding = computed(out, folder / "rounded.onnx", threads)
                row.computed = task.score(lambda feed, s=rounding: s.run(None, feed))
                row.finite_computed = finite(lambda feed, s=rounding: s.run(None, feed), feeds)  # type: ignore[misc]
            except Exception as error:  # a tool that fails is a result
                row.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            yield row


def main() -> None:
    """Prints the table, and with `--json` the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="folder with zoo.py; default: the shipped example")
    parser.add_argument("--model", action="append", default=[], help="only this model (repeatable)")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    print(
        f"{'model':12s} {'tool':14s} {'float32':>8s} {'float16':>8s} {'computed':>8s} {'agree':>8s} {'size':>6s} {'time':>6s} "
        f"{'casts':>5s} {'kept':>4s} {'finite':>6s}"
    )
    rows = []
    for name, task in tasks(args.zoo, args.model).items():
        for row in measure(name, task, samples=args.samples, threads=args.threads):
            rows.append(row)
            kept = str(row.float_sites) if row.float_sites >= 0 else ""
            ok = "yes" if row.finite and row.finite_computed else "no"
            print(
                f"{row.model:12s} {row.tool:14s} {row.original:8.4f} {row.artifact:8.4f} {row.computed:8.4f} {row.agreement:8.3%} "
                f"{row.size_ratio:6.3f} {row.time_ratio:5.2f}x {row.casts:5d} {kept:>4s} {ok:>6s}"
                + (f"  {row.failure}" if row.failure else ""),
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
