"""Constants of one element, and when two of them are the same number as far as their type can tell."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from irc.ir import constant, constant_tensor

ROUNDINGS = 8
"""Two constants are the same if they differ by at most so many unit roundoffs of their type: exporters round them once or twice."""
_ROUNDOFF = {
    ir.DataType.FLOAT16: float(np.finfo(np.float16).eps),
    ir.DataType.FLOAT: float(np.finfo(np.float32).eps),
    ir.DataType.DOUBLE: float(np.finfo(np.float64).eps),
}


def scalar(value: ir.Value | None, rank: int | None) -> float | None:
    """The number a value always is, or None.

    Args:
        value: Any value, never one that callers may override.
        rank: Rank of what it is combined with, which it must not enlarge; None if unknown.
    """
    tensor = constant_tensor(value)
    if tensor is None or tensor.size != 1 or len(tensor.shape) > (rank or 0):
        return None
    array = constant(value)
    return None if array is None or array.dtype.kind not in "fiu" else float(array.reshape(-1)[0])


def same(found: float, wanted: float, dtype: ir.DataType) -> bool:
    """Whether two numbers are the same in a type, after a rounding or two."""
    return math.isclose(found, wanted, rel_tol=ROUNDINGS * _ROUNDOFF.get(dtype, 0.0))


def rank_of(value: ir.Value | None) -> int | None:
    """The rank of a value, as far as known."""
    return None if value is None or value.shape is None else len(value.shape)
