"""What float values are used for, where that decides about their precision.

- *Scores*: read by Softmax alone, through sums, masks and moves. What lies far below every other score has the weight 0
  whatever it is exactly, so that a mask of -3.4e38 may be another number.
- *Positions*: numbers made from integers (a Cast, a Range) without data of the model, and what becomes integers again,
  is compared, or is the angle of a sine. A small relative error of them is another position: they stay float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from irc.ir import bodies, constant_tensor
from irc.passes.precision.retyping import MOVES

_ANGLES = frozenset(("Cos", "Sin", "Tan"))
_COMPARISONS = frozenset(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"))
_ARITHMETIC = frozenset((
    "Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Exp", "Floor", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "Range",
    "Reciprocal", "Round", "Sign", "Sqrt", "Sub", *MOVES,
))  # fmt: skip
_MASK_PATHS = frozenset(("Add", "Cast", "Max", "Min", "Where", *MOVES)) - {"Shape", "Size"}
_INTEGERS = frozenset((
    ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.UINT16,
    ir.DataType.UINT32, ir.DataType.UINT64,
))  # fmt: skip


def in_order(graph: ir.Graph) -> Iterator[ir.Node]:
    """All nodes, those of a body before the node it belongs to."""
    for node in graph:
        for body in bodies(node):
            yield from in_order(body)
        yield node


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is a float32 tensor."""
    return value is not None and value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType)


def data_inputs(node: ir.Node) -> list[ir.Value]:
    """The float32 inputs that are not constant."""
    return [value for value in node.inputs if value is not None and is_float(value) and constant_tensor(value) is None]


class Roles:
    """The roles of all values of a model.

    Args:
        graph: The main graph.
    """

    def __init__(self, graph: ir.Graph) -> None:
        nodes = list(in_order(graph))
        self._counted: set[ir.Value] = set()
        for node in nodes:
            if self._counts(node):
                self._counted.update(value for value in node.outputs if is_float(value))
        self._scores: set[ir.Value] = set()
        for node in reversed(nodes):
            for value in (*node.outputs, *node.inputs):
                if value is not None and value not in self._scores and self._is_score(value):
                    self._scores.add(value)
        self._positions = set(self._find_positions(nodes))

    def is_score(self, value: ir.Value) -> bool:
        """Whether a value is read by Softmax alone."""
        return value in self._scores

    def is_position(self, node: ir.Node) -> bool:
        """Whether an operator computes a position, or what has to be as exact."""
        return node in self._positions

    def is_counted(self, value: ir.Value | None) -> bool:
        """Whether a value is made from integers, without data of the model."""
        return value in self._counted

    def masks(self, node: ir.Node) -> bool:
        """Whether a constant among the inputs of an operator, if it is hugely negative, can only mask scores."""
        if len(node.outputs) != 1 or node.outputs[0] not in self._scores:
            return False
        return node.op_type in _MASK_PATHS or (node.op_type == "Mul" and all(map(self.is_counted, data_inputs(node))))

    def _counts(self, node: ir.Node) -> bool:
        if node.op_type in ("Cast", "CastLike") and node.inputs and node.inputs[0] is not None:
            source = node.inputs[0]
            if source.dtype in _INTEGERS or source.dtype == ir.DataType.BOOL:
                return constant_tensor(source) is None
        if node.op_type == "Range":
            return True
        data = data_inputs(node)
        return bool(data) and not any(True for _ in bodies(node)) and all(value in self._counted for value in data)

    def _is_score(self, value: ir.Value) -> bool:
        uses = list(value.uses())
        if not uses or value.is_graph_output():
            return False
        for use in uses:
            node, index = use.node, use.idx
            if node.op_type == "Softmax" or (node.op_type == "Attention" and node.domain == "" and index == 3):
                continue
            if not node.outputs or node.outputs[0] not in self._scores:
                return False
            if node.op_type == "Mul" and any(map(self.is_counted, node.inputs)):
                continue
            if node.op_type not in _MASK_PATHS:
                return False
        return True

    def _find_positions(self, nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
        pending: list[ir.Node] = []
        for node in nodes:
            values = [value for value in node.inputs if value is not None and is_float(value)]
            if (
                (node.op_type in _ANGLES and values)
                or (node.op_type == "Cast" and values and node.outputs[0].dtype in _INTEGERS)
                or (node.op_type in _COMPARISONS and any(map(self.is_counted, values)))
                or (node.op_type == "Range" and values)
            ):
                pending.append(node)
        seen: set[ir.Node] = set()
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            yield node
            data = data_inputs(node)
            for value in data:
                producer = value.producer()
                if producer is None or any(True for _ in bodies(producer)):
                    continue
                if value in self._counted or (producer.op_type in _ARITHMETIC and len(data) == 1):
                    pending.append(producer)
