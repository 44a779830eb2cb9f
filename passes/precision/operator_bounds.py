"""What an operator may reach on its way to a result that fits: sums before a mean, squares before a root.

Matrix products, convolutions and plain sums are left to their results: runtimes add them up in float32. Layer and root
mean square normalizations compute in float32 by definition, unless their `stash_type` says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from irc.ir import constant
from irc.passes.precision.ranges import Range

_SQUARED_INPUTS = frozenset(
    ("InstanceNormalization", "LRN", "LpNormalization", "LpPool", "GlobalLpPool", "MeanVarianceNormalization")
)
_STASHING = frozenset(("GroupNormalization", "LayerNormalization", "RMSNormalization"))
_POOLS = frozenset(("AveragePool", "GlobalAveragePool"))


def inner_magnitude(node: ir.Node, ranges: Mapping[str, Range]) -> tuple[float, str] | None:
    """The largest magnitude inside of an operator and what it is of, or None where its inputs and outputs say it all."""

    def magnitude(value: ir.Value | None) -> float:
        found = ranges.get(value.name or "") if value is not None else None
        return found.magnitude if found is not None else 0.0

    data, result = magnitude(node.inputs[0] if node.inputs else None), magnitude(node.outputs[0])
    if node.op_type in _SQUARED_INPUTS:
        return data**2, "its squares"
    if node.op_type in _STASHING:
        return (data**2, "its squares") if node.attributes.get_int("stash_type", 1) != 1 else None
    if node.op_type == "ReduceL2":
        return result**2, "its sum of squares"
    if node.op_type in ("ReduceLogSum", "ReduceLogSumExp"):
        high = ranges.get(node.outputs[0].name or "")
        return (math.exp(min(high.high, 700.0)) if high is not None else 0.0), "the sum in its logarithm"
    if node.op_type in _POOLS or node.op_type == "ReduceMean":
        return result * _averaged(node), "its sum"
    if node.op_type == "Mean":
        return result * len(node.inputs), "its sum"
    if node.op_type == "Attention" and len(node.inputs) > 1:
        size = _head_size(node)
        scale = node.attributes.get_float("scale") or 1 / math.sqrt(size)
        return data * magnitude(node.inputs[1]) * size * scale, "its scores"
    return None


def _averaged(node: ir.Node) -> int:
    """How many numbers an average is of, as far as dimensions are known."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if node.op_type == "AveragePool":
        return math.prod(node.attributes.get_ints("kernel_shape", []))
    if shape is None:
        return 1
    axes = list(range(2, len(shape)))
    if node.op_type == "ReduceMean":
        given = constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
        listed = given.reshape(-1).tolist() if given is not None else node.attributes.get_ints("axes")
        axes = [int(axis) for axis in listed] if listed else list(range(len(shape)))
    return math.prod(d for d in (shape[axis] for axis in axes) if isinstance(d, int))


def _head_size(node: ir.Node) -> int:
    value = node.inputs[0]
    shape = value.shape if value is not None else None
    last = shape[-1] if shape is not None and len(shape) else 1
    size = last if isinstance(last, int) else 1
    if shape is not None and len(shape) == 3:
        size //= max(1, node.attributes.get_int("q_num_heads", 1) or 1)
    return max(1, size)
