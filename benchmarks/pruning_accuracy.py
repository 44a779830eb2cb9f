#!/usr/bin/env python3
"""What pruning without training or labels leaves of trained models' accuracy, beside Torch-Pruning at equal MACs, in one table.

    python benchmarks/pruning_accuracy.py --zoo DIR [--models resnet20 minilm] [--speedups 1.5 2] [--samples 1024] [--threads 1]
    python benchmarks/pruning_accuracy.py --zoo DIR --options "criterion=group,repair=none" "scope=global"
    python benchmarks/pruning_accuracy.py --zoo DIR --models resnet20 mobilenetv2 --torch-pruning [--all-criteria]

For each model and ratio of MACs: `prune-channels{macs=1/ratio,round_to=1}` with the samples and its defaults, then once more per text of
`--options`. The remark is the pass's own: where it repairs, it says what selection and repair are worth each, on samples held out.
`--torch-pruning` adds the best of Torch-Pruning's criteria (`torch_pruning_peer.py`) and the best after BatchNorm re-estimation on
the same samples. Which is best is taken from the test split itself, as only the peer may; `--all-criteria` prints all.

MACs and parameters are counted in every resulting ONNX file by one counter, `irc.analysis.channels.costs`, at its assumed sizes (batch 1,
sequences of 128); round_to=1 since MACs are compared here and not time. The metric is that of the whole test split in stock ONNX
Runtime; the drop is in hundredths of the metric (points), or in percent of it where lower is better. `zoo.py` is as in
`int8_accuracy_speed.py`. Torch-Pruning is tried on models that `onnx_as_torch.py` translates: convolutional ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch_pruning_peer
from int8_accuracy_speed import Feed, session, tasks

COLUMNS = ("model", "ratio", "method", "MACs left", "parameters left", "metric", "drop", "seconds", "remark")


@dataclasses.dataclass
class Row:
    """One line: shares of MACs and parameters against the original file; seconds of pruning, without measuring."""

    model: str
    ratio: float
    method: str
    macs_left: float | None = None
    parameters_left: float | None = None
    metric: float | None = None
    drop: float | None = None
    seconds: float | None = None
    remark: str = ""

    def line(self) -> str:
        """The row in Markdown."""
        formats = ("{}", "{:g}", "{}", "{:.3f}", "{:.3f}", "{:.4f}", "{:.2f}", "{:.0f}", "{}")
        cells = ["" if v is None else f.format(v) for f, v in zip(formats, dataclasses.astuple(self), strict=True)]
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


class Bench:
    """One task, its original costs and score, and rows measured against them."""

    def __init__(self, name: str, task: Any, *, threads: int, folder: Path) -> None:
        self.name, self.task, self._threads, self._folder = name, task, threads, folder
        self._macs, self._parameters = _costs(task.model)
        run = session(task.model, threads)
        self.original = float(task.score(lambda feed: run.run(None, feed)))

    def row(self, path: Path, ratio: float, method: str, seconds: float, remark: str = "") -> Row:
        """Counts and scores a file."""
        macs, parameters = _costs(path)
        run = session(path, self._threads)
        metric = float(self.task.score(lambda feed: run.run(None, feed)))
        drop = self.original - metric if self.task.higher else (metric - self.original) / abs(self.original)
        return Row(
            self.name,
            ratio,
            method,
            macs / self._macs,
            parameters / self._parameters,
            metric,
            100 * drop,
            seconds,
            remark,
        )

    def irc(self, ratio: float, feeds: list[Feed], options: str) -> Row:
        """`prune-channels` with the samples and these options on top of the budget."""
        import irc.ir
        from irc import PassManager, targets
        from irc.pass_base import Context

        more = [part for part in options.split(",") if part]
        given = {part.partition("=")[0] for part in more}
        # Six digits, so that a budget of two thirds is not missed by a rounded one.
        defaults = {"macs": f"{1 / ratio:.6g}", "round_to": "1"}
        text = ",".join([f"{key}={value}" for key, value in defaults.items() if key not in given] + more)
        method = f"irc {options}" if options else "irc"
        model = irc.ir.load(self.task.model)
        start = time.perf_counter()
        try:
            context = Context(target=targets.parse("ort"), data=feeds)
            result = PassManager([f"prune-channels{{{text}}}"], verify=False).run(model, context)
        except irc.IrcError as error:
            return Row(self.name, ratio, method, remark=str(error))
        seconds = time.perf_counter() - start
        path = self._folder / "irc.onnx"
        irc.ir.save(result.model, path)
        return self.row(path, ratio, method, seconds, "; ".join(result.ledger["prune-channels"].summary.splitlines()))

    def torch_pruning(
        self, ratios: Sequence[float], feeds: list[Feed], *, criteria: Sequence[str], threads: int
    ) -> Iterator[Row]:
        """Torch-Pruning's results: all of them, as they come."""
        import onnx
        import torch
        from onnx_as_torch import Unsupported

        torch.set_num_threads(threads)
        arrays = [list(feed.values()) for feed in feeds]
        if any(len(found) != 1 or found[0].ndim != 4 for found in arrays):
            yield Row(self.name, 0, PEER, remark="its input is no image; see torch_pruning_peer.py")
            return
        images = np.concatenate([found[0] for found in arrays])
        shares = {1 / ratio: ratio for ratio in ratios}
        path = self._folder / "peer.onnx"
        try:
            for pruned in torch_pruning_peer.prune(onnx.load(self.task.model), images, list(shares), criteria=criteria):
                ratio, seconds = shares[pruned.share], pruned.seconds
                onnx.save(pruned.model, path)
                yield self.row(path, ratio, PEER, seconds, pruned.label)
                onnx.save(pruned.reestimated, path)
                yield self.row(path, ratio, f"{PEER}{NORMS}", seconds + pruned.norm_seconds, pruned.label)
        except Unsupported as error:
            yield Row(self.name, 0, PEER, remark=str(error))


