#!/usr/bin/env python3
"""What may be cut from real models, whether it is cut exactly, what is left at half of every family, and how long that takes to find out.

    python benchmarks/channel_groups.py [--models DIR] [--zoo DIR] [--only REGEX] [--ratio 0.5]

DIR of `--models` is what `exported_models.py` wrote (NAME/model.onnx with inputs.npz); DIR of `--zoo` has trained models
with data. Constants are folded first, as `irc optimize` does. Both oracles run in ONNX Runtime without optimizations, with the inputs that
came with the model and, where the batch is symbolic, with other batches than the analysis saw: the permutation oracle on all
families at once; the zero oracle on random survivors of all families whose removal changes no statistic. Errors are relative
to the largest element of an output. Parameters and MACs left are of what is really cut, biases and embeddings included, first without
the families that change a statistic (the residual stream of a transformer), then with them.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from irc.analysis import cost
from irc.analysis.channels import ChannelGroups, Family, Mode, propagate
from irc.channel_oracles import prove, random_survivors
from irc.channel_surgery import cut
from irc.ir import load, save, snapshot
from irc.pass_manager import PassManager

Feed = dict[str, np.ndarray]  # type: ignore[type-arg]
MODES: tuple[Mode, ...] = ("rows", "columns")


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and what it runs on."""

    name: str
    path: Path
    feeds: list[Feed]


def exported(folder: Path) -> list[Case]:
    """The models `exported_models.py` wrote."""
    cases = []
    for path in sorted(folder.glob("*/model.onnx")):
        with np.load(path.parent / "inputs.npz") as file:
            cases.append(Case(path.parent.name, path, [dict(file)]))
    return cases


def trained(zoo: Path, scratch: Path) -> list[Case]:
    """The models of a zoo, with two of their calibration samples each."""
    listed = subprocess.run([sys.executable, zoo / "zoo.py", "list"], check=True, capture_output=True, text=True).stdout
    cases = []
    for line in listed.splitlines():
        name = line.split()[0] if line.split() else ""
        folder = scratch / name
        command = [sys.executable, zoo / "zoo.py", "export", name, folder, "--samples", "2"]
        if not name or subprocess.run(command, capture_output=True).returncode:
            continue
        feeds = []
        for sample in sorted((folder / "calib").glob("*.npz")):
            with np.load(sample) as file:
                feeds.append(dict(file))
        cases.append(Case(name, folder / f"{name}.onnx", feeds[:2]))
    return cases


def run(model: ir.Model, feeds: Sequence[Mapping[str, Any]]) -> list[list[np.ndarray]]:  # type: ignore[type-arg]
    """Outputs of a model as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    return [session.run(None, {k: v for k, v in feed.items() if k in names}) for feed in feeds]


def with_other_batches(model: ir.Model, feeds: list[Feed]) -> list[Feed]:
    """The feeds, and the first one three times over where the batch of every input is symbolic."""
    inputs = list(model.graph.inputs)
    if all(value.shape and not isinstance(value.shape[0], int) for value in inputs):
        names = {value.name for value in inputs}
        feeds = [*feeds, {name: np.concatenate([array] * 3) for name, array in feeds[0].items() if name in names}]
    return feeds


def parameters(model: ir.Model) -> int:
    """Elements of all initializers."""
    return sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None)


def left(groups: ChannelGroups, families: Sequence[Family], ratio: float) -> tuple[float, float]:
    """Parameters and MACs that are left of the model when a share of every family is cut."""
    model = groups.propagation.model
    small = snapshot(model)
    kept = random_survivors(groups, families, ratio=ratio)
    cut(small, groups.propagation, groups.survivors(kept))
    macs = [cost(one).macs for one in (small, model)]
    return parameters(small) / parameters(model), macs[0] / max(1, macs[1])


def measure(case: Case, ratio: float) -> None:
    """Prints the rows of one model."""
    model = PassManager(["fold-constants", "eliminate-dead-code"], verify=False).run(load(case.path)).model
    feeds = with_other_batches(model, case.feeds)
    start = time.perf_counter()
    propagation = propagate(model)
    labelled = time.perf_counter() - start
    for mode in MODES:
        start = time.perf_counter()
        groups = ChannelGroups(propagation, mode)
        seconds = labelled + time.perf_counter() - start
        proof = prove(groups, run, feeds)
        exact = left(groups, [f for f in groups.families if not f.statistics], ratio)
        everything = left(groups, groups.families, ratio)
        print(
            f"| {case.name} | {mode} | {proof.families} | {seconds:.2f} | {proof.permutation_error:.0e} | "
            f"{proof.zero_error:.0e} | {exact[0]:.2f} | {exact[1]:.2f} | {everything[0]:.2f} | {everything[1]:.2f} | "
            f"{'yes' if proof.holds() else 'NO'} |",
            flush=True,
        )


def main() -> None:
    """Measures every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--ratio", type=float, default=0.5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cases = exported(arguments.models) if arguments.models else []
        cases += trained(arguments.zoo, Path(scratch)) if arguments.zoo else []
        print(
            "| model | mode | families | seconds | permutation | zero | parameters | MACs | with statistics | MACs | proved |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for case in cases:
            if re.search(arguments.only, case.name):
                measure(case, arguments.ratio)


if __name__ == "__main__":
    main()
