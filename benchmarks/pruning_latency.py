#!/usr/bin/env python3
"""Accuracy at equal measured time: widths chosen by a latency table beside uniform ones, both rounded, repaired alike.

    python benchmarks/pruning_latency.py --zoo DIR [--models resnet20] [--speedup 1.4] [--samples 1024]

`prune-channels{latency=1/speedup}` chooses widths by operators timed here; beside it `prune-channels{macs=...,scope=family}` takes the same
share of every family, rounded to what the target's kernels like, at several budgets: the row to compare with is the first that is as
fast. Speed-ups are measured, original over artifact, taking turns in one process, behind ± half of the 95 % interval; the metric is
that of the whole test split. `zoo.py` is as in `int8_accuracy_speed.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from int8_accuracy_speed import session, tasks
from never_worse import latency


def main() -> None:
    """Prints one row per configuration."""
    import irc.ir
    from irc import PassManager, targets
    from irc.analysis.channels import channel_groups
    from irc.analysis.channels.costs import ChannelCosts
    from irc.pass_base import Context

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--models", nargs="*", default=["resnet20"])
    parser.add_argument("--speedup", type=float, default=1.4)
    parser.add_argument(
        "--uniform", nargs="*", type=float, default=[0.8, 0.7, 0.6, 0.5], help="MACs of the uniform ones"
    )
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing per file")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print("| model | options | MACs left | speed-up | metric | drop | seconds |\n|---|---|---|---|---|---|---|")
    for name, task in tasks(given.zoo, given.models).items():
        feeds = task.calibration(given.samples)

        def score(path: Path, task=task) -> float:  # type: ignore[no-untyped-def]
            opened = session(path, given.threads)
            return float(task.score(lambda feed: opened.run(None, feed)))

        original = score(task.model)
        print(f"| {name} | | 1 | 1 | {original:.4f} | | |")
        whole = ChannelCosts(channel_groups(irc.ir.load(task.model)))
        texts = [f"latency={1 / given.speedup:.3f}", *(f"macs={macs:g},scope=family" for macs in given.uniform)]
        with tempfile.TemporaryDirectory() as folder:
            paths, facts = {}, {}
            for number, text in enumerate(texts):
                start = time.perf_counter()
                from irc.runner import Runner

                with Runner(threads=given.threads) as runner:
                    context = Context(target=targets.parse("ort"), data=feeds, runner=runner)
                    manager = PassManager([f"prune-channels{{{text}}}"], verify=False)
                    small = manager.run(irc.ir.load(task.model), context).model
                paths[text] = Path(folder) / str(number) / "small.onnx"
                paths[text].parent.mkdir()
                irc.ir.save(small, paths[text])
                left = ChannelCosts(channel_groups(small)).macs() / whole.macs()
                facts[text] = left, score(paths[text]), time.perf_counter() - start
            timed = latency(task.model, paths, feeds[0], seconds=given.seconds, threads=given.threads)
            for text, (left, metric, seconds) in facts.items():
                speed, low, high = (1 / timed[text][i] for i in (0, 2, 1))
                drop = 100 * (original - metric)
                print(
                    f"| | {text} | {left:.3f} | {speed:.2f} ± {(high - low) / 2:.2f} | {metric:.4f} | {drop:.2f} | {seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
