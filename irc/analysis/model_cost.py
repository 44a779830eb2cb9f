"""What each node of a model costs: multiply-accumulates, parameters, bytes; and the model in total.

Costs are those of the graph as it is written, every node on its own: a runtime that fuses nodes moves fewer bytes.
Dynamic dimensions get sizes first (`irc.analysis.assumed_sizes`), and what they are is part of the answer. Nothing
unknown is counted as zero in silence: nodes whose cost cannot be told are listed with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import onnx_ir as ir

from irc.analysis.assumed_sizes import Sizes, assume_sizes
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.operation_macs import INTEGER_OPERATORS, UnknownCost, formula_of, multiply_accumulates
from irc.analysis.type_names import type_name
from irc.analysis.weights import Weights, parameters
from irc.pass_base import node_id

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape", "Size"})
"""Operators that look at their input in another shape: they move no bytes."""
_PICKS = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
_LAYOUT = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Transpose"})


@dataclasses.dataclass(frozen=True)
class NodeCost:
    """The cost of one node over one inference.

    Attributes:
        node: Stable id: the name of its first output.
        op_type: Operator, with its domain in front where it is not ONNX's: "com.microsoft::FusedConv".
        macs: Multiply-accumulates, all iterations included; None if unknown.
        parameters: Parameters among the constants it reads; shared ones count at every reader.
        weight_bytes: Bytes of these constants as stored, scales included.
        moved_bytes: Bytes of activations and weights it reads and writes; None if unknown.
        operands: Element types its MACs work on: "float32", "uint8 x int8 (QDQ)", "float32 x int8 weight"; "" without
            MACs.
        times: How often it runs per inference: 0 in the cheaper branch of an If.
        unknown: Why MACs are unknown; "" otherwise.
        module: The PyTorch module it comes from; "" if unknown.
    """

    node: str
    op_type: str
    macs: int | None
    parameters: int
    weight_bytes: int
    moved_bytes: int | None
    operands: str
    times: int = 1
    unknown: str = ""
    module: str = ""


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """The cost of a model.

    Attributes:
        nodes: Every node that computes something at inference, bodies of If, Loop and Scan included; nodes that only
            unpack constants are left out, their constants belong to their readers.
        sizes: Sizes of dynamic dimensions, given and assumed.
        notes: What the totals do not tell, in words.
    """

    nodes: tuple[NodeCost, ...]
    sizes: Sizes
    notes: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all nodes whose cost is known; `uncounted` has the others."""
        return sum(node.macs or 0 for node in self.nodes)

    @property
    def uncounted(self) -> tuple[NodeCost, ...]:
        """Nodes whose multiply-accumulates are unknown."""
        return tuple(node for node in self.nodes if node.macs is None)

    @property
    def moved_bytes(self) -> int | None:
        """Bytes moved by all nodes, or None if some are unknown."""
        total = 0
        for node in self.nodes:
            if node.moved_bytes is None:
                return None
            total += node.moved_bytes
        return total

    def macs_by_operands(self) -> dict[str, int]:
        """Multiply-accumulates by the element types they work on, most first."""
        totals: dict[str, int] = {}
        for node in self.nodes:
            if node.macs:
                totals[node.operands] = totals.get(node.operands, 0) + node.macs
        return dict(sorted(totals.items(), key=lambda item: -item[1]))


def cost(model: ir.Model, given: Mapping[str, int] | None = None) -> ModelCost:
    """The cost of every node and of the model.

    Args:
        model: A loaded model; unchanged.
        given: Sizes of dynamic dimensions by symbol or "input:axis"; the rest is assumed.

    Raises:
        UsageError: If a given name is no dynamic dimension of the model.
    """
    return cost_of(ConcreteShapes(model, assume_sizes(model, given)), Weights(model))


def cost_of(shapes: ConcreteShapes, weights: Weights) -> ModelCost:
    """The cost of a model whose shapes and weights are known already."""
    counter = _Counter(shapes, weights)
    counter.graph(shapes.model.graph, 1)
    return ModelCost(tuple(counter.nodes), shapes.sizes, tuple(dict.fromkeys(counter.notes)))


