"""What the sites of one quantization run share: statistics, style, and the tensors and pairs made so far.

It lives as long as one walk over the model and is handed from site to site, so that the pass itself stays stateless.

A value is quantized once, in the graph where it lives, which may be a body; each graph that reads it brings it back to
float for itself, since a runtime fuses an operator only with a DequantizeLinear of its own graph. Constants that irc
computes are in the main graph, weights stay in the graph they came from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import onnx_ir as ir

from irc.calibration import Statistics
from irc.ir import add_initializer, constant, constant_tensor, unique_name
from irc.passes.quantization.activations import ActivationScale, activation_scale
from irc.passes.quantization.weights import Array, quantized_tensor
from irc.target import QuantizationStyle


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """QuantizeLinear behind a value, read through the DequantizeLinear that `Workspace.twin` gives.

    Attributes:
        quantize: Takes the float value.
        scale: Scale as a graph value, to be shared with values moved from this one.
        zero_point: Zero point as a graph value.
        step: The number in `scale`.
    """

    quantize: ir.Node
    scale: ir.Value
    zero_point: ir.Value
    step: np.float32


@dataclasses.dataclass(frozen=True, eq=False)
class StoredWeight:
    """An int8 tensor with its scales in the graph.

    Attributes:
        quantized: int8 initializer.
        scales: float32 initializer `[channels]`.
        numbers: The scales as an array.
    """

    quantized: ir.Value
    scales: ir.Value
    numbers: Array


class Workspace:
    """Makes each pair, weight and constant once.

    Args:
        graph: The main graph.
        style: The target's.
        statistics: Ranges by value name; None where nothing needs them.
    """

    def __init__(self, graph: ir.Graph, style: QuantizationStyle, statistics: Statistics | None = None) -> None:
        self.graph = graph
        self.style = style
        self.statistics = statistics or Statistics()
        self._count = 0
        self._pairs: dict[ir.Value, Pair] = {}
        self._by_twin: dict[ir.Value, Pair] = {}
        self._twins: dict[tuple[Pair, ir.Graph], ir.Value] = {}
        self._apart: dict[Pair, ir.Value] = {}
        self._weights: dict[tuple[ir.Value, int], StoredWeight] = {}
        self._made: dict[tuple[Hashable, ir.Graph], ir.Value] = {}
        self._dynamic: dict[ir.Value, ir.Node] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def name(self, kind: str) -> str:
        """A short free name: artifacts of small models weigh by their names."""
        return unique_name(self.graph, self._hint(kind))

    def _hint(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def constant(self, array: Array | np.generic, kind: str = "c") -> ir.Value:
        """A small constant of the graph; equal ones are one."""
        data = np.asarray(array)
        key = (data.dtype.str, data.shape, data.tobytes())
        if key not in self._constants:
            self._constants[key] = add_initializer(self.graph, self._hint(kind), data)
        return self._constants[key]

    # -- activations ------------------------------------------------------------------------------------------------

    def pair_of(self, value: ir.Value | None) -> Pair | None:
        """The pair behind a value, or the pair that made it; None if it is float."""
        if value is None:
            return None
        return self._by_twin.get(value) or self._pairs.get(value)

    def made_by_pair(self, value: ir.Value | None) -> bool:
        """Whether a value is the dequantized twin of another, so that readers of it read integers."""
        return value in self._by_twin

    def integer_source(self, value: ir.Value | None) -> Pair | None:
        """The pair whose integers a value holds after moves (Reshape, MaxPool, ...) at most, or None."""
        while value is not None:
            if (pair := self._by_twin.get(value)) is not None:
                return pair
            producer = value.producer()
            if producer is None or producer.op_type not in self.style.commuting or producer.domain != "":
                return None
            value = producer.inputs[0]
        return None

    def scale_for(self, value: ir.Value) -> ActivationScale | None:
        """Scale and zero point by the statistics, or None if the value was not observed."""
        observed = self.statistics.get(value.name or "")
        return None if observed is None else activation_scale(observed, self.style)

    def quantize(self, value: ir.Value) -> Pair | None:
        """The pair behind a value, made now if there is none; None if its range is not known."""
        if (existing := self.pair_of(value)) is not None:
            return existing
        if (source := self.integer_source(value)) is not None:
            # Moved integers keep their scale, otherwise the runtime has to requantize them.
            return self._add_pair(value, source.scale, source.zero_point, source.step)
        found = self.scale_for(value)
        if found is None:
            return None
        scale = self.constant(found.scale, "s")
        return self._add_pair(value, scale, self.constant(found.zero_point, "z"), found.scale)

    def _add_pair(self, value: ir.Value, scale: ir.Value, zero_point: ir.Value, step: np.float32) -> Pair:
        quantize = ir.node("QuantizeLinear", [value, scale, zero_point], name="")
        quantize.outputs[0].name = self.name("q")
        insert_behind(value, quantize)
        self._pairs[value] = pair = Pair(quantize, scale, zero_point, step)
        return pair

    def twin(self, pair: Pair, graph: ir.Graph) -> ir.Value:
        """The dequantized value as the operators of a graph read it: one DequantizeLinear per graph."""
        if (pair, graph) not in self._twins:
            quantized = pair.quantize.outputs[0]
            node = ir.node("DequantizeLinear", [quantized, pair.scale, pair.zero_point], name="")
            twin = node.outputs[0]
            twin.name = self.name("d")
            if graph is home_of(quantized):
                graph.insert_after(pair.quantize, node)
            else:
                graph.insert_before(graph[0], node)
            self._twins[pair, graph] = twin
            self._by_twin[twin] = pair
        return self._twins[pair, graph]

    def quantize_for_all(self, value: ir.Value) -> Pair | None:
        """Quantizes a value for all its users; as a graph output the dequantized twin takes its public name."""
        pair = self.quantize(value)
        if pair is None:
            return None
        graph = home_of(value)
        # Users in bodies too read the twin beside the value: dequantized once, however often a body runs.
        twin = self.twin(pair, graph)
        for use in list(value.uses()):
            if use.node is pair.quantize:
                continue
            stays_float = use.idx == 0 and use.node.domain == "" and use.node.op_type in self.style.requantized
            use.node.replace_input_with(use.idx, self._twin_apart(pair, value) or twin if stays_float else twin)
        take_over_outputs(graph, value, twin, self.name("f"))
        return pair

    def _twin_apart(self, pair: Pair, value: ir.Value) -> ir.Value | None:
        """The dequantized value for an operator that is float and is to stay so, unless it becomes a site later.

        Behind a scale per channel the runtime does not take the operator for one that was meant to be integer.
        """
        if pair not in self._apart:
            channels = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
            if not isinstance(channels, int):
                return None
            zero = np.full(channels, constant(pair.zero_point))
            inputs = [
                pair.quantize.outputs[0],
                self.constant(np.full(channels, pair.step), "s"),
                self.constant(zero, "z"),
            ]
            node = ir.node("DequantizeLinear", inputs, {"axis": 1}, name="")
            node.outputs[0].name = self.name("d")
            home_of(value).insert_after(pair.quantize, node)
            self._apart[pair] = node.outputs[0]
            self._by_twin[node.outputs[0]] = pair
        return self._apart[pair]

    def read_as_integers(self, node: ir.Node, index: int, pair: Pair) -> None:
        """Makes an operator read the twin with one scale, and removes what only kept it float."""
        node.replace_input_with(index, self.twin(pair, graph_of(node)))
        apart = self._apart.get(pair)
        maker = apart.producer() if apart is not None else None
        if apart is not None and not apart.uses() and maker is not None and maker.graph is not None:
            del self._apart[pair], self._by_twin[apart]
            constants = maker.inputs[1:]
            maker.graph.remove(maker, safe=True)
            for value in constants:
                self._forget_unused(value)

    def _forget_unused(self, value: ir.Value | None) -> None:
        """Removes a constant that lost its last user, also from those that are shared."""
        if value is not None and not value.uses():
            self._constants = {key: kept for key, kept in self._constants.items() if kept is not value}
            drop_if_unused(value)

    # -- weights ----------------------------------------------------------------------------------------------------

    def store(self, weight: ir.Value, axis: int) -> StoredWeight:
        """The int8 form of a constant; operators that share a constant and its axis share the int8 tensor."""
        key = (weight, axis)
        if key not in self._weights:
            tensor = constant_tensor(weight)
            assert tensor is not None
            quantized, scales = quantized_tensor(tensor, axis=axis, limit=self.style.weight_limit)
            self._weights[key] = StoredWeight(
                add_initializer(home_of(weight), self._hint("w"), quantized), self.constant(scales, "s"), scales
            )
        return self._weights[key]

    def dequantized(
        self, weight: ir.Value, axis: int, graph: ir.Graph, *, transposed: bool, zero_point: bool
    ) -> ir.Value:
        """The value of `DequantizeLinear(int8 weight)` in a graph, transposed behind it if asked."""

        def build() -> list[ir.Node]:
            stored = self.store(weight, axis)
            inputs = [stored.quantized, stored.scales]
            if zero_point:
                inputs.append(self.constant(np.zeros(len(stored.numbers), np.int8), "z"))
            nodes = [ir.node("DequantizeLinear", inputs, {"axis": axis}, name="")]
            if transposed:
                nodes.append(ir.node("Transpose", [nodes[0].outputs[0]], {"perm": [1, 0]}, name=""))
            return nodes

        return self.once(("dequantized", weight, axis, transposed, zero_point), graph, build)

    def once(self, key: Hashable, graph: ir.Graph, build: Callable[[], list[ir.Node]]) -> ir.Value:
        """The output of a chain of nodes in a graph that reads constants only, built the first time it is asked for."""
        if (key, graph) not in self._made:
            nodes = build()
            for node in nodes:
                node.outputs[0].name = self.name("t")
            graph.insert_before(graph[0], nodes)
            self._made[key, graph] = nodes[-1].outputs[0]
        return self._made[key, graph]

    def dynamic_pair(self, value: ir.Value) -> ir.Node:
        """The DynamicQuantizeLinear behind a value, shared by all its readers."""
        if value not in self._dynamic:
            node = ir.Node("", "DynamicQuantizeLinear", [value], num_outputs=3)
            for output in node.outputs:
                output.name = self.name("q")
            insert_behind(value, node)
            self._dynamic[value] = node
        return self._dynamic[value]


def home_of(value: ir.Value) -> ir.Graph:
    """The graph or body a value lives in."""
    graph = value.graph
    assert isinstance(graph, ir.Graph)
    return graph


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph or body a node is in."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return graph


def insert_behind(value: ir.Value, node: ir.Node) -> None:
    """Puts a node where it can read a value as early as possible."""
    producer, graph = value.producer(), home_of(value)
    if producer is not None:
        graph.insert_after(producer, node)
    else:
        graph.insert_before(graph[0], node)


def take_over(work: Workspace, old: ir.Value, new: ir.Value, *, kept: Sequence[ir.Node]) -> None:
    """Makes `new` stand for `old` everywhere: users, graph outputs, name, type and shape.

    Args:
        work: Of this run.
        old: Gets a spare name; its only users are then the `kept` nodes.
        new: A new value.
        kept: Nodes that go on reading `old`.
    """
    for use in list(old.uses()):
        if use.node not in kept:
            use.node.replace_input_with(use.idx, new)
    outputs = home_of(old).outputs
    for index, output in enumerate(outputs):
        if output is old:
            outputs[index] = new
    new.type, new.shape = old.type, old.shape
    public, old.name = old.name, work.name("t")
    new.name = public


def take_over_outputs(graph: ir.Graph, old: ir.Value, new: ir.Value, spare_name: str) -> None:
    """Makes `new` the graph output that `old` is, public name, type and shape included; `old` takes the spare name."""
    positions = [index for index, output in enumerate(graph.outputs) if output is old]
    if not positions:
        return
    public = old.name
    for index in positions:
        graph.outputs[index] = new
    new.type, new.shape = old.type, old.shape
    old.name = spare_name
    new.name = public


def drop_if_unused(value: ir.Value | None) -> None:
    """Removes a constant that lost its last user, and the Transpose that made it."""
    if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
        return
    producer = value.producer()
    if producer is not None:
        if producer.op_type in ("Transpose", "Constant") and producer.graph is not None:
            source = producer.inputs[0] if producer.inputs else None
            producer.graph.remove(producer, safe=True)
            drop_if_unused(source)
    elif value.is_initializer() and value.graph is not None:
        del value.graph.initializers[value.name]  # type: ignore[arg-type]