PEER, NORMS = "Torch-Pruning", " + BatchNorm"


def _costs(path: Path) -> tuple[int, int]:
    """MACs and parameters of a file."""
    import irc.ir
    from irc.analysis.channels import channel_groups
    from irc.analysis.channels.costs import ChannelCosts

    costs = ChannelCosts(channel_groups(irc.ir.load(path)))
    return costs.macs(), costs.parameters()


def best(rows: Sequence[Row], *, higher: bool) -> list[Row]:
    """Of every ratio and method the row of the best metric; rows without one stay."""
    found: dict[tuple[float, str], Row] = {}
    for row in rows:
        old = found.setdefault((row.ratio, row.method), row)
        if row.metric is not None and old.metric is not None and (row.metric > old.metric) == higher:
            found[row.ratio, row.method] = row
    return [found[key] for key in sorted(found)]


def main() -> None:
    """Prints the table, and with `--json` writes all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="folder with zoo.py; default: the shipped example")
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument(
        "--speedups", nargs="*", type=float, default=[1.5, 2.0], help="MACs of the original over those left"
    )
    parser.add_argument(
        "--samples", type=int, default=1024, help="calibration samples, without labels, for all methods"
    )
    parser.add_argument("--options", nargs="*", default=[], help="further options of prune-channels, a row each")
    parser.add_argument("--no-default", action="store_true", help="only the rows of --options and Torch-Pruning's")
    parser.add_argument("--torch-pruning", action="store_true", help="its best criterion beside irc")
    parser.add_argument(
        "--criteria", nargs="*", default=torch_pruning_peer.CRITERIA, choices=torch_pruning_peer.CRITERIA
    )
    parser.add_argument("--all-criteria", action="store_true", help="print every criterion, not only the best")
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime's scoring and of torch")
    parser.add_argument("--json", type=Path, help="write all rows to this file, every criterion included")
    given = parser.parse_args()
    if given.torch_pruning and (why := torch_pruning_peer.missing()):
        parser.error(f"--torch-pruning: {why}")
    rows: list[Row] = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, task in tasks(given.zoo, given.models).items():
            bench = Bench(name, task, threads=given.threads, folder=Path(folder))
            feeds = task.calibration(given.samples)
            rows.append(Row(name, 1, f"original, {task.metric}", 1, 1, bench.original, 0, 0, f"{len(feeds)} samples"))
            print(rows[-1].line(), flush=True)
            for ratio in given.speedups:
                for options in [*([] if given.no_default else [""]), *given.options]:
                    rows.append(bench.irc(ratio, feeds, options))
                    print(rows[-1].line(), flush=True)
            if given.torch_pruning:
                theirs = []
                for row in bench.torch_pruning(given.speedups, feeds, criteria=given.criteria, threads=given.threads):
                    theirs.append(row)
                    if given.all_criteria:
                        print(row.line(), flush=True)
                rows += theirs
                for row in best(theirs, higher=task.higher):
                    print(dataclasses.replace(row, remark=f"best: {row.remark}").line(), flush=True)
            if given.json:
                given.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
