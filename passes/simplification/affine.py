"""Multiplications and additions of constants, seen as one thing: y = x * scale + shift, per tensor or per channel."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant_tensor
from irc.passes.simplification.linear_operator import dims_of, float64
from irc.passes.simplification.scopes import STANDARD_DOMAINS

MIN_OPSET = 7
"""Before, operators broadcast by attributes of their own."""

_Array = np.ndarray[Any, Any]
_FLOATS = frozenset((ir.DataType.BFLOAT16, ir.DataType.DOUBLE, ir.DataType.FLOAT, ir.DataType.FLOAT16))


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """A node that computes y = x * scale + shift with a constant that varies along one axis at most.

    Attributes:
        node: An Add, Div, Mul or Sub.
        source: x.
        constant: The other input.
        dims: Its dimensions; all but one are 1.
    """

    node: ir.Node
    source: ir.Value
    constant: ir.Value
    dims: tuple[int, ...]

    @property
    def shifts(self) -> bool:
        """Whether something is added."""
        return self.node.op_type in ("Add", "Sub")

    @property
    def scales(self) -> bool:
        """Whether something is multiplied, be it by -1."""
        return not self.shifts or (self.node.op_type == "Sub" and self.node.inputs[1] is self.source)

    @property
    def scale(self) -> _Array:
        """The factor, [1] or [C], in float64; infinite where the node divides by 0."""
        numbers = float64(self.constant).reshape(-1)
        if self.shifts:
            return np.array([-1.0 if self.scales else 1.0])
        with np.errstate(divide="ignore"):
            return numbers if self.node.op_type == "Mul" else 1.0 / numbers

    @property
    def shift(self) -> _Array:
        """What is added after scaling, [1] or [C], in float64."""
        numbers = float64(self.constant).reshape(-1)
        if not self.shifts:
            return np.array([0.0])
        return -numbers if self.node.op_type == "Sub" and not self.scales else numbers

    @property
    def per_channel(self) -> bool:
        """Whether the constant has more than one number."""
        return any(d != 1 for d in self.dims)

    def follows_channels(self, rank: int | None, behind: int, channels: int) -> bool:
        """Whether the node keeps the shape of its input and its constant varies along the axis of the channels only.

        Args:
            rank: Axes of the other input; None if unknown, and then at least 1.
            behind: How many axes follow that of the channels.
            channels: Number of channels of the other input.
        """
        if len(self.dims) > (1 if rank is None else rank):
            return False
        if not self.per_channel:
            return True
        position = next(i for i, d in enumerate(reversed(self.dims)) if d != 1)
        return position == behind and self.dims[-1 - position] == channels


def affine_of(node: ir.Node | None) -> Affine | None:
    """The node as an affine function of one input, or None if it is not one or its constant varies along several axes."""
    if node is None or node.op_type not in ("Add", "Div", "Mul", "Sub") or node.domain not in STANDARD_DOMAINS:
        return None
    left, right = node.inputs
    tensors = (constant_tensor(left), constant_tensor(right))
    if left is None or right is None or (tensors[0] is None) == (tensors[1] is None):
        return None
    source, other, tensor = (left, right, tensors[1]) if tensors[0] is None else (right, left, tensors[0])
    if tensor is None or tensor.dtype not in _FLOATS or (node.op_type == "Div" and source is right):
        return None
    dims = dims_of(tensor)
    return Affine(node, source, other, dims) if sum(d != 1 for d in dims) <= 1 else None
