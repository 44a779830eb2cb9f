"""Which rewritten sites are slower as integers than in float here: measured per node, decided for the graph as a whole.

The runtime profiles the float model and the integer one. Each of its nodes is attributed to the node of the float model
that it executes, by the names it keeps; what is left are conversions. A site alone may be faster and yet lose by the
conversions around it, and a slow one may pay because its neighbours then need none, so the sites are divided by a minimum
cut (`irc.precision_cut`), with the cost of conversions measured on this machine as well.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Hashable, Mapping, Sequence

import onnx_ir as ir

from irc.analysis.concrete_shapes import ConcreteShapes
from irc.calibration.memory_packing import sizes_of
from irc.ir import snapshot, unique_name
from irc.pass_base import node_id
from irc.precision_cut import Choice, Link, cheapest, total_cost
from irc.runner import Feed, NodeTime, Runner, original_name
from irc.target import QuantizationStyle

LEAST_GAIN = 0.02
"""A division has to promise at least this share of the integer model's time, or nothing is proposed."""
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_LAYOUT = ("Transpose", "ReorderInput", "ReorderOutput")
_PROBED = (256, 1 << 14, 1 << 20)
_KERNEL = re.compile("Conv|Gemm|MatMul")
_FUSED_NODES = 8
"""As many nodes are looked at behind a kernel that a weighted operator was fused into."""
_OUTPUT = "<output>"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion costs, in microseconds.

    Attributes:
        once: Per node.
        per_element: Per element.
    """

    once: float
    per_element: float

    def __call__(self, elements: int) -> float:
        """The cost for a tensor."""
        return self.once + self.per_element * elements


@dataclasses.dataclass(frozen=True)
class Slower:
    """Sites that had better stay float.

    Attributes:
        sites: Their times in microseconds, in float and as integers, by id.
        gain: Predicted share of the integer model's time that is saved.
    """

    sites: Mapping[str, tuple[float, float]]
    gain: float


@dataclasses.dataclass(frozen=True)
class FloatTimes:
    """What integer forms are compared with, the same for every choice of sites.

    Attributes:
        nodes: Times of the float model.
        to_integers: Cost of quantizing.
        to_float: Cost of dequantizing.
    """

    nodes: Sequence[NodeTime]
    to_integers: Conversion
    to_float: Conversion

    @classmethod
    def measured(
        cls, runner: Runner, base: ir.Model, style: QuantizationStyle, feeds: Sequence[Feed], *, seconds: float
    ) -> FloatTimes:
        """Profiles the float model, and conversions alone.

        Raises:
            RunnerError: If the model cannot run a feed.
        """
        nodes = runner.profile(_named(base), feeds, seconds=seconds)
        return cls(nodes, *_conversions(runner, style))


def slower_as_integers(
    runner: Runner,
    base: ir.Model,
    integer: ir.Model,
    sites: Collection[str],
    style: QuantizationStyle,
    feeds: Sequence[Feed],
    float_times: FloatTimes,
    *,
    seconds: float = 1.0,
) -> Slower:
    """Profiles the integer model and finds the sites whose integer form, with the conversions it needs, costs more.

    Args:
        runner: Where it runs.
        base: The float model.
        integer: The same with the sites rewritten.
        sites: Ids of the rewritten sites.
        style: The target's: what is fused, what moves integers, what needs a quantized output.
        feeds: Inputs.
        float_times: Of the float model and of conversions.
        seconds: Time for the profile.

    Raises:
        RunnerError: If the model cannot run a feed.
    """
    graph = _Graph(base, sites, style, feeds[0])
    in_float, _ = graph.attributed(float_times.nodes)
    as_integers, others = graph.attributed(runner.profile(_named(integer), feeds, seconds=seconds))
    to_integers, to_float = float_times.to_integers, float_times.to_float
    converted = sum(time.elements for time in others if time.op_type in _CONVERSIONS)
    layout = sum(time.microseconds for time in others if time.op_type in _LAYOUT) / max(converted, 1)
    to_integers = dataclasses.replace(to_integers, per_element=to_integers.per_element + layout)
    to_float = dataclasses.replace(to_float, per_element=to_float.per_element + layout)
    choices = graph.choices(in_float, as_integers)
    links = graph.links(to_integers, to_float)
    everything = {choice.key for choice in choices if math.isfinite(choice.integer_cost)}
    before = total_cost(choices, links, everything)
    chosen, after = cheapest(choices, links)
    whole = sum(as_integers.values()) + sum(time.microseconds for time in others)
    gain = (before - after) / whole if whole and math.isfinite(before) else 0.0
    if gain < LEAST_GAIN:
        return Slower({}, max(gain, 0.0))
    slower = {
        site: (in_float.get(key, 0.0), as_integers.get(key, 0.0))
        for site, key in graph.site_groups.items()
        if key in everything and key not in chosen
    }
    return Slower(slower, gain)


def site_microseconds(
    runner: Runner,
    base: ir.Model,
    rewritten: ir.Model,
    sites: Collection[str],
    style: QuantizationStyle,
    feeds: Sequence[Feed],
    *,
    seconds: float = 0.5,
) -> dict[str, float]:
    """The time that each site takes in a rewritten model, with the conversions in front of it.

    Args:
        runner: Where it runs.
        base: The float model.
        rewritten: The same with the sites rewritten in any way that keeps the names of their results, or the float model.
        sites: Ids of sites.
        style: The target's.
        feeds: Inputs.
        seconds: Time for the profile.

    Returns:
        Microseconds per run, of the sites that were found in the profile.

    Raises:
        RunnerError: If the model cannot run a feed.
    """
    graph = _Graph(base, sites, style, feeds[0])
    times = runner.profile(_named(rewritten), feeds, seconds=seconds)
    found, others = graph.attributed(times)
    readers: dict[str, list[NodeTime]] = {}
    for time in times:
        for name in time.inputs:
            readers.setdefault(name, []).append(time)
    for time in others:
        keys = [graph.site_of(reader) for name in time.outputs for reader in readers.get(name, ())]
        reached = [key for key in keys if key is not None]
        for key in reached:
            found[key] = found.get(key, 0.0) + time.microseconds / len(reached)
    return {site: found[key] for site, key in graph.site_groups.items() if key in found}


def _named(model: ir.Model) -> ir.Model:
    """A copy whose nodes all have names, by which the profile tells them apart."""
    copy = snapshot(model)
    for index, node in enumerate(copy.graph.all_nodes()):
        if not node.name:
            node.name = unique_name(copy, f"irc.node.{index}")
    return copy


def _conversions(runner: Runner, style: QuantizationStyle) -> tuple[Conversion, Conversion]:
    """What QuantizeLinear and DequantizeLinear cost here, by size."""
    import numpy as np

    dtype = np.uint8 if style.activation == "uint8" else np.int8
    inputs, nodes, outputs, feed = [], [], [], {}
    scale = ir.Value(name="scale", const_value=ir.tensor(np.float32(0.1), name="scale"))
    zero = ir.Value(name="zero", const_value=ir.tensor(dtype(0), name="zero"))
    for size in _PROBED:
        source = ir.Value(name=f"x{size}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([size]))
        quantize = ir.node("QuantizeLinear", [source, scale, zero], name=f"q{size}")
        dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=f"d{size}")
        quantize.outputs[0].name, dequantize.outputs[0].name = f"i{size}", f"y{size}"
        dequantize.outputs[0].type, dequantize.outputs[0].shape = source.type, source.shape
        inputs.append(source)
        nodes += [quantize, dequantize]
        outputs.append(dequantize.outputs[0])
        feed[f"x{size}"] = np.linspace(-1, 1, size, dtype=np.float32)
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=[scale, zero], opset_imports={"": 17}, name="probe")
    times = {
        time.name: time.microseconds for time in runner.profile(ir.Model(graph, ir_version=8), [feed], seconds=0.1)
    }
    found = []
    for kind in "qd":
        small, large = times.get(f"{kind}{_PROBED[0]}", 0.0), times.get(f"{kind}{_PROBED[-1]}", 0.0)
        found.append(Conversion(small, max(large - small, 0.0) / (_PROBED[-1] - _PROBED[0])))
    return found[0], found[1]


class _Graph:
    """The float model as choices and links: a site with what is fused into it, every other node by itself.

    Attributes:
        site_groups: The choice of each site.
    """

    def __init__(self, base: ir.Model, sites: Collection[str], style: QuantizationStyle, feed: Feed) -> None:
        self._base, self._style = base, style
        self._shapes = ConcreteShapes(base, sizes_of(base, feed))
        self.site_groups: dict[str, Hashable] = {}
        self._group: dict[ir.Node, Hashable] = {}
        self._members: dict[Hashable, ir.Node] = {}
        for node in base.graph:
            site = node_id(node)
            source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
            carried = node.op_type in (*style.commuting, *style.fused) and node.domain == ""
            if site in sites and node.op_type in (*style.weighted, *style.joining):
                self.site_groups[site] = key = ("site", site)
                self._members[key] = node
            elif carried and source is not None and self._group.get(source, ("",))[0] == "site":  # type: ignore[index]
                key = self._group[source]  # type: ignore[assignment]
            else:
                key = ("float", site)
            self._group[node] = key
        self._makers = {v.name: node for node in base.graph for v in node.outputs if v.name}
        self._names = {node.name: node for node in base.graph if node.name}

    def attributed(self, times: Sequence[NodeTime]) -> tuple[dict[Hashable, float], list[NodeTime]]:
        """Microseconds by choice, and the nodes that are of none: conversions and changes of layout."""
        found: dict[Hashable, float] = {}
        others: list[NodeTime] = []
        unnamed: list[NodeTime] = []
        fused: list[tuple[NodeTime, ir.Node]] = []
        for time in times:
            node = self._executed(time)
            if time.op_type in _CONVERSIONS or (
                time.op_type in _LAYOUT and (node is None or node.op_type != "Transpose")
            ):
                others.append(time)
            elif node is None:
                unnamed.append(time)
            elif self._group[node] not in self._members and _KERNEL.search(time.op_type):
                fused.append((time, node))
            else:
                self._add(found, self._group[node], time)
        for time, node in fused:
            self._add(found, self._behind(node, found), time)
        makers = {name: time for time in times for name in time.outputs}
        for time in unnamed:
            site = self._upstream(time, makers)
            if site is None:
                others.append(time)
            else:
                self._add(found, site, time)
        return found, others

    def site_of(self, time: NodeTime) -> Hashable | None:
        """The site that a node of the runtime executes, or None."""
        node = self._executed(time)
        key = self._group[node] if node is not None else None
        return key if key in self._members else None

    def _upstream(self, time: NodeTime, makers: Mapping[str, NodeTime]) -> Hashable | None:
        """The site whose result a node without a name reads, conversions passed: what it would be fused with in float."""
        pending, seen = [time], {time}
        while pending and len(seen) <= _FUSED_NODES:
            for name in pending.pop(0).inputs:
                maker = makers.get(name)
                if maker is None or maker in seen:
                    continue
                seen.add(maker)
                node = None if maker.op_type in _CONVERSIONS else self._executed(maker)
                if node is not None and self._group[node] in self._members:
                    return self._group[node]
                if node is None:
                    pending.append(maker)
        return None

    @staticmethod
    def _add(found: dict[Hashable, float], key: Hashable, time: NodeTime) -> None:
        found[key] = found.get(key, 0.0) + time.microseconds

    def _executed(self, time: NodeTime) -> ir.Node | None:
        """The node of the float model whose result a runtime node gives, or whose name it kept."""
        stem = original_name(time.name)
        for name in (*(original_name(output) for output in time.outputs), stem):
            if name in self._makers:
                return self._makers[name]
        return self._names.get(stem)

    def _behind(self, node: ir.Node, found: Mapping[Hashable, float]) -> Hashable:
        """The site that a kernel with the result of a later node executes: the nearest before it that has no kernel yet."""
        pending, seen = [node], {node}
        while pending:
            current = pending.pop(0)
            key = self._group[current]
            if key in self._members and key not in found:
                return key
            for value in current.inputs:
                maker = value.producer() if value is not None else None
                if maker is not None and maker in self._group and maker not in seen and len(seen) < _FUSED_NODES:
                    seen.add(maker)
                    pending.append(maker)
        return self._group[node]

    def choices(self, in_float: Mapping[Hashable, float], as_integers: Mapping[Hashable, float]) -> list[Choice]:
        """One per group; a weighted site that was not found in both profiles stays as it is.

        What a float node costs more behind an integer one, which it is no longer fused with, is a cost of the latter.
        """
        as_integers = dict(as_integers)
        for node, key in self._group.items():
            source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
            behind = self._group.get(source) if source is not None else None
            if key not in self._members and behind in self._members and behind in as_integers:
                as_integers[behind] += max(as_integers.get(key, 0.0) - in_float.get(key, 0.0), 0.0)
        found = []
        for key in dict.fromkeys(self._group.values()):
            anchor = self._members.get(key)
            if anchor is None:
                found.append(Choice(key, 0.0))
            elif key not in as_integers or (key not in in_float and anchor.op_type in self._style.weighted):
                found.append(Choice(key, math.inf, 0.0))
            else:
                joins = anchor.op_type not in self._style.weighted
                found.append(Choice(key, in_float.get(key, 0.0), as_integers[key], joins))
        return [*found, Choice(_OUTPUT, 0.0)]

    def links(self, to_integers: Conversion, to_float: Conversion) -> list[Link]:
        """One per value that more than one group touches."""
        values = [*self._base.graph.inputs, *(value for node in self._base.graph for value in node.outputs)]
        found = []
        for value in values:
            dtype = self._shapes.dtype(value)
            if dtype is not None and dtype != ir.DataType.FLOAT:
                continue
            maker = self._maker(value)
            readers = [self._reader(use.node, use.idx) for use in value.uses()]
            if value.is_graph_output():
                readers.append(_OUTPUT)
            producer = value.producer()
            own = self._group.get(producer) if producer is not None else None
            outside = tuple(dict.fromkeys(key for key in readers if key is not None and key != own))
            if outside:
                elements = self._shapes.elements(value) or 0
                found.append(Link(maker, outside, to_integers(elements), to_float(elements)))
        return found

    def _maker(self, value: ir.Value) -> Hashable | None:
        """The choice whose precision a value has; None if it is float whatever is chosen."""
        producer = value.producer()
        if producer is None:
            return None
        key = self._group[producer]
        node = self._members.get(key)
        if node is None or (node.op_type in self._style.weighted and node.op_type not in self._style.needs_output):
            return None
        return key

    def _reader(self, node: ir.Node, index: int) -> Hashable | None:
        """The choice that reads a value; None for operands that are constants in any case."""
        if node not in self._group:
            return _OUTPUT  # the body of another node
        if node.op_type in self._style.weighted and node_id(node) in self.site_groups and index:
            return None
        return self._group[node]


__all__ = ["FloatTimes", "Slower", "slower_as_integers"]
