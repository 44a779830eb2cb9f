#!/usr/bin/env python3
"""Whether the speed-ups of pruning and of int8 multiply: pruned, int8, and both, against the original in one process.

    python benchmarks/pruning_speed.py --zoo DIR [--zoo-models resnet20 minilm] [--budgets 0.67 0.5]
    python benchmarks/pruning_speed.py --models DIR [--only "resnet50-dynamo18|bert-base-dynamo21"]
    python benchmarks/pruning_speed.py ... --passes "prune-channels{macs=BUDGET,mode=columns}" --int8 "quantize"

`--models` is where `exported_models.py` writes (and keeps) models of full size with random weights: for time only widths count. For each
budget the pipeline of `--passes`, with BUDGET replaced, makes the pruned model; that of `--int8` (default: what `-O2` runs) makes the
int8 one of the original and of the pruned. Nothing is judged or taken back, so that all three are what was asked for; for accuracy see
`pruning_accuracy.py`. Pruning gets samples only with `--prune-samples`: it takes long with them and cuts as much without.

Speed-ups are original over artifact, one thread, the models taking turns on one feed, both orders of opening, as in `never_worse.py`;
behind ± is half of the 95 % interval. `product` is that of the first two; `of product` is what both together reach of it.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from exported_models import export_all
from int8_accuracy_speed import Feed, tasks
from never_worse import latency

TOKENS = 128
COLUMNS = ("model", "budget", "ms", "MACs left", "pruned", "int8", "pruned + int8", "product", "of product")


def find_models(given: argparse.Namespace) -> dict[str, tuple[Path, list[Feed]]]:
    """Path and samples of every model, the first of them the one to time."""
    found: dict[str, tuple[Path, list[Feed]]] = {}
    if given.zoo is not None:
        for name, task in tasks(given.zoo, given.zoo_models).items():
            found[name] = (Path(task.model), task.calibration(max(given.samples, given.prune_samples)))
    if given.models is not None:
        for name, path in export_all(given.models, re.compile(given.only), small=given.small).items():
            with np.load(path.with_name("inputs.npz")) as arrays:
                found[name] = (path, _resampled(dict(arrays), given.samples))
    return found


def _resampled(example: Feed, count: int) -> list[Feed]:
    """Feeds like an example, batch 1: other noise of its deviation, other tokens of its range and `TOKENS` long, a mask of ones."""
    rng = np.random.default_rng(0)
    feeds: list[Feed] = []
    for _ in range(count):
        feed: Feed = {}
        for name, array in example.items():
            shape = (1, *array.shape[1:])
            if array.dtype.kind == "f":
                feed[name] = (rng.standard_normal(shape) * array.std()).astype(array.dtype)
            elif array.max() > 1:
                feed[name] = rng.integers(0, array.max(), (1, TOKENS)).astype(array.dtype)
            else:
                feed[name] = np.ones((1, TOKENS), array.dtype)
        feeds.append(feed)
    return feeds


def compress(source: Path, output: Path, passes: str, feeds: list[Feed]) -> float:
    """Runs a pipeline and writes the model; the share of MACs that is left, NaN where the file was quantized."""
    import irc.ir
    from irc import PassManager, targets
    from irc.analysis.channels import channel_groups
    from irc.analysis.channels.costs import ChannelCosts
    from irc.pass_base import Context
    from irc.pipeline import parse

    model = irc.ir.load(source)
    context = Context(target=targets.parse("ort"), data=feeds or None)
    result = PassManager(parse(passes), verify=False).run(model, context).model
    output.parent.mkdir(parents=True, exist_ok=True)
    irc.ir.save(result, output)
    if "quantize" in passes:
        return float("nan")
    return ChannelCosts(channel_groups(result)).macs() / ChannelCosts(channel_groups(model)).macs()


def rows(name: str, source: Path, feeds: list[Feed], given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The budgets of one model, timed together."""
    from irc import IrcError

    samples = feeds[: given.samples]
    macs: dict[float, float] = {}
    paths = {"int8": folder / "int8" / "model.onnx"}
    compress(source, paths["int8"], given.int8, samples)
    for budget in given.budgets:
        pruned, both = (folder / f"{kind}{budget:g}" / "model.onnx" for kind in ("pruned", "both"))
        text = given.passes.replace("BUDGET", f"{budget:g}")
        try:
            macs[budget] = compress(source, pruned, text, feeds[: given.prune_samples])
        except IrcError as error:
            print(f"| {name} | {budget:g} | {error} | | | | | | |", flush=True)
            continue
        compress(pruned, both, given.int8, samples)
        paths |= {f"pruned{budget:g}": pruned, f"both{budget:g}": both}
    timed = latency(source, paths, feeds[0], seconds=given.seconds, threads=given.threads)
    if "error" in timed:
        raise SystemExit(f"{name}: {timed['error']}")
    found = []
    for budget in macs:
        # Ratios are artifact to original: their ends change places.
        pruned, int8, both = (
            [1 / timed[key][i] for i in (0, 2, 1)] for key in (f"pruned{budget:g}", "int8", f"both{budget:g}")
        )
        product = pruned[0] * int8[0]
        found.append(
            {"model": name, "budget": budget, "ms": timed["original_ms"], "macs": macs[budget], "pruned": pruned}
            | {"int8": int8, "both": both, "product": product, "of_product": both[0] / product}
        )
    return found


def main() -> None:
    """Prints one row per model and budget, and with `--json` writes them."""
    from irc import pipeline, recipe

    default = pipeline.render(recipe.level("O2", has_data=True).steps)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, help="folder with zoo.py")
    parser.add_argument("--zoo-models", nargs="*", default=["resnet20", "minilm"])
    parser.add_argument("--models", type=Path, help="folder of exported_models.py")
    parser.add_argument("--only", default="resnet50-dynamo18|bert-base-dynamo21", help="of --models")
    parser.add_argument("--small", action="store_true", help="the small configurations of exported_models.py")
    parser.add_argument("--budgets", nargs="*", type=float, default=[0.67, 0.5])
    parser.add_argument("--passes", default="prune-channels{macs=BUDGET}", help="the pipeline that prunes")
    parser.add_argument("--int8", default=default, help="the pipeline that quantizes")
    parser.add_argument("--samples", type=int, default=8, help="calibration samples of the quantization")
    parser.add_argument("--prune-samples", type=int, default=0, help="samples that pruning gets")
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing per file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    given = parser.parse_args()
    if given.zoo is None and given.models is None:
        parser.error("give --zoo DIR, --models DIR or both")
    everything = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, (path, feeds) in find_models(given).items():
        with tempfile.TemporaryDirectory(prefix="pruning-speed-") as folder:
            for row in rows(name, path, feeds, given, Path(folder)):
                everything.append(row)
                speeds = [
                    f"{v:.2f} ± {(high - low) / 2:.2f}" for v, low, high in (row["pruned"], row["int8"], row["both"])
                ]
                print(
                    f"| {name} | {row['budget']:g} | {row['ms']:.2f} | {row['macs']:.3f} | {' | '.join(speeds)} "
                    f"| {row['product']:.2f} | {row['of_product']:.2f} |",
                    flush=True,
                )
    if given.json:
        given.json.write_text(json.dumps(everything, indent=2) + "\n")


if __name__ == "__main__":
    main()
