#!/usr/bin/env python3
"""How much accuracy depends on which samples were drawn for calibration, and on how ranges are taken from them.

    python benchmarks/calibration_draws.py --zoo DIR --only minilm
    python benchmarks/calibration_draws.py --zoo DIR --calibrators min-max,mean,percentile,entropy,mse
    python benchmarks/calibration_draws.py --zoo DIR --level O2       # the whole level, its own budget and calibrator

For each model of `DIR/zoo.py` (see `int8_accuracy_speed.py`): several disjoint draws from its training split, each calibrated
by each calibrator; the task metric of every artifact on the whole test split in stock ONNX Runtime, and the median and the
worst over the draws. Without `--level` no budget is given: what is measured is the quantizer, not the guard.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from int8_accuracy_speed import session, tasks

import irc

CALIBRATORS = ("min-max", "mean", "percentile", "entropy", "mse")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True, help="folder with zoo.py")
    parser.add_argument("--only", nargs="*", default=[], help="models; default all")
    parser.add_argument("--calibrators", default=",".join(CALIBRATORS), help="comma-separated")
    parser.add_argument("--level", help="a level instead of calibrators: O2")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    args = parser.parse_args()
    rows = []
    print(f"{'model':12s} {'calibrator':12s} {'original':>9s} {'median':>9s} {'worst':>9s}  draws")
    for name, task in tasks(args.zoo, args.only).items():
        feeds = task.calibration(args.draws * args.samples)
        draws = [feeds[i * args.samples : (i + 1) * args.samples] for i in range(args.draws)]
        if len(draws[-1]) < args.samples:
            raise SystemExit(f"{name}: only {len(feeds)} training samples for {args.draws} draws of {args.samples}")
        original = _score(task, Path(task.model), args.threads)
        for calibrator in [f"-{args.level}"] if args.level else args.calibrators.split(","):
            options = {"level": args.level} if args.level else _without_budget(calibrator)
            scores = [_draw(task, draw, options, args.threads) for draw in draws]
            worst = min(scores) if task.higher else max(scores)
            rows.append(
                {"model": name, "calibrator": calibrator, "original": original, "scores": scores,
                 "median": float(np.median(scores)), "worst": worst}
            )  # fmt: skip
            shown = " ".join(f"{score:.4f}" for score in scores)
            print(
                f"{name:12s} {calibrator:12s} {original:9.4f} {np.median(scores):9.4f} {worst:9.4f}  {shown}",
                flush=True,
            )
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _without_budget(calibrator: str) -> dict[str, str]:
    return {"passes": f"O1,quantize{{calibrator={calibrator}}}", "max_drop": "100%"}


def _draw(task: object, feeds: list[dict[str, np.ndarray]], options: dict[str, str], threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        report = irc.optimize(
            str(task.model),  # type: ignore[attr-defined]
            data=feeds,
            output=Path(folder) / "artifact.onnx",
            **options,  # type: ignore[arg-type]
            verify=False,
            measure=False,
            cache=False,
        )
        return _score(task, report.output, threads)


def _score(task: object, path: Path, threads: int) -> float:
    opened = session(path, threads)
    return float(task.score(lambda feed: opened.run(None, feed)))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
