"""Quantize constant weights to symmetric int8, one scale per output channel.

    scale[c] = max_abs(W[c]) / limit,   W_q = clip(round(W / scale), -limit, limit)

Source: Jacob et al. 2018, arXiv:1712.05877; symmetric and per channel as in Krishnamoorthi 2018, arXiv:1806.08342, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SMALLEST_SCALE = float(np.finfo(np.float32).tiny) * 256


def quantize_per_channel(weight: Array, *, axis: int, limit: int = 127) -> tuple[Array, Array]:
    """Quantizes a weight along one axis.

    Args:
        weight: Any float array.
        axis: The channel axis.
        limit: Largest absolute quantized value, 127 or 63.

    Returns:
        int8 weight of the same shape, and float32 scales `[weight.shape[axis]]`.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.max(np.abs(weight), axis=others, initial=0.0).astype(np.float32)
    scale = np.maximum(largest / np.float32(limit), np.float32(SMALLEST_SCALE)).astype(np.float32)
    # An all-zero channel has no scale of its own; one keeps the division and the runtime's checks happy.
    scale[largest == 0] = 1.0
    shape = [1] * weight.ndim
    shape[axis] = -1
    quantized = np.clip(np.rint(weight / scale.reshape(shape)), -limit, limit).astype(np.int8)
    return quantized, scale


def quantize_bias(bias: Array, scale: Array) -> Array | None:
    """A bias as int32 with the scale of the accumulator, or None where it does not fit 31 bits.

    Args:
        bias: `[C]`.
        scale: `[C]`, activation scale times weight scales.
    """
    quantized = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    if np.any(np.abs(quantized) >= 2**31 - 1):
        return None
    return quantized.astype(np.int32)


def relative_error(weight: Array, quantized: Array, scale: Array) -> float:
    """Energy of the rounding error relative to that of the weight; `scale` broadcasts against `quantized`."""
    energy = float(np.sum(np.square(weight, dtype=np.float64)))
    error = float(np.sum(np.square(weight - quantized * scale, dtype=np.float64)))
    return error / energy if energy else 0.0
