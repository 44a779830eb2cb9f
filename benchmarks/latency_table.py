#!/usr/bin/env python3
"""Predicted against measured latency of pruned models: how good `irc.latency_table` is on this machine.

    python benchmarks/latency_table.py --zoo DIR                   # resnet20, mobilenetv2, minilm of DIR/zoo.py; ResNet-50 widths
    python benchmarks/latency_table.py --models resnet50 staircase

Every model is cut to .8, .6 and .4 of its channels, evenly and unevenly (each family by up to a quarter more or less), to widths that are
multiples of 16 and to any, which channels does not matter. The ratio of the latencies of the cut model and of the whole is
predicted, then measured with the two taking turns; a measurement that other work on the machine disturbed is made again. `staircase` is one
convolution at 32 to 64 channels.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import irc
from irc.analysis.channels import ChannelGroups, channel_groups
from irc.channel_surgery import cut
from irc.errors import ModelError
from irc.ir import snapshot
from irc.latency import Measured
from irc.latency_table import LatencyTable
from irc.runner import Opened, Runner

MODELS = ("resnet20", "mobilenetv2", "minilm", "resnet50", "bert", "staircase")
BLOCKS = ((64, 3), (128, 4), (256, 6), (512, 3))
Feed = dict[str, np.ndarray]


class Network:
    """A network with weights without meaning, built layer by layer."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.input = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []
        self._noise = np.random.default_rng(0).uniform(-1, 1, 4099).astype(np.float32)

    def weight(self, *shape: int) -> ir.Value:
        """Numbers that keep activations about as large as they are."""
        array = np.resize(self._noise, shape) * np.float32(1.7 / np.sqrt(max(np.prod(shape[1:]), 1)))
        name = f"w{len(self.weights)}"
        self.weights.append(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
        return self.weights[-1]

    def node(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """One more node."""
        self.nodes.append(ir.node(op_type, list(inputs), attributes=attributes, name=f"n{len(self.nodes)}"))
        self.nodes[-1].outputs[0].name = f"v{len(self.nodes)}"
        return self.nodes[-1].outputs[0]

    def convolution(self, x: ir.Value, inputs: int, outputs: int, kernel: int, stride: int = 1) -> ir.Value:
        """A convolution as BatchNorm is folded into it."""
        weights = self.weight(outputs, inputs, kernel, kernel), self.weight(outputs)
        return self.node("Conv", x, *weights, pads=[kernel // 2] * 4, strides=[stride] * 2)

    def dense(self, x: ir.Value, inputs: int, outputs: int) -> ir.Value:
        """A product of a weight, and a bias."""
        return self.node("Add", self.node("MatMul", x, self.weight(inputs, outputs)), self.weight(outputs))

    def constant(self, *numbers: int) -> ir.Value:
        """A shape."""
        name = f"w{len(self.weights)}"
        self.weights.append(ir.Value(name=name, const_value=ir.tensor(np.array(numbers, dtype=np.int64), name=name)))
        return self.weights[-1]

    def model(self, output: ir.Value) -> ir.Model:
        """All of it."""
        output.type = ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            [self.input], [output], nodes=self.nodes, initializers=self.weights, opset_imports={"": 17}, name="network"
        )
        return irc.ir.normalize(ir.Model(graph, ir_version=8))


def resnet50() -> ir.Model:
    """ResNet-50 for images of 224 by 224, batch 1."""
    net = Network((1, 3, 224, 224))
    x = net.node("Relu", net.convolution(net.input, 3, 64, 7, 2))
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    width = 64
    for stage, (inner, count) in enumerate(BLOCKS):
        for block in range(count):
            stride = 2 if stage and not block else 1
            y = net.node("Relu", net.convolution(x, width, inner, 1))
            y = net.node("Relu", net.convolution(y, inner, inner, 3, stride))
            y = net.convolution(y, inner, 4 * inner, 1)
            x = net.node("Relu", net.node("Add", y, x if block else net.convolution(x, width, 4 * inner, 1, stride)))
            width = 4 * inner
    x = net.node("Flatten", net.node("GlobalAveragePool", x))
    return net.model(net.node("Gemm", x, net.weight(1000, width), net.weight(1000), transB=1))


def bert(tokens: int = 64, layers: int = 12, width: int = 768, heads: int = 12) -> ir.Model:
    """The encoder of BERT-base on embeddings of some tokens, batch 1."""
    net = Network((1, tokens, width))
    split, joined = net.constant(1, tokens, heads, width // heads), net.constant(1, tokens, -1)
    x = net.input

    def norm(x: ir.Value) -> ir.Value:
        return net.node("LayerNormalization", x, net.weight(width), net.weight(width))

    for _ in range(layers):
        query, key, value = (net.node("Reshape", net.dense(x, width, width), split) for _ in range(3))
        query, value = (net.node("Transpose", one, perm=[0, 2, 1, 3]) for one in (query, value))
        scores = net.node("MatMul", query, net.node("Transpose", key, perm=[0, 2, 3, 1]))
        mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), value)
        mixed = net.node("Reshape", net.node("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        x = norm(net.node("Add", net.dense(mixed, width, width), x))
        inner = net.node("Relu", net.dense(x, width, 4 * width))
        x = norm(net.node("Add", net.dense(inner, 4 * width, width), x))
    return net.model(x)


def loaded(name: str, zoo: Path | None) -> tuple[ir.Model, Feed]:
    """A model and a feed."""
    if name in ("resnet50", "bert"):
        model = resnet50() if name == "resnet50" else bert()
        (value,) = model.graph.inputs
        shape = [int(size) for size in value.shape or ()]
        return model, {value.name or "": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
    if zoo is None:
        raise SystemExit(f"{name} is in the zoo: give --zoo DIR")
    spec = importlib.util.spec_from_file_location("zoo", zoo / "zoo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo"] = module
    spec.loader.exec_module(module)
    task = module.load(name)
    return irc.load(task.model), task.calibration(1)[0]


def survivors(groups: ChannelGroups, share: float, multiple: int, uneven: np.random.Generator | None) -> Any:
    """About a share of every family, at widths that are multiples of 16 channels or any."""
    kept = {}
    for family in groups.families:
        if family.statistics:
            continue
        wanted = family.width * (share if uneven is None else np.clip(share + uneven.uniform(-0.25, 0.25), 0.1, 1.0))
        step = multiple if family.width > multiple else 1
        width = max(round(wanted / step) * step, step)
        kept[family] = np.concatenate([family.members(cell)[:width] for cell in range(family.cell_count)])
    return groups.survivors(kept)


def really(runner: Runner, whole: Opened, small: ir.Model, feed: Feed, seconds: float) -> tuple[float, float, float]:
    """The measured ratio of latencies, half the width of its interval, and the ratio of the fastest single runs.

    Of up to four measurements, the one that other work on the machine disturbed least.
    """
    best = (1.0, np.inf)
    fastest = np.full(2, np.inf)
    for _ in range(4):
        with runner.open(small) as opened:
            times = np.asarray(runner.latency([whole, opened], [feed], seconds=seconds))
        fastest = np.minimum(fastest, times.min(axis=1))
        found = Measured(times[:, :, None]).ratio(1, 0)
        doubt = (found.high - found.low) / (2 * found.value)
        if doubt < best[1]:
            best = (found.value, doubt)
        if best[1] < 0.01:
            break
    return *best, float(fastest[1] / fastest[0])


def compared(runner: Runner, name: str, zoo: Path | None, seconds: float) -> list[float]:
    """Prints one line per cut; returns the relative errors."""
    model, feed = loaded(name, zoo)
    modes = ("rows", "columns") if name in ("minilm", "bert") else ("rows",)
    errors = []
    for mode in modes:
        groups = channel_groups(snapshot(model), mode=mode)
        begin = time.perf_counter()
        table = LatencyTable.measured(runner, groups, feed)
        took = time.perf_counter() - begin
        print(
            f"\n{name}, {mode}: {table.milliseconds():.3g} ms; table of {len(table.probes.times)} operators in {took:.1f} s"
        )
        random = np.random.default_rng(0)
        with runner.open(model) as whole:
            for multiple in (16, 1):
                for share in (0.8, 0.6, 0.4):
                    for uneven in (None, random):
                        alive = survivors(groups, share, multiple, uneven)
                        predicted = table.milliseconds(alive) / table.milliseconds()
                        small = snapshot(model)
                        try:
                            cut(small, groups.propagation, alive)
                        except ModelError:
                            continue
                        measured, doubt, fastest = really(runner, whole, small, feed, seconds)
                        errors.append(predicted / measured - 1)
                        print(
                            f"  multiples of {multiple:2d}, {share:.1f} {'uneven' if uneven else 'even  '}"
                            f"  predicted {predicted:.3f}  measured {measured:.3f} +- {doubt:5.1%}  error {errors[-1]:+6.1%}"
                            f"  (fastest runs {fastest:.3f})",
                            flush=True,
                        )
        print(f"  afterwards {len(table.probes.times)} operators, {table.probes.seconds:.1f} s of measuring")
    size = np.abs(errors)
    print(f"{name}: median |error| {np.median(size):.1%}, worst {size.max():.1%}")
    return errors


def staircase(runner: Runner, seconds: float) -> None:
    """One convolution between two others, by its channels."""
    net = Network((1, 64, 28, 28))
    x = net.node("Relu", net.convolution(net.input, 64, 64, 3))
    model = net.model(net.convolution(x, 64, 64, 3))
    groups = channel_groups(snapshot(model))
    (family,) = groups.families
    feed = {"x": np.random.default_rng(1).standard_normal((1, 64, 28, 28)).astype(np.float32)}
    table = LatencyTable.measured(runner, groups, feed)
    print(f"\nstaircase: 64 channels {table.milliseconds():.3g} ms; widths worth asking for {table.levels(family)}")
    with runner.open(model) as whole:
        for width in (64, 63, 62, 60, 56, 52, 49, 48, 47, 44, 40, 36, 33, 32):
            alive = groups.survivors({family: family.atoms[:width]})
            small = snapshot(model)
            cut(small, groups.propagation, alive)
            measured, doubt, fastest = really(runner, whole, small, feed, seconds)
            predicted = table.milliseconds(alive) / table.milliseconds()
            print(
                f"  {width}: predicted {predicted:.3f}  measured {measured:.3f} +- {doubt:5.1%}"
                f"  error {predicted / measured - 1:+6.1%}  (fastest runs {fastest:.3f})",
                flush=True,
            )


def main() -> None:
    """Prints one table per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measured pair")
    given = parser.parse_args()
    errors: list[float] = []
    with Runner(threads=given.threads) as runner:
        for name in given.models:
            if name == "staircase":
                staircase(runner, given.seconds)
            else:
                errors += compared(runner, name, given.zoo, given.seconds)
    if errors:
        size = np.abs(errors)
        print(f"\nall: median |error| {np.median(size):.1%}, 90 % {np.quantile(size, 0.9):.1%}, worst {size.max():.1%}")


if __name__ == "__main__":
    main()
