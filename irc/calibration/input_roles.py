"""What a model does with each input, read off its graph: an index into a table, a mask, a length, an argument.

The value of an input is followed through operators that keep or shift it (Cast, Reshape, Concat, Add of a constant,
bodies of If, Loop and Scan) until an operator says what it must be.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx_ir as ir

from irc.ir import constant

Kind = Literal["value", "index", "mask", "length", "argument", "positive"]


@dataclasses.dataclass
class Role:
    """What an input is for.

    Attributes:
        kind: "index" into a table or tensor, "mask" of zeros and ones, "length" of sequences, "argument" of an operator
            (a number of repeats, an axis), "positive" for floats of which a root, logarithm or quotient is taken, else
            a plain "value".
        low: Smallest integer allowed.
        high: Largest integer allowed; infinity if nothing limits it.
        symbols: Sizes an index or length must not exceed, by symbol.
        float_users: Whether the integer is turned into floating point.
    """

    kind: Kind = "value"
    low: int = 0
    high: float = math.inf
    symbols: list[str] = dataclasses.field(default_factory=list)
    float_users: bool = False

    def become(self, kind: Kind) -> None:
        """Takes a kind unless a stronger one is known."""
        if _STRENGTH.index(kind) > _STRENGTH.index(self.kind):
            self.kind = kind

    def limit(self, low: float, high: float) -> None:
        """Narrows the allowed integers."""
        self.low = max(self.low, math.ceil(low))
        self.high = min(self.high, math.floor(high))


_STRENGTH: tuple[Kind, ...] = ("value", "positive", "mask", "length", "argument", "index")


@dataclasses.dataclass(frozen=True)
class _Flow:
    """A value that carries `factor * input + offset`, the offset lying in [low, high]."""

    value: ir.Value
    factor: int = 1
    low: int = 0
    high: int = 0


_KEEPS_FIRST = {
    "Cast", "CastLike", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Slice", "Expand", "Transpose",
    "Tile", "Clip", "Abs", "Gather", "GatherElements", "Split", "Pad", "ReduceMax", "ReduceMin",
}  # fmt: skip
_KEEPS_ALL = {"Concat", "Min", "Max"}
_COMPARISONS = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
_LOGIC = {"Not", "And", "Or", "Xor"}
_ROOTS = {"Sqrt", "Log"}
_POSITIVE_OPERANDS = {("Div", 1), ("BatchNormalization", 4), ("Dropout", 1), ("NonMaxSuppression", 3)}

# What an argument of an operator must be for the operator to run: (operator, input) -> value.
_ARGUMENTS: dict[tuple[str, int], int] = {
    ("Range", 0): 0, ("Range", 1): 4, ("Range", 2): 1,
    ("ConstantOfShape", 0): 1, ("Expand", 1): 1, ("Tile", 1): 1, ("TopK", 1): 1, ("OneHot", 1): 8, ("Loop", 0): 2,
    ("Slice", 1): 0, ("Slice", 3): 0, ("Slice", 4): 1, ("Pad", 1): 0, ("CumSum", 1): 0, ("Trilu", 1): 0,
    ("Unsqueeze", 1): 0, ("Squeeze", 1): 0, ("GatherND", 1): 0, ("ScatterND", 1): 0, ("ScatterElements", 1): 0,
    ("Reshape", 1): -1, ("NonMaxSuppression", 2): 4, ("Resize", 1): 0, ("Resize", 2): 1, ("Resize", 3): 8,
    ("Upsample", 1): 1,
}  # fmt: skip


def input_role(value: ir.Value) -> Role:
    """The role of one graph input."""
    role = Role()
    if value.dtype == ir.DataType.BOOL:
        role.become("mask")
    integral = value.dtype is not None and value.dtype.is_integer()
    name = (value.name or "").lower()
    if "mask" in name:
        role.become("mask")
    elif integral and "length" in name.replace("lens", "length"):
        role.become("length")
    pending, seen = [_Flow(value)], {id(value)}
    while pending:
        flow = pending.pop()
        for use in flow.value.uses():
            for following in _follow(use.node, use.idx, flow, role, integral):
                if id(following.value) not in seen:
                    seen.add(id(following.value))
                    pending.append(following)
    if role.kind == "mask":
        role.low, role.high = 0, 1
    return role


def _follow(node: ir.Node, position: int, flow: _Flow, role: Role, integral: bool) -> Iterator[_Flow]:
    """Notes what a node says about the input and yields the values that still carry it."""
    op = node.op_type
    if op in ("Loop", "Scan", "If"):
        yield from _into_bodies(node, position, flow, role)
    elif op in ("Gather", "GatherElements") and position == 1:
        _index(node.inputs[0], node.attributes.get_int("axis", 0), flow, role)
    elif op == "OneHot" and position == 0:
        depth = constant(node.inputs[1])
        role.become("index")
        if depth is not None:
            _limit(flow, int(depth.reshape(-1)[0]), role)
    elif op in ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss") and position == 1:
        _index(node.inputs[0], 1, flow, role)
    elif (op, position) in _ARGUMENTS or (op.startswith("Reduce") and position == 1):
        role.become("argument")
        role.low = role.high = _ARGUMENTS.get((op, position), 0)
    elif op == "Slice" and position == 2:
        role.become("length")
    elif op in ("LSTM", "GRU", "RNN") and position == 4:
        role.become("length")
        _size(node.inputs[0], 0, role)
    elif op in _LOGIC or (op == "Where" and position == 0):
        role.become("mask")
    elif op in _COMPARISONS and integral:
        other = node.inputs[1 - position]
        if _comes_from(other, "Range"):
            role.become("length")
        else:
            edge = constant(other)
            if edge is not None and edge.size == 1 and float(edge.reshape(-1)[0]) in (0.0, 0.5, 1.0):
                role.become("mask")
    elif not integral:
        yield from _follow_float(node, position, flow, role)
    elif op == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.BOOL:
        role.become("mask")
    else:
        yield from _follow_integer(node, position, flow, role)


def _follow_float(node: ir.Node, position: int, flow: _Flow, role: Role) -> Iterator[_Flow]:
    op = node.op_type
    if op in _ROOTS or (op, position) in _POSITIVE_OPERANDS:
        role.become("positive")
    elif op in ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze") and position == 0:
        yield _Flow(node.outputs[0])


def _follow_integer(node: ir.Node, position: int, flow: _Flow, role: Role) -> Iterator[_Flow]:
    op = node.op_type
    if op in ("CumSum", "ReduceSum") and position == 0:
        role.become("mask")
    elif op == "Cast" and ir.DataType(node.attributes.get_int("to", 1)).is_floating_point():
        role.float_users = True
        if any(_masks(user, index) for user, index in _uses_through_shape(node.outputs[0])):
            role.become("mask")
    elif _masks(node, position):
        role.become("mask")
    elif op in ("Add", "Sub", "Mul") and position in (0, 1):
        yield from _affine(node, position, flow, role)
    elif op in ("Mod", "Div"):
        role.low = max(role.low, position)  # a divisor is at least 1
    elif op == "Where":
        yield dataclasses.replace(flow, value=node.outputs[0])
    elif (op in _KEEPS_FIRST and position == 0) or op in _KEEPS_ALL:
        for output in node.outputs:
            yield dataclasses.replace(flow, value=output)


def _masks(node: ir.Node, position: int) -> bool:
    """Whether a number is used as a mask here: 1 - mask, or a product with something that is not constant."""
    other = node.inputs[1 - position] if len(node.inputs) == 2 else None
    if node.op_type == "Sub" and position == 1:
        one = constant(other)
        return one is not None and one.size == 1 and float(one.reshape(-1)[0]) == 1.0
    if node.op_type == "Mul":
        return other is not None and constant(other) is None
    return node.op_type in ("ReduceSum", "CumSum") and position == 0


def _uses_through_shape(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Uses of a value and of its reshaped and broadcast forms."""
    for use in value.uses():
        if use.node.op_type in ("Unsqueeze", "Reshape", "Expand", "Squeeze", "Identity") and use.idx == 0:
            yield from _uses_through_shape(use.node.outputs[0])
        else:
            yield use.node, use.idx


