#!/usr/bin/env python3
"""What `sparsify` does to trained models: accuracy and compressed size by criterion, in one table.

    python benchmarks/sparsity.py --zoo DIR [--models resnet20 minilm] [--goals sparsity=0.5 pattern=2:4] [--criteria obs]

For each model, goal and criterion: the metric of the test split, the relative error of the outputs on training samples that were not
calibrated on (steadier than a metric), the share of the weights of the file that are zero, the size of the file
after gzip over that of the same model without zeros (level 6, both behind `O1`), and the seconds of the pass. Nothing gets faster in ONNX
Runtime, so that no latency is measured. `zoo.py` is as in `int8_accuracy_speed.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from int8_accuracy_speed import session, tasks

GOALS = ["sparsity=0.5", "sparsity=0.7", "pattern=2:4"]
FRESH = 64
CRITERIA = ["magnitude", "wanda", "obs"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table."""

    model: str
    goal: str
    criterion: str
    metric: float
    error: float
    zeros: float
    compressed: float
    seconds: float


def zeros(model: Any) -> float:
    """The share of the floats of a model's initializers that are zero."""
    arrays = [np.asarray(value.const_value.numpy()) for value in model.graph.initializers.values()]
    floats = [array for array in arrays if array.dtype == np.float32]
    return 1 - sum(int(np.count_nonzero(array)) for array in floats) / max(1, sum(array.size for array in floats))


def compressed(path: Path) -> int:
    """Bytes after gzip, of a model and its data file."""
    files = [path, path.with_name(path.name + ".data")]
    return sum(len(gzip.compress(file.read_bytes(), 6)) for file in files if file.exists())


def score(task: Any, path: Path, limit: int | None) -> float:
    """The metric of a file."""
    opened = session(path, 1)
    return float(task.score(lambda feed: opened.run(None, feed), limit))


def output_error(a: Path, b: Path, feeds: list[Any]) -> float:
    """Energy of the difference of the outputs of two models over the energy of the first one's, the mean over samples."""
    sessions = session(a, 1), session(b, 1)
    ratios = []
    for feed in feeds:
        exact, found = (opened.run(None, feed)[0] for opened in sessions)
        ratios.append(float(np.square(found - exact).sum() / np.square(exact).sum()))
    return float(np.mean(ratios))


def main() -> None:
    """Prints one row per model, goal and criterion."""
    import irc
    import irc.ir
    from irc import PassManager, targets
    from irc.calibration import open_data
    from irc.pass_base import Context

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--goals", nargs="*", default=GOALS)
    parser.add_argument("--criteria", nargs="*", default=CRITERIA)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--limit", type=int, help="score only so many test samples")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    given = parser.parse_args()
    rows = []
    print(
        "| model | goal | criterion | metric | output error | zeros in the file | gzip over the original's | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, task in tasks(given.zoo, given.models).items():
        feeds = task.calibration(given.samples + FRESH)
        feeds, fresh = feeds[: given.samples], feeds[given.samples :]
        with tempfile.TemporaryDirectory() as folder:
            original = Path(folder) / "model.onnx"
            irc.optimize(task.model, level="O1", output=original, measure=False)
            clean = irc.ir.load(original)
            whole = compressed(original)
            print(
                f"| {name} | | {task.metric} | {score(task, original, given.limit):.4f} | 0 | {zeros(clean):.1%} | 1 | |",
                flush=True,
            )
            for goal in given.goals:
                for criterion in given.criteria:
                    model = irc.ir.snapshot(clean)
                    context = Context(target=targets.parse("ort"), data=open_data(feeds, model))
                    start = time.perf_counter()
                    text = f"sparsify{{{goal},criterion={criterion}}}"
                    sparse = PassManager([text], verify=False).run(model, context).model
                    seconds = time.perf_counter() - start
                    path = Path(folder) / f"{goal}-{criterion}.onnx".replace(":", "-")
                    irc.ir.save(sparse, path)
                    row = Row(
                        name,
                        goal,
                        criterion,
                        score(task, path, given.limit),
                        output_error(original, path, fresh),
                        zeros(sparse),
                        compressed(path) / whole,
                        seconds,
                    )
                    rows.append(row)
                    figures = (
                        f"{row.metric:.4f} | {row.error:.4f} | {row.zeros:.1%} | {row.compressed:.3f} | {seconds:.1f}"
                    )
                    print(f"| | {goal} | {criterion} | {figures} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
