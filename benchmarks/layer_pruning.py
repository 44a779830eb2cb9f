#!/usr/bin/env python3
"""What `prune-layers` does to trained models without training: what is left, how much faster it is, and accuracy, in one table.

    python benchmarks/layer_pruning.py --zoo DIR [--models resnet20 minilm] [--counts 1 2 4] [--options "unit=layer" "repair=none"]

For each model and number of branches (or layers): share of MACs and parameters left, the time of the pruned model over the
original's (the two taking turns, one thread, one calibration sample), the metric of the test split, and how long pruning took.
`zoo.py` is as in `int8_accuracy_speed.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from int8_accuracy_speed import session, speedup, tasks


def main() -> None:
    """Prints one row per model, number and options."""
    import irc.ir
    from irc import PassManager, targets
    from irc.analysis.model_cost import cost
    from irc.analysis.weights import Weights
    from irc.pass_base import Context

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--counts", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--options", nargs="*", default=[""], help="further options, each a configuration of its own")
    parser.add_argument("--samples", type=int, default=128, help="calibration samples")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing per row")
    given = parser.parse_args()

    def parameters(model: Any) -> int:
        return sum(tensor.parameters for tensor in Weights(model).stored())

    print(
        "| model | options | branches left out | MACs left | parameters left | latency over the original | metric | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, task in tasks(given.zoo, given.models).items():
        before, model = session(task.model, 1), irc.ir.load(task.model)
        feeds = task.calibration(given.samples)
        original = task.score(lambda feed, run=before: run.run(None, feed))
        print(f"| {name} | | 0 | 1 | 1 | 1 | {original:.4f} {task.metric} | |")
        for more in given.options:
            for count in given.counts:
                text = ",".join(filter(None, (f"count={count}", more)))
                start = time.perf_counter()
                try:
                    context = Context(target=targets.parse("ort"), data=feeds)
                    result = PassManager([f"prune-layers{{{text}}}"], verify=False).run(model, context)
                except irc.IrcError as error:
                    print(f"| | {text} | {error} | | | | | |")
                    continue
                seconds, small = time.perf_counter() - start, result.model
                gone = len(result.ledger["prune-layers"].rewritten)
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "small.onnx"
                    irc.ir.save(small, path)
                    after = session(path, 1)
                    ratio = 1 / speedup(task.model, path, feeds[0], threads=1, seconds=given.seconds)
                    print(
                        f"| | {text} | {gone} | {cost(small).macs / cost(model).macs:.3f} "
                        f"| {parameters(small) / parameters(model):.3f} | {ratio:.2f} "
                        f"| {task.score(lambda feed, run=after: run.run(None, feed)):.4f} | {seconds:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
