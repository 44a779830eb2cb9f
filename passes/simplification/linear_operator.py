"""Conv, ConvTranspose, Gemm and MatMul with a constant weight, seen as one thing: y = W(x) + b, with channels in and out.

What is multiplied to or added to their input or output moves into weight and bias here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant

LAZY_BYTES = 1 << 20
"""A weight above this size (1 MiB) is scaled when the model is saved or run, not before, so that memory stays small."""
BLOCK_BYTES = 16 << 20
"""How much of a weight is read at a time (16 MiB) where all of it counts."""
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")

_Array = np.ndarray[Any, Any]


def dims_of(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The dimensions of a tensor."""
    return tuple(int(d) for d in tensor.shape)  # type: ignore[arg-type]


def float64(value: ir.Value | None) -> _Array:
    """The array of a constant in float64."""
    array = constant(value)
    assert array is not None
    return array.astype(np.float64)


def output_channels(node: ir.Node, weight: ir.TensorProtocol) -> int:
    """Number of output channels."""
    dims = dims_of(weight)
    if node.op_type == "Conv":
        return dims[0]
    if node.op_type == "ConvTranspose":
        return dims[1] * _group(node)
    return dims[-2] if _is_transposed(node) else dims[-1]


def input_channels(node: ir.Node, weight: ir.TensorProtocol) -> int:
    """Number of input channels."""
    dims = dims_of(weight)
    if node.op_type == "Conv":
        return dims[1] * _group(node)
    if node.op_type == "ConvTranspose":
        return dims[0]
    return dims[-1] if _is_transposed(node) else dims[-2]


def along_output(scale: _Array, node: ir.Node, weight: ir.TensorProtocol) -> _Array:
    """A scale per output channel, [C_out] or [1], in a shape that multiplies the weight channel by channel."""
    dims = dims_of(weight)
    if scale.size == 1:
        return scale.reshape((1,) * len(dims))
    if node.op_type == "Conv":  # [C_out, C_in / group, *kernel]
        return scale.reshape(-1, *(1 for _ in dims[1:]))
    if node.op_type == "ConvTranspose":  # [C_in, C_out / group, *kernel], input channels in the order of the groups
        return _by_group(scale, _group(node), dims)
    return scale.reshape(-1, 1) if _is_transposed(node) else scale.reshape(1, -1)


def along_input(scale: _Array, node: ir.Node, weight: ir.TensorProtocol) -> _Array:
    """A scale per input channel, [C_in] or [1], in a shape that multiplies the weight channel by channel."""
    dims = dims_of(weight)
    if scale.size == 1:
        return scale.reshape((1,) * len(dims))
    if node.op_type == "Conv":  # [C_out, C_in / group, *kernel], output channels in the order of the groups
        return _by_group(scale, _group(node), dims)
    if node.op_type == "ConvTranspose":  # [C_in, C_out / group, *kernel]
        return scale.reshape(-1, *(1 for _ in dims[1:]))
    return scale.reshape(1, -1) if _is_transposed(node) else scale.reshape(-1, 1)


def bias_array(node: ir.Node) -> _Array | float:
    """What the operator adds per output channel, [C_out] or a scalar, in float64."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return 0.0
    bias = float64(node.inputs[2]).reshape(-1)
    return bias * node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else bias


def is_per_channel(dims: tuple[int, ...], channels: int) -> bool:
    """Whether a bias of this shape adds the same to every row of a [N, C_out] matrix."""
    return all(d == 1 for d in dims[:-1]) and (not dims or dims[-1] in (1, channels))


def response_to(shift: _Array, node: ir.Node, weight: ir.TensorProtocol) -> _Array:
    """What a Conv, Gemm or MatMul makes of a constant per input channel, [C_in] or [1], where nothing is padded.

    Returns:
        One number per output channel, [C_out], in float64; the weight is read block by block.
    """
    array, factor = np.asarray(weight.numpy()), along_input(shift, node, weight)
    rows = max(1, BLOCK_BYTES // max(1, 8 * array[:1].size))
    contracts_rows = node.op_type in ("Gemm", "MatMul") and not _is_transposed(node)
    response = np.zeros(output_channels(node, weight))
    for start in range(0, array.shape[0], rows):
        block = slice(start, start + rows)
        product = array[block].astype(np.float64) * (factor if factor.shape[0] == 1 else factor[block])
        if contracts_rows:
            response += product.sum(axis=0)
        else:
            response[block] = product.reshape(product.shape[0], -1).sum(axis=1)
    return response * node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else response


def scaled_tensor(weight: ir.TensorProtocol, factor: _Array) -> ir.TensorProtocol:
    """The weight times the factor, in the weight's own dtype; lazy above `LAZY_BYTES`."""

    def evaluate() -> ir.TensorProtocol:
        return ir.Tensor(_scaled(weight, factor), dtype=weight.dtype)

    if weight.nbytes <= LAZY_BYTES:
        return evaluate()
    return ir.LazyTensor(evaluate, dtype=weight.dtype, shape=ir.Shape(dims_of(weight)))


def stays_finite(weight: ir.TensorProtocol, factor: _Array) -> bool:
    """Whether the weight times the factor fits its dtype; of large float32 weights, taken for granted."""
    if weight.dtype.itemsize > 2 and weight.nbytes > LAZY_BYTES:
        return True
    return is_finite(_scaled(weight, factor))


def is_finite(array: _Array) -> bool:
    """Whether every element is a number."""
    return bool(np.isfinite(array).all())


def _scaled(weight: ir.TensorProtocol, factor: _Array) -> _Array:
    """The weight times the factor, in the weight's own dtype."""
    array: _Array = np.asarray(weight.numpy())
    work = np.float64 if array.dtype == np.float64 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        product: _Array = array.astype(work, copy=False) * factor.astype(work)
        return product.astype(array.dtype, copy=False)


def _by_group(scale: _Array, group: int, dims: tuple[int, ...]) -> _Array:
    """The scale of channel j of each group, for each of the dims[0] / group channels on the other side."""
    per_group = scale.reshape(group, 1, dims[1])
    spread = np.broadcast_to(per_group, (group, dims[0] // group, dims[1]))
    return spread.reshape(*dims[:2], *(1 for _ in dims[2:]))


def _group(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def _is_transposed(node: ir.Node) -> bool:
    """Whether the weight of a Gemm is [C_out, C_in]."""
    return node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
