"""The smallest number a value can hold, as far as the operator before it says so."""

from __future__ import annotations

import math

import onnx_ir as ir

from irc.ir import constant
from irc.passes.simplification.scopes import STANDARD_DOMAINS

_NEVER_NEGATIVE = frozenset(("Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"))
_LEAST = {ir.DataType.INT8: -128, ir.DataType.UINT8: 0}


def lower_bound(value: ir.Value | None, opset: int) -> float:
    """A number that no element is below, NaN apart; -inf if nothing is known.

    Args:
        value: Any tensor; of integers only the dtype counts.
        opset: Version of the default domain.
    """
    if value is None:
        return -math.inf
    if value.dtype in _LEAST:
        return _LEAST[value.dtype]
    node = value.producer()
    if (
        node is None
        or node.domain not in STANDARD_DOMAINS
        or value.dtype is None
        or not value.dtype.is_floating_point()
    ):
        return -math.inf
    if node.op_type in _NEVER_NEGATIVE:
        return 0.0
    return _clip_bound(node, opset) if node.op_type == "Clip" else -math.inf


def _clip_bound(clip: ir.Node, opset: int) -> float:
    """The lower limit of a Clip; the upper one wins where it is below."""
    if opset < 11:
        low = clip.attributes.get_float("min", -math.inf)
        return min(low, clip.attributes.get_float("max", math.inf))
    limits = []
    for index, default in ((1, -math.inf), (2, math.inf)):
        value = clip.inputs[index] if len(clip.inputs) > index else None
        array = constant(value)
        if value is not None and (array is None or array.size != 1):
            return -math.inf
        limits.append(default if array is None else float(array.reshape(-1)[0]))
    return min(limits)
