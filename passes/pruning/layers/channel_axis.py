"""Which axis of a value counts its channels."""

from __future__ import annotations

import onnx_ir as ir

from irc.analysis.weights import Weights

_BY_CHANNEL_1 = frozenset(
    {"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization"}
)
_BY_LAST = frozenset({"MatMul", "Gemm", "LayerNormalization", "RMSNormalization"})


def channel_axis(value: ir.Value, weights: Weights) -> int | None:
    """Which axis of a value counts channels: that of the product it is made by, else 1 of images and the last of others."""
    if value.shape is None:
        return None
    rank = len(value.shape)
    if not rank:
        return None
    found = _made_axis(value, rank, weights, set())
    return found if found is not None else 1 if rank >= 4 else rank - 1


def _made_axis(value: ir.Value | None, rank: int, weights: Weights, seen: set[ir.Value]) -> int | None:
    if value is None or value in seen or value.shape is None or len(value.shape) != rank:
        return None
    seen.add(value)
    node = value.producer()
    if node is None:
        return None
    if node.op_type in _BY_CHANNEL_1:
        return 1 if rank > 1 else None
    if node.op_type in _BY_LAST:
        return rank - 1
    if node.op_type == "Transpose":
        axes = node.attributes.get_ints("perm", list(range(rank))[::-1])
        axis = _made_axis(node.inputs[0], rank, weights, seen)
        return list(axes).index(axis) if axis is not None else None
    for source in node.inputs:
        if source is not None and not weights.is_constant(source):
            axis = _made_axis(source, rank, weights, seen)
            if axis is not None:
                return axis
    return None