class _Counter:
    """Walks graphs and collects node costs in order."""

    def __init__(self, shapes: ConcreteShapes, weights: Weights) -> None:
        self._shapes, self._weights = shapes, weights
        self.nodes: list[NodeCost] = []
        self.notes: list[str] = []

    def graph(self, graph: ir.Graph, times: int) -> None:
        for node in graph:
            bodies = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
            if bodies:
                self._control_flow(node, bodies, times)
            elif not self._weights.is_unpacking(node):
                self.nodes.append(self._node(node, times))

    def _control_flow(self, node: ir.Node, bodies: list[ir.Graph], times: int) -> None:
        if node.op_type == "If":
            parts = []
            for body in bodies:
                before = len(self.nodes)
                self.graph(body, times)
                parts.append(self.nodes[before:])
                del self.nodes[before:]
            dearest = max(parts, key=lambda part: sum(n.macs or 0 for n in part))
            for part in parts:
                chosen = part is dearest
                self.nodes += part if chosen else [_never(cost) for cost in part]
            self.notes.append("of an If, the branch with more MACs counts")
            return
        trips = self._shapes.trips(node)
        if trips is None:
            self.notes.append(
                f"{node.op_type} {node_id(node)!r}: how often it runs is not known; its body is counted once"
            )
        for body in bodies:
            self.graph(body, times * (1 if trips is None else trips))

    def _node(self, node: ir.Node, times: int) -> NodeCost:
        stored = self._weights.of(node)
        macs: int | None = None
        unknown = ""
        try:
            macs = multiply_accumulates(node, self._shapes) * times
        except UnknownCost as error:
            unknown = str(error)
        moved = self._moved_bytes(node)
        return NodeCost(
            node=node_id(node),
            op_type=node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}",
            macs=macs,
            parameters=sum(parameters(value) for value in stored),
            weight_bytes=sum(value.const_value.nbytes for value in stored if value.const_value is not None),
            moved_bytes=None if moved is None else moved * times,
            operands=self._operands(node),
            times=times,
            unknown=unknown,
            module=node.metadata_props.get("irc.module", ""),
        )

    def _moved_bytes(self, node: ir.Node) -> int | None:
        if node.op_type in VIEWS:
            return 0
        written = [self.size(value) for value in node.outputs if value.name]
        read: list[int | None] = []
        if node.op_type in _PICKS:  # reads what it picks, not what it picks from
            read = [
                *written,
                *(self.size(v) for v in node.inputs[1:] if v is not None and not self._weights.is_constant(v)),
            ]
        else:
            read = [self.size(v) for v in node.inputs if v is not None and not self._weights.is_constant(v)]
            read += [value.const_value.nbytes for value in self._weights.of(node) if value.const_value is not None]
        total = 0
        for part in (*written, *read):
            if part is None:
                return None
            total += part
        return total

    def size(self, value: ir.Value) -> int | None:
        """Bytes of an activation, or None if its shape or type is unknown."""
        return value_bytes(value, self._shapes)

    def _operands(self, node: ir.Node) -> str:
        try:
            if formula_of(node) is None:
                return ""
        except UnknownCost:
            return ""
        if node.op_type in ("QLinearConv", "QLinearMatMul", "QGemm"):
            first, second = node.inputs[0], node.inputs[3]
        else:
            first, second = (*node.inputs, None)[:2]
        a, b = self._operand(first), self._operand(second)
        if node.op_type in INTEGER_OPERATORS:
            return f"{a[0]} x {b[0]}"
        if a[1] and b[1]:
            return f"{a[0]} x {b[0]} (QDQ)"
        if a[1] or b[1]:
            packed, value = (b, second) if b[1] else (a, first)
            return f"{packed[2]} x {packed[0]} {'weight' if self._is_weight(value) else 'input'}"
        return a[0] or b[0]

    def _is_weight(self, value: ir.Value | None) -> bool:
        return value is not None and self._weights.is_constant(value)

    def _operand(self, value: ir.Value | None) -> tuple[str, bool, str]:
        """(element type, whether it is dequantized from it, type it is dequantized to) of an operand."""
        if value is None:
            return "", False, ""
        current = value
        while (node := current.producer()) is not None and node.op_type in _LAYOUT and node.inputs[0] is not None:
            current = node.inputs[0]
        if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            stored = self._shapes.dtype(node.inputs[0])
            if stored is not None:
                scale = node.inputs[1]
                target = self._shapes.dtype(value) or (scale.dtype if scale is not None else None)
                return type_name(stored), True, type_name(target)
        return type_name(self._shapes.dtype(value)), False, ""


def value_bytes(value: ir.Value, shapes: ConcreteShapes) -> int | None:
    """Bytes of a value for the sizes of `shapes`, or None if its shape or type is unknown."""
    elements, dtype = shapes.elements(value), shapes.dtype(value)
    if elements is None or dtype is None or dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    return -(-elements * dtype.bitwidth // 8)


def _never(node: NodeCost) -> NodeCost:
    """A node of a branch that is not counted."""
    return dataclasses.replace(node, macs=0, moved_bytes=0, times=0, unknown="")
