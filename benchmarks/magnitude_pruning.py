#!/usr/bin/env python3
"""What `prune-channels` does to trained models without repair: budget reached, time and accuracy, in one table.

    python benchmarks/magnitude_pruning.py --zoo DIR [--models resnet20 minilm] [--macs 0.8 0.67 0.5] [--options "scope=global"]

For each model and budget: share of MACs and parameters left, file size, the time of the pruned model over the original's (the two
taking turns, one thread, one calibration sample), and the metric of the test split. `zoo.py` is as in `int8_accuracy_speed.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from int8_accuracy_speed import session, size, speedup, tasks


def main() -> None:
    """Prints one row per model and budget."""
    import irc.ir
    from irc import PassManager, targets
    from irc.analysis.channels import channel_groups
    from irc.analysis.channels.costs import ChannelCosts
    from irc.pass_base import Context

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--macs", nargs="*", type=float, default=[0.8, 0.67, 0.5])
    parser.add_argument("--options", nargs="*", default=[""], help="further options, each a configuration of its own")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing per row")
    given = parser.parse_args()
    print("| model | options | MACs left | parameters left | size | latency over the original | metric | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name, task in tasks(given.zoo, given.models).items():
        before = session(task.model, 1)
        feed = task.calibration(1)[0]
        original = task.score(lambda feed, run=before: run.run(None, feed))
        whole = ChannelCosts(channel_groups(irc.ir.load(task.model)))
        print(f"| {name} | | 1 | 1 | 1 | 1 | {original:.4f} {task.metric} | |")
        for macs in given.macs:
            for more in given.options:
                text = ",".join(filter(None, (f"macs={macs}", more)))
                model = irc.ir.load(task.model)
                start = time.perf_counter()
                try:
                    context = Context(target=targets.parse("ort"))
                    small = PassManager([f"prune-channels{{{text}}}"], verify=False).run(model, context).model
                except irc.IrcError as error:
                    print(f"| | {text} | {error} | | | | | |")
                    continue
                seconds = time.perf_counter() - start
                left = ChannelCosts(channel_groups(small))
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "small.onnx"
                    irc.ir.save(small, path)
                    after = session(path, 1)
                    ratio = 1 / speedup(task.model, path, feed, threads=1, seconds=given.seconds)
                    print(
                        f"| | {text} | {left.macs() / whole.macs():.3f} | {left.parameters() / whole.parameters():.3f} "
                        f"| {size(path) / size(task.model):.3f} | {ratio:.2f} "
                        f"| {task.score(lambda feed, run=after: run.run(None, feed)):.4f} | {seconds:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
