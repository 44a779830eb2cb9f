#!/usr/bin/env python3
"""Budgets met, on data that the build never saw, and budgets that cannot be met.

    python benchmarks/budgets.py --zoo DIR [--model NAME ...]

For each model `irc optimize` is given 128 training samples to calibrate on, the task's metric on the first half of the test
split, and `--max-drop`. The artifact is then scored on the second half. One budget can be met (0.5 % by default), one
cannot (a speed-up of 1000): for that, the exit code must be 3, the reason said, and the artifact legal.

`zoo.py` is as int8_accuracy_speed.py has it; the halves are taken by splitting what its `score` runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from int8_accuracy_speed import Feed, Run, session, tasks

import irc


@dataclasses.dataclass
class Row:
    """One build; drops are relative, above 0 is worse."""

    model: str
    budget: str
    exit_code: int
    seen: float
    unseen: float
    met: bool
    rewritten: int
    in_float: int
    speedup: float
    seconds: float
    reason: str


class Halves:
    """The metric of a task on the first half of the batches that its score runs, and on the second.

    A metric that is a mean over samples splits by arithmetic; one over pairs of rows, such as a rank correlation, is asked
    of the task with the pairs of the other half left out (`score(run, limit, start)`), if it can do that.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._size = _count(task)
        self.first_size = self._size // 2

    def first(self, run: Run) -> float:
        """On the first half."""
        return float(self._task.score(run, self.first_size))

    def second(self, run: Run) -> float:
        """On the second half."""
        if "Spearman" in self._task.metric:
            return _second_spearman(run, self.first_size)
        whole = float(self._task.score(run))
        return (whole * self._size - self.first(run) * self.first_size) / (self._size - self.first_size)


def _count(task: Any) -> int:
    """How many samples the test split has: as many as are needed to score, counted by what is run."""
    if "Spearman" in task.metric:
        import zoo

        return len(zoo.sentences("test")[1])
    rows = 0

    def count(feed: Feed) -> list[np.ndarray]:
        nonlocal rows
        found: list[np.ndarray] = opened.run(None, feed)
        rows += len(found[0])
        return found

    opened = session(task.model, 2)
    task.score(count)
    return rows


def _second_spearman(run: Run, start: int) -> float:
    """Rank correlation of the pairs from `start` on, as the zoo computes it for all."""
    import zoo
    from scipy.stats import spearmanr

    rows, gold = zoo.sentences("test")
    count = len(gold)
    keep = range(start, count)
    wanted = [rows[i] for i in keep] + [rows[count + i] for i in keep]
    vectors: dict[int, np.ndarray] = {}
    order = np.argsort([len(row) for row in wanted], kind="stable")
    for begin in range(0, len(order), 32):
        batch = order[begin : begin + 32]
        for j, vector in zip(batch, run(zoo._pad([wanted[j] for j in batch]))[0], strict=True):
            vectors[int(j)] = vector / np.linalg.norm(vector)
    half = len(keep)
    cosine = [float(vectors[i] @ vectors[half + i]) for i in range(half)]
    return float(spearmanr(cosine, gold[start:])[0])


def drop(before: float, after: float, *, higher: bool) -> float:
    """Relative loss; above 0 is worse."""
    return (before - after if higher else after - before) / abs(before)


def build(name: str, task: Any, budget: dict[str, Any], calib: Path, folder: Path) -> Row:
    """One build under one budget."""
    halves = Halves(task)

    def metric(run: Any) -> float:
        return halves.first(run)

    metric.higher_is_better = task.higher  # type: ignore[attr-defined]
    start = time.perf_counter()
    report = irc.optimize(task.model, data=calib, output=folder / "out.onnx", metric=metric, **budget)
    seconds = time.perf_counter() - start
    original, artifact = session(task.model, 2), session(report.output, 2)
    before, after = (lambda feed, s=s: s.run(None, feed) for s in (original, artifact))
    unseen = drop(halves.second(before), halves.second(after), higher=task.higher)
    allowed = float(str(budget.get("max_drop", "1%")).rstrip("%")) / 100
    approximate = [record for record in report.ledger if record.contract == "approximate"]
    return Row(
        model=name,
        budget=", ".join(f"{key}={value}" for key, value in budget.items()),
        exit_code=report.exit_code,
        seen=drop(halves.first(before), halves.first(after), higher=task.higher),
        unseen=unseen,
        met=unseen <= allowed,
        rewritten=len({entry.site for record in approximate for entry in record.rewritten}),
        in_float=len({entry.site for record in approximate for entry in record.undone}),
        speedup=report.latency.speedup if report.latency is not None else math.nan,
        seconds=seconds,
        reason="; ".join(report.missed),
    )


def main() -> None:
    """Prints the table, and with `--json` the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True, help="folder with zoo.py")
    parser.add_argument("--model", action="append", default=[], help="only this model (repeatable)")
    parser.add_argument("--max-drop", default="0.5%", help="the budget that can be met")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    budgets = ({"max_drop": args.max_drop}, {"min_speedup": 1000.0})
    print(f"{'model':12s} {'budget':20s} exit    seen  unseen  met  int8 float  speed   time  reason")
    rows = []
    for name, task in tasks(args.zoo, args.model).items():
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            calib = folder / "calib"
            calib.mkdir()
            for i, feed in enumerate(task.calibration(args.samples)):
                np.savez(calib / f"{i:05d}.npz", **feed)
            for budget in budgets:
                row = build(name, task, budget, calib, folder)
                rows.append(row)
                print(
                    f"{row.model:12s} {row.budget:20s} {row.exit_code:4d} {row.seen:7.2%} {row.unseen:7.2%} "
                    f"{'yes' if row.met else 'NO':>4s} {row.rewritten:5d} {row.in_float:5d} {row.speedup:5.2f}x "
                    f"{row.seconds:5.0f}s  {row.reason}",
                    flush=True,
                )
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
