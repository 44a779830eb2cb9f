"""Quantize constant weights to symmetric int8, one scale per channel.

    scale[c] = max_abs(W[c]) / limit,   W_q = clip(round(W / scale), -limit, limit)

Source: Jacob et al. 2018, arXiv:1712.05877; symmetric per channel as in Krishnamoorthi 2018, arXiv:1806.08342.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]
SMALLEST_SCALE = float(np.finfo(np.float32).tiny) * 256
LAZY_BYTES = 1 << 20
"""Larger int8 weights are computed when they are written, one at a time, from the float tensor, which may be mapped."""


def channel_scales(weight: Array, *, axis: int, limit: int = 127) -> Array:
    """The float32 scale of every channel, `[weight.shape[axis]]`, positive also for channels of zeros."""
    axis %= weight.ndim
    others = tuple(i for i in range(weight.ndim) if i != axis)
    highest, lowest = np.max(weight, axis=others, initial=0.0), np.min(weight, axis=others, initial=0.0)
    largest = np.maximum(highest, -lowest).astype(np.float32)
    scale = np.maximum(largest / np.float32(limit), np.float32(SMALLEST_SCALE)).astype(np.float32)
    # A channel of zeros is exact with any scale; one keeps the products with it away from denormals.
    scale[largest == 0] = 1.0
    return np.asarray(scale)


def rounded(weight: Array, scale: Array, *, axis: int, limit: int = 127) -> Array:
    """The int8 weight for given channel scales."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    work = np.divide(weight, scale.reshape(shape), dtype=np.float32)
    np.rint(work, out=work)
    np.clip(work, -limit, limit, out=work)
    return work.astype(np.int8)


def quantized_tensor(tensor: ir.TensorProtocol, *, axis: int, limit: int = 127) -> tuple[Array | ir.LazyTensor, Array]:
    """Quantizes a tensor along one axis.

    Args:
        tensor: Any float tensor; a large one is read now for its scales and again when the result is written.
        axis: The channel axis.
        limit: Largest absolute quantized value, 127 or 63.

    Returns:
        int8 weight of the same shape, lazy above 1 MiB, and float32 scales.
    """
    array = tensor.numpy()
    axis %= array.ndim
    scale = channel_scales(array, axis=axis, limit=limit)
    if array.size <= LAZY_BYTES:
        return rounded(array, scale, axis=axis, limit=limit), scale

    def evaluate() -> ir.TensorProtocol:
        return ir.tensor(rounded(tensor.numpy(), scale, axis=axis, limit=limit))

    return ir.LazyTensor(evaluate, dtype=ir.DataType.INT8, shape=ir.Shape(array.shape)), scale


def quantized_bias(bias: Array, scale: Array) -> Array | None:
    """A bias as int32 with the scale of the accumulator, or None where it does not fit 31 bits.

    Args:
        bias: `[C]`.
        scale: `[C]`, activation scale times weight scales.
    """
    quantized = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    if not np.all(np.abs(quantized) < 2**31 - 1):
        return None
    return quantized.astype(np.int32)


def relative_error(weight: Array, *, axis: int) -> float:
    """Energy of the int8 rounding error relative to that of the weight, taken in blocks of rows to keep memory small."""
    scale = channel_scales(weight, axis=axis)
    block = max(1, (4 << 20) // max(1, weight[:1].size))
    energy = error = 0.0
    for start in range(0, len(weight), block):
        part = weight[start : start + block]
        part_scale = scale[start : start + block] if axis % weight.ndim == 0 else scale
        shape = [1] * weight.ndim
        shape[axis] = -1
        difference = part - rounded(part, part_scale, axis=axis) * part_scale.reshape(shape)
        energy += float(np.sum(np.square(part, dtype=np.float64)))
        error += float(np.sum(np.square(difference, dtype=np.float64)))
    return error / energy if energy else 0.0
