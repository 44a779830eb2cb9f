"""How often a Loop runs, as far as that is known before the model runs: never, or exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.passes.simplification.scopes import STANDARD_DOMAINS

MAX_DEPTH = 16
"""How far back a condition is followed; `i + 1 < n and go` takes 4 nodes."""

_Array = np.ndarray[Any, Any]
_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Identity": np.array,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Sub": np.subtract,
}


def known_rounds(loop: ir.Node) -> int | None:
    """0 or 1 if a Loop runs its body so often whatever the model is fed, else None."""
    limit, going, *_ = (*loop.inputs, None, None)
    count, condition = _one_number(limit), _one_number(going)
    if (count is not None and count <= 0) or (condition is not None and not condition):
        return 0
    if (limit is not None and count is None) or (going is not None and condition is None):
        return None
    if count == 1:
        return 1
    body = loop.attributes["body"].as_graph()
    known = {body.inputs[0]: np.array(0, np.int64), body.inputs[1]: np.array(True)}
    for inner, first in zip(body.inputs[2:], loop.inputs[2:], strict=True):
        if (number := _one_number(first)) is not None:
            known[inner] = number
    again = _evaluated(body.outputs[0], known, MAX_DEPTH)
    return 1 if again is not None and not again else None


def _one_number(value: ir.Value | None) -> _Array | None:
    """A constant of one element, bool or integer."""
    if value is None or (value.shape is not None and any(d != 1 for d in value.shape)):
        return None
    array = constant(value)
    return array.reshape(()) if array is not None and array.size == 1 and array.dtype.kind in "bi" else None


def _evaluated(value: ir.Value | None, known: dict[ir.Value, _Array], depth: int) -> _Array | None:
    """What a value is in the first round, if that follows from what is known."""
    if value is None or depth == 0:
        return None
    if value in known:
        return known[value]
    if (number := _one_number(value)) is not None:
        return number
    node = value.producer()
    if node is None or node.domain not in STANDARD_DOMAINS or node.op_type not in _OPERATORS:
        return None
    operands = [_evaluated(operand, known, depth - 1) for operand in node.inputs]
    if any(operand is None for operand in operands):
        return None
    with np.errstate(over="ignore"):
        return np.asarray(_OPERATORS[node.op_type](*operands))
