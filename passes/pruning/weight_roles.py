"""What the axes of an initializer are for: which of them make channels and which read them, and what its elements are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Slot
from irc.ir import constant

Array = np.ndarray[Any, Any]
MOVED = frozenset({"DequantizeLinear", "Identity", "Cast"})
WEIGHT_INPUTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "Einsum": tuple(range(8)),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "Gather": (0,),
    "Mul": (0, 1),
    "BatchNormalization": (1,),
    "InstanceNormalization": (1,),
    "GroupNormalization": (1,),
    "LayerNormalization": (1,),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
}
"""Inputs that multiply: what is small there weighs little. Sums, means and zero points say nothing of the kind."""


def multiplies(slot: Slot) -> bool:
    """Whether the elements of a slot are factors; those of an initializer with several long axes are taken to be."""
    if slot.use is None:
        return True
    node, index = slot.use
    return index in WEIGHT_INPUTS.get(node.op_type, ())


def scales_channels(slot: Slot) -> bool:
    """Whether the elements of a slot are the scales of a BatchNormalization."""
    return slot.use is not None and slot.use[0].op_type == "BatchNormalization" and slot.use[1] == 1


def produced_axes(slot: Slot) -> frozenset[int]:
    """Axes of an initializer along which its readers make channels rather than read them; all where that is not known."""
    value = slot.initializer
    rank = len(value.shape) if value.shape is not None else len(slot.view)
    if slot.use is not None:
        return _made_by(*slot.use, axes=tuple(range(rank)))
    found: frozenset[int] = frozenset()
    pending = [(value, tuple(range(rank)))]  # with the axis of the initializer for every axis of the value
    while pending:
        value, axes = pending.pop()
        for use in value.uses():
            node, index = use.node, use.idx
            if index == 0 and node.op_type in MOVED:
                pending.append((node.outputs[0], axes))
            elif index == 0 and node.op_type == "Transpose":
                order = node.attributes.get_ints("perm", list(range(len(axes)))[::-1])
                pending.append((node.outputs[0], tuple(axes[i] for i in order)))
            else:
                found |= _made_by(node, index, axes=axes)
    return found


def _made_by(node: ir.Node, index: int, *, axes: tuple[int, ...]) -> frozenset[int]:
    """The axes that come out of a node, named as in `axes`."""
    kind, rank = node.op_type, len(axes)
    if index not in WEIGHT_INPUTS.get(kind, ()):
        return frozenset(axes) if rank > 1 else frozenset()
    if kind == "Conv":
        made: tuple[int, ...] = (0,)
    elif kind == "ConvTranspose":
        made = (0, 1) if node.attributes.get_int("group", 1) > 1 else (1,)
    elif kind == "Gemm":
        flipped = node.attributes.get_int("transB" if index else "transA", 0)
        made = (1 - flipped,) if index else (flipped,)
    elif kind == "MatMul":
        made = (rank - 1,) if index else (max(rank - 2, 0),)
    elif kind == "Einsum":
        made = _einsum_axes(node, index, rank)
    elif kind in ("LSTM", "GRU", "RNN"):
        made = (1,)
    elif kind == "Gather":
        made = tuple(i for i in range(rank) if i != node.attributes.get_int("axis", 0) % rank)
    else:
        made = ()  # it scales channels, and makes none
    return frozenset(axes[i] for i in made if i < rank)


def _einsum_axes(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    inputs, arrow, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or "." in inputs or index >= len(terms) or len(terms[index]) != rank:
        return tuple(range(rank))
    return tuple(i for i, letter in enumerate(terms[index]) if letter in result)


def elements(slot: Slot) -> Array | None:
    """What a slot's elements stand for as floats: integers behind DequantizeLinear are multiplied out; None if unknown."""
    array = constant(slot.initializer)
    if array is None:
        return None
    raw = np.asarray(array)
    result = raw if raw.dtype == np.float64 else raw.astype(np.float32)
    readers = [slot.use[0]] if slot.use is not None else [use.node for use in slot.initializer.uses() if use.idx == 0]
    for node in readers:
        if node.op_type == "DequantizeLinear" and node.inputs[0] is slot.initializer:
            return dequantized(node, result)
    return result


def dequantized(node: ir.Node, array: Array) -> Array:
    """What integers stand for behind a DequantizeLinear; as they are where its scale is not constant."""
    scale = constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None:
        return array
    axis = node.attributes.get_int("axis", 1)

    def spread(values: Array) -> Array:
        values = values.astype(np.float32)
        if values.size == 1:
            return values.reshape(())  # of the whole tensor, whatever the axis says
        if values.ndim == 1 and array.ndim > 1:
            return values.reshape([-1 if i == axis % array.ndim else 1 for i in range(array.ndim)])
        if values.ndim == array.ndim and values.shape != array.shape and values.ndim:
            block = -(-array.shape[axis] // values.shape[axis])
            return np.repeat(values, block, axis=axis).take(range(array.shape[axis]), axis=axis)
        return values

    shifted = array - spread(zero) if zero is not None else array
    result: Array = shifted * spread(scale)
    return result