def _affine(node: ir.Node, position: int, flow: _Flow, role: Role) -> Iterator[_Flow]:
    """Follows `x + c`, `x - c`, `c - x` and `x * c`."""
    other = constant(node.inputs[1 - position])
    if other is None or other.size == 0:
        return
    low, high = int(np.min(other)), int(np.max(other))
    output = node.outputs[0]
    if node.op_type == "Add":
        yield _Flow(output, flow.factor, flow.low + low, flow.high + high)
    elif node.op_type == "Sub" and position == 0:
        yield _Flow(output, flow.factor, flow.low - high, flow.high - low)
    elif node.op_type == "Sub":
        yield _Flow(output, -flow.factor, low - flow.high, high - flow.low)
    elif low == high and low != 0:
        ends = sorted((flow.low * low, flow.high * low))
        yield _Flow(output, flow.factor * low, ends[0], ends[1])


def _index(table: ir.Value | None, axis: int, flow: _Flow, role: Role) -> None:
    """Notes an index into axis `axis` of a table."""
    role.become("index")
    if table is None or table.shape is None or not -table.shape.rank() <= axis < table.shape.rank():
        array = constant(table)
        rows: object = array.shape[axis] if array is not None and array.ndim else None
    else:
        rows = table.shape[axis]
    if isinstance(rows, int):
        _limit(flow, rows, role)
    elif isinstance(rows, ir.SymbolicDim) and rows.value is not None:
        role.symbols.append(str(rows.value))
    else:
        role.limit(0, 0)


def _limit(flow: _Flow, rows: int, role: Role) -> None:
    """Keeps `factor * x + offset` in [0, rows)."""
    ends = sorted(((0 - flow.low) / flow.factor, (rows - 1 - flow.high) / flow.factor))
    role.limit(ends[0], ends[1])


def _size(value: ir.Value | None, axis: int, role: Role) -> None:
    """Notes that the input must not exceed a size of a tensor."""
    if value is None or value.shape is None:
        return
    size = value.shape[axis]
    if isinstance(size, int):
        role.high = min(role.high, size)
    elif size.value is not None:
        role.symbols.append(str(size.value))


def _comes_from(value: ir.Value | None, op_type: str) -> bool:
    """Whether a value is produced by an operator, up to reshaping."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == op_type:
            return True
        if producer.op_type not in ("Cast", "Unsqueeze", "Reshape", "Expand", "Squeeze", "Slice", "Identity", "Tile"):
            return False
        value = producer.inputs[0]
    array = constant(value)  # a folded Range
    return array is not None and array.size > 2 and bool(np.array_equal(array.reshape(-1), np.arange(array.size)))


def _into_bodies(node: ir.Node, position: int, flow: _Flow, role: Role) -> Iterator[_Flow]:
    """Follows a value that a Loop or Scan hands to its body."""
    if node.op_type == "If" or (node.op_type == "Loop" and position == 1):
        role.become("mask")
    elif node.op_type == "Loop" and position == 0:
        role.become("argument")
        role.low = role.high = _ARGUMENTS["Loop", 0]
    else:
        body = node.attributes["body"].as_graph() if "body" in node.attributes else None
        if body is not None and position < len(body.inputs):
            yield dataclasses.replace(flow, value=body.inputs[position])
