#!/usr/bin/env python3
"""What merging channels leaves of trained models' accuracy, beside cutting them, with samples and without any, at equal MACs.

    python benchmarks/channel_merging.py --zoo DIR [--models resnet20 mobilenetv2] [--shares 0.8 0.67] [--samples 128] [--threads 1]

Every line is one pass with `macs=SHARE,round_to=1` on top of its options, so that MACs are compared and not time. Without data, cutting is
by magnitude, in both of its scopes; with data, once without any repair and once with all of `prune-channels`. The first line of each
says what `merge-channels` merges by itself: channels of trained models are hardly ever alike.

The metric is that of the whole test split in stock ONNX Runtime; the drop is in points, or in percent where lower is better. `zoo.py` is
as in `int8_accuracy_speed.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from int8_accuracy_speed import Feed, tasks
from pruning_accuracy import COLUMNS, Bench, Row

import irc.ir
from irc import IrcError, PassManager, targets
from irc.pass_base import Context

WITHOUT_DATA = ("merge-channels", "merge-channels{scope=family}", "prune-channels", "prune-channels{scope=global}")
WITH_DATA = ("merge-channels", "prune-channels{criterion=group,repair=none}", "prune-channels")


def measured(bench: Bench, folder: Path, text: str, share: float, feeds: list[Feed]) -> Row:
    """One pass under a budget."""
    name, _brace, rest = text.partition("{")
    options = ",".join([f"macs={share:g}", "round_to=1", *filter(None, [rest.rstrip("}")])])
    method = f"{text}, {'no data' if not feeds else 'data'}"
    start = time.perf_counter()
    try:
        context = Context(target=targets.parse("ort"), data=feeds or None)
        model = irc.ir.load(bench.task.model)
        result = PassManager([f"{name}{{{options}}}"], verify=False).run(model, context)
    except IrcError as error:
        return Row(bench.name, 1 / share, method, remark=str(error))
    seconds = time.perf_counter() - start
    path = folder / "merged.onnx"
    irc.ir.save(result.model, path)
    return bench.row(path, 1 / share, method, seconds)


def alike(bench: Bench, feeds: list[Feed]) -> Row:
    """How many channels are alike as they are."""
    context = Context(target=targets.parse("ort"), data=feeds or None)
    result = PassManager(["merge-channels{round_to=1}"], verify=False).run(irc.ir.load(bench.task.model), context)
    merged = [entry.reason for entry in result.ledger["merge-channels"].rewritten]
    remark = "; ".join(merged) if merged else "no channel is like another one"
    return Row(bench.name, 1, f"merge-channels by similarity, {'no data' if not feeds else 'data'}", remark=remark)


def main() -> None:
    """Prints the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True, help="folder with zoo.py")
    parser.add_argument("--models", nargs="+", default=["resnet20", "mobilenetv2"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.8, 0.67], help="of the MACs that stay")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime's scoring")
    given = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, task in tasks(given.zoo, given.models).items():
            bench = Bench(name, task, threads=given.threads, folder=Path(folder))
            feeds = task.calibration(given.samples)
            print(Row(name, 1, f"original, {task.metric}", 1, 1, bench.original, 0, 0).line(), flush=True)
            for samples in ([], feeds):
                print(alike(bench, samples).line(), flush=True)
                for share in given.shares:
                    for text in WITH_DATA if samples else WITHOUT_DATA:
                        print(measured(bench, Path(folder), text, share, samples).line(), flush=True)


if __name__ == "__main__":
    main()
