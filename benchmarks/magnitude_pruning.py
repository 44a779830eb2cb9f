#!/usr/bin/env python3
"""What `prune-channels` does to trained models without repair: budget reached, time and accuracy, in one table.

    python benchmarks/magnitude_pruning.py --zoo DIR [--models resnet20 minilm] [--macs 0.8 0.67 0.5] [--options "scope=global"]

For each model and budget: how many families are cut, share of MACs and parameters left, file size, the time of the pruned model over the
original's (the two taking turns, one thread, one calibration sample), the metric of the test split, and how long pruning took. `zoo.py` is
as in `int8_accuracy_speed.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from int8_accuracy_speed import Feed, session, size, speedup, tasks

import irc.ir
from irc import IrcError, PassManager, targets
from irc.analysis.channels import channel_groups
from irc.analysis.channels.costs import ChannelCosts
from irc.pass_base import Context


def score(task: Any, path: Path) -> float:
    """The metric of a file."""
    opened = session(path, 1)
    return float(task.score(lambda feed: opened.run(None, feed)))


def row(task: Any, text: str, feeds: Sequence[Feed] | None, *, seconds: float) -> str:
    """What a pass leaves of a task's model, timed for so many seconds; seconds in the row are those of pruning.

    Raises:
        IrcError: If it cannot do what it is asked for.
    """
    model, start = irc.ir.load(task.model), time.perf_counter()
    result = PassManager([text], verify=False).run(model, Context(target=targets.parse("ort"), data=feeds))
    took, sites = time.perf_counter() - start, len(result.ledger.passes[-1].rewritten)
    whole, left = (ChannelCosts(channel_groups(found)) for found in (model, result.model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        irc.ir.save(result.model, path)
        ratio = 1 / speedup(task.model, path, task.calibration(1)[0], threads=1, seconds=seconds)
        return (
            f"| | {text} | {sites} | {left.macs() / whole.macs():.3f} | {left.parameters() / whole.parameters():.3f} "
            f"| {size(path) / size(task.model):.3f} | {ratio:.2f} | {score(task, path):.4f} | {took:.1f} |"
        )


def table(title: str, pass_name: str, budget: str, values: Sequence[float], *, samples: int = 0) -> None:
    """Prints one row per model, budget and further options, by the arguments of the command line.

    Args:
        title: Of the script.
        pass_name: The pass.
        budget: The option that is varied.
        values: Of it, unless others are given.
        samples: Calibration samples, unless another number is given; 0 for a pass that takes none.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument(f"--{budget}", dest="values", nargs="*", type=type(values[0]), default=values)
    parser.add_argument("--options", nargs="*", default=[""], help="further options, each a configuration of its own")
    parser.add_argument("--samples", type=int, default=samples, help="calibration samples, 0 for none")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing per row")
    given = parser.parse_args()
    print(
        "| model | pass | sites | MACs left | parameters left | size | latency over the original | metric | seconds |"
    )
    print(f"|{'---|' * 9}")
    for name, task in tasks(given.zoo, given.models).items():
        feeds = task.calibration(given.samples) if given.samples else None
        print(f"| {name} | | 0 | 1 | 1 | 1 | 1 | {score(task, task.model):.4f} {task.metric} | |")
        for value in given.values:
            for more in given.options:
                text = f"{pass_name}{{{','.join(filter(None, (f'{budget}={value}', more)))}}}"
                try:
                    print(row(task, text, feeds, seconds=given.seconds), flush=True)
                except IrcError as error:
                    print(f"| | {text} | {error} | | | | | | |")


if __name__ == "__main__":
    table(__doc__.splitlines()[0], "prune-channels", "macs", [0.8, 0.67, 0.5])
