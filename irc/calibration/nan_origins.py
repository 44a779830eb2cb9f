"""Where a NaN can come from, so that not every value has to be searched for one.

Most operators give no NaN if what they read is finite: sums and products of finite numbers are finite or, beyond the range of
float32, infinite, which the extremes show. A value computed by such operators alone from values that are checked, and
from finite constants, needs no check of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from irc.ir import constant

LARGEST_SAFE = 1e30
"""Above this, sums inside an operator may overflow to infinities of both signs, and these to a NaN."""
_FAITHFUL = frozenset(
    {
        "Abs", "Add", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Erf", "Expand", "Flatten", "Gather", "Gemm",
        "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MatMul", "Max", "MaxPool",
        "Min", "Mul", "Neg", "Pad", "Relu", "Reshape", "Sigmoid", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum",
        "Tanh", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators of the standard domain whose results are finite, or infinite, wherever their inputs are finite."""


def needing_a_check(observed: Iterable[ir.Value]) -> set[ir.Value]:
    """The values that may be NaN while everything checked before them is finite.

    Args:
        observed: Values whose extremes are looked at, in the order of execution.
    """
    clean: dict[ir.Value, bool] = {}
    found = set()
    for value in observed:
        if not _is_clean(value, clean):
            found.add(value)
            # Once checked it is finite for all that follows, or the sample is refused.
            clean[value] = True
    return found


def _is_clean(value: ir.Value, clean: dict[ir.Value, bool]) -> bool:
    """Whether a value can only be NaN if one that is checked is."""
    pending = [value]
    while pending:
        current = pending[-1]
        if current in clean:
            pending.pop()
            continue
        verdict = _by_itself(current)
        if verdict is None:
            producer = current.producer()
            assert producer is not None
            sources = [source for source in producer.inputs if source is not None]
            unknown = [source for source in sources if source not in clean]
            if unknown:
                pending.extend(unknown)
                continue
            verdict = all(clean[source] for source in sources)
        clean[current] = verdict
        pending.pop()
    return clean[value]


def _by_itself(value: ir.Value) -> bool | None:
    """What is known of a value without looking at what it is computed from; None if that decides."""
    array = constant(value)
    if array is not None:
        return array.dtype.kind != "f" or bool(np.isfinite(array).all())
    if value.dtype is not None and not value.dtype.is_floating_point():
        return True
    producer = value.producer()
    if producer is None or producer.domain != "" or producer.op_type not in _FAITHFUL:
        return False
    return None
