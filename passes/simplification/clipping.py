"""Relu, Clip and Min or Max with a constant as what they are: bounds.

    Relu(x) = clip(x, 0, inf)      Clip(x, lo, hi) = clip(x, lo, hi)      Max(x, c) = clip(x, c, inf)

where clip(x, lo, hi) is lo where x < lo, hi where x > hi, and x elsewhere: NaN stays, and so does -0.0 at a bound of
0.0. In ONNX Runtime a Clip without a bound takes the largest finite number for it, and Max and Min decide otherwise
between 0.0 and -0.0.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.passes.simplification.dimensions import Dimensions

Number = int | float

CLIPPING = ("Relu", "Clip", "Max", "Min")
BOUNDS_ARE_INPUTS_SINCE = 11
_BROADCASTS_SINCE = 8
"""Before, Max and Min took tensors of one shape only."""
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


@dataclasses.dataclass(frozen=True, eq=False)
class Clipping:
    """What an operator does.

    Attributes:
        data: The index of the input that is clipped.
        low: The lower bound, not above `high`.
        high: The upper bound.
        decides_zeros: Whether it may turn 0.0 into -0.0 or back: Max or Min with a float zero.
    """

    data: int
    low: Number
    high: Number
    decides_zeros: bool = False

    def of(self, number: Number) -> Number:
        """What becomes of a number."""
        return self.low if number < self.low else self.high if number > self.high else number


def extremes(dtype: ir.DataType) -> tuple[Number, Number]:
    """The smallest and the largest finite number of a type."""
    if dtype in _FLOATS:
        info = np.finfo(dtype.numpy())
        return float(info.min), float(info.max)
    limits = np.iinfo(dtype.numpy())
    return int(limits.min), int(limits.max)


def clipping(node: ir.Node, dims: Dimensions, opset: int) -> Clipping | str | None:
    """What a node clips, None if it is no clipping, or why it is not known."""
    if node.op_type not in CLIPPING or node.domain not in ("", "ai.onnx") or not node.inputs:
        return None
    dtype = node.outputs[0].dtype
    if dtype is None or not (dtype in _FLOATS or (dtype.is_integer() and dtype.bitwidth >= 8)):
        return None
    lowest, largest = extremes(dtype)
    unbounded = (-math.inf, math.inf) if dtype in _FLOATS else (lowest, largest)
    if node.op_type == "Relu":
        return Clipping(0, 0.0 if dtype in _FLOATS else 0, unbounded[1])
    if node.op_type == "Clip":
        return _clip(node, lowest, largest, opset)
    if len(node.inputs) != 2 or opset < _BROADCASTS_SINCE:
        return None
    for data, other in ((0, 1), (1, 0)):
        bound, value = _scalar(node.inputs[other]), node.inputs[data]
        if bound is None or math.isnan(bound):
            continue
        before, shape = dims.of(value), node.inputs[other].shape  # type: ignore[union-attr]
        if shape is None or len(shape) > (0 if before is None else len(before)):
            return "its constant may enlarge the shape"
        low, high = (bound, unbounded[1]) if node.op_type == "Max" else (unbounded[0], bound)
        return Clipping(data, low, high, decides_zeros=dtype in _FLOATS and bound == 0)
    return None


def _clip(node: ir.Node, lowest: Number, largest: Number, opset: int) -> Clipping | str:
    low: Number | None
    high: Number | None
    if opset < BOUNDS_ARE_INPUTS_SINCE:
        low, high = node.attributes.get_float("min", lowest), node.attributes.get_float("max", largest)
    else:
        given = [node.inputs[i] if i < len(node.inputs) else None for i in (1, 2)]
        low, high = (
            _scalar(value) if value is not None else end for value, end in zip(given, (lowest, largest), strict=True)
        )
    if low is None or high is None:
        return "the bounds of a Clip are not constant"
    if not low <= high:
        return "the bounds of a Clip are reversed or NaN"
    if node.outputs[0].dtype == ir.DataType.FLOAT16 and (low == lowest or high == largest):
        # Where its neighbours have no half precision kernel, the runtime computes all in single precision, with its largest.
        return "what a Clip of float16 makes of infinity without a bound depends on its neighbours"
    return Clipping(0, low, high)


def _scalar(value: ir.Value | None) -> Number | None:
    array = (
        constant(value) if value is not None and value.shape is not None and all(d == 1 for d in value.shape) else None
    )
    return None if array is None else array.item()
