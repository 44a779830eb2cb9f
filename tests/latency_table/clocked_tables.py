"""A clock that says what nodes take, and the models whose latency tables are measured by it; no real time decides anything."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from channel_graphs import self_attention
from channel_kit import model_of, random_weight

from irc.analysis.assumed_sizes import Sizes
from irc.analysis.channels import ChannelGroups, channel_groups
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.calibration.memory_packing import sizes_of
from irc.channel_surgery import cut
from irc.ir import snapshot
from irc.latency_table import LatencyTable
from irc.latency_table.kernels import kernel_of
from irc.latency_table.surviving_shapes import SurvivingShapes
from irc.runner import NodeTime

RUN, NODE, PROFILER = 5.0, 0.5, 1.5
BLOCK = 16


class Clock:
    """Stands for the runner, on a machine where a node takes what `cost` says; the profiler adds its share."""

    def __init__(self, block=BLOCK, slower=1.0):
        self.block, self.slower = block, slower
        self.profiled: list[ir.Model] = []

    def open(self, model):
        return Opened(model)

    def latency(self, models, feeds, *, seconds):
        return [[self.microseconds(opened.model, feeds[0]) / 1e3] * 8 for opened in models]

    def microseconds(self, model, feed):
        return RUN + self.slower * sum(cost for _node, cost in self.costs(model, feed))

    def profile(self, model, feeds, *, seconds):
        self.profiled.append(model)
        found = []
        for node, cost in self.costs(model, feeds[0]):
            if model.graph.name == "probes" and node.op_type == "Conv" and self.block > 1:
                channels = node.inputs[0].producer().inputs[1].const_value.numpy()[1]
                elements = 64 * -(-int(channels) // self.block) * self.block
                found.append(NodeTime("r", "ReorderInput", (), (f"{node.name}_token_0",), elements, PROFILER))
            names = [tuple(v.name for v in values if v is not None) for values in (node.inputs, node.outputs)]
            found.append(NodeTime(node.name, node.op_type, *names, 1, cost + PROFILER))
        return found

    def costs(self, model, feed):
        shapes = ConcreteShapes(model, sizes_of(model, feed) if feed else Sizes({}, {}))
        return [(node, NODE + self.work(node, shapes)) for node in model.graph]

    def work(self, node, shapes):
        made = shapes.static(node.outputs[0])
        if node.op_type == "Conv":
            groups = node.attributes.get_int("group", 1)
            outputs, inputs, *kernel = shapes.static(node.inputs[1])
            if groups == 1 and self.block > 1:
                if inputs >= self.block and inputs % 4:
                    return 1e-3 * 1.5 * math.prod(made) * inputs * math.prod(kernel)
                inputs = inputs if inputs < self.block else -(-inputs // self.block) * self.block
                outputs = -(-outputs // self.block) * self.block
            elif inputs == 1 and groups > 1 and groups % 4 == 0 and self.block > 1:
                outputs = -(-outputs // self.block) * self.block
            return 1e-3 * made[0] * outputs * math.prod(made[2:]) * inputs * math.prod(kernel)
        if node.op_type in ("MatMul", "Gemm"):
            left = shapes.static(node.inputs[0])
            return 1e-3 * math.prod(made) * left[-1]
        if node.op_type in ("LSTM", "GRU"):
            return (
                1e-3
                * math.prod(shapes.static(node.inputs[0])[:2])
                * sum(math.prod(shapes.static(node.inputs[i])) for i in (1, 2))
            )
        touched = [value for value in (*node.inputs, *node.outputs) if value is not None and not value.is_initializer()]
        return 1e-3 * sum(shapes.elements(value) or 0 for value in dict.fromkeys(touched))


class Opened:
    def __init__(self, model):
        self.model = model

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass


def feed_of(model, **sizes):
    dims = [(v.name, [d if isinstance(d, int) else sizes.get(d.value, 2) for d in v.shape]) for v in model.graph.inputs]
    return {name: np.zeros(shape, np.float32) for name, shape in dims}


def measured(model, *, mode="rows", clock=None, **sizes):
    groups = channel_groups(snapshot(model), mode=mode)
    return LatencyTable.measured(clock or Clock(), groups, feed_of(model, **sizes)), groups


def narrowed(groups: ChannelGroups, widths):
    """Survivors when of each family the first atoms of every cell stay."""
    return groups.survivors(
        {
            family: np.concatenate([family.members(cell)[:width] for cell in range(family.cell_count)])
            for family, width in zip(groups.families, widths, strict=True)
        }
    )


def truth(model, groups, alive, clock, **sizes):
    small = snapshot(model)
    cut(small, groups.propagation, alive)
    return clock.microseconds(small, feed_of(model, **sizes)) / 1e3


def kernels(model, mode="rows"):
    groups = channel_groups(model, mode=mode)
    shapes = SurvivingShapes(groups.propagation, ConcreteShapes(model, sizes_of(model, feed_of(model))))
    found = {node.outputs[0].name: kernel_of(node, shapes) for node in groups.propagation.products}
    return groups, found


LSTM = """agraph (float[6, n, 8] x) => (float[6, n, 5] y) {
    a = MatMul(x, w0)
    h, last, cell = LSTM<hidden_size=40>(a, w, r, b)
    s = Squeeze(h, axes)
    y = MatMul(s, w1)
}"""
GROUPED = """agraph (float[n, 3, 8, 8] x) => (float[n, 4] y) {
    a = Conv(x, w0)
    b = Conv<group=4, pads=[1,1,1,1]>(a, w1)
    c = Relu(b)
    d = Conv<group=64, pads=[1,1,1,1]>(c, w2)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    y = Gemm<transB=1>(f, w3, b3)
}"""


def attention():
    """4 heads of 16 dimensions at 8 positions."""
    return self_attention(length=8, width=64, heads=4)


def lstm():
    shapes = {"w0": (8, 24), "w": (1, 160, 24), "r": (1, 160, 40), "b": (1, 320), "w1": (40, 5)}
    return model_of(LSTM, {**{n: random_weight(*s) for n, s in shapes.items()}, "axes": np.array([1])})


def grouped():
    shapes = {"w0": (64, 3, 1, 1), "w1": (64, 16, 3, 3), "w2": (64, 1, 3, 3), "w3": (4, 64), "b3": (4,)}
    return model_of(GROUPED, {name: random_weight(*shape) for name, shape in shapes.items()})


CHAIN = """agraph (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) {
    a = Conv(x, w0)
    b = Relu(a)
    c = Conv(b, w1)
    d = Add(c, b)
    e = Relu(d)
    f = Erf(e)
    y = Conv(f, w2)
}"""


def chain(inner=32):
    shapes = {"w0": (inner, 16, 1, 1), "w1": (inner, inner, 1, 1), "w2": (16, inner, 1, 1)}
    return model_of(CHAIN, {name: random_weight(*shape) for name, shape in shapes.items()})
