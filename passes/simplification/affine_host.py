"""Operators that can take a scale and a shift into their constants: Conv, ConvTranspose, Gemm, MatMul, BatchNormalization.

A MatMul together with an Add of a bias behind it counts as one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant_tensor, only_consumer
from irc.passes.simplification.affine import Affine, affine_of
from irc.passes.simplification.inference_batch_norm import has_constant_statistics, why_not_fixed
from irc.passes.simplification.linear_operator import (
    LAZY_BYTES,
    LINEAR,
    along_input,
    along_output,
    bias_array,
    dims_of,
    float64,
    input_channels,
    is_finite,
    is_per_channel,
    output_channels,
    response_to,
    scaled_tensor,
    stays_finite,
)
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.window import window_of

GAMMA, BETA, MEAN = 1, 2, 3
_SAFE_FACTORS = (1e-18, 1e18)
"""Factors that take no weight of a trained network out of the range of float32; for weights too large to look at."""

_Array = np.ndarray[Any, Any]
Slot = tuple[ir.Node, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Host:
    """An operator with constants.

    Attributes:
        node: A Conv, ConvTranspose, Gemm, MatMul or BatchNormalization.
        bias: The Add behind a MatMul, or None.
    """

    node: ir.Node
    bias: Affine | None = None

    @property
    def last(self) -> ir.Node:
        """The node whose output is what the host computes."""
        return self.bias.node if self.bias is not None else self.node

    @property
    def is_norm(self) -> bool:
        """Whether it is a BatchNormalization."""
        return self.node.op_type == "BatchNormalization"

    @property
    def weight(self) -> ir.TensorProtocol | None:
        """The constant weight, or scale of a BatchNormalization; None if it is computed."""
        return constant_tensor(self.node.inputs[1])

    @property
    def bias_slot(self) -> Slot | None:
        """Where a linear operator has its bias, or can get one; None for a MatMul alone."""
        if self.node.op_type != "MatMul":
            return (self.node, 2)
        return (
            (self.bias.node, list(self.bias.node.inputs).index(self.bias.constant)) if self.bias is not None else None
        )

    def why_not(self, affine: Affine, *, behind: bool, opset: int) -> str | None:
        """Why the numbers of an affine node next to it cannot move into its own, or None."""
        name = self.node.op_type
        if self.is_norm:
            if (reason := why_not_fixed(self.node, opset)) is not None:
                return f"of the {name}: {reason}"
            if not has_constant_statistics(self.node):
                return f"the statistics of the {name} are not constant"
        elif self.weight is None:
            return f"the weight of the {name} is not constant"
        elif name == "MatMul" and len(dims_of(self.weight)) != 2:
            return "the weight of the MatMul is not a matrix"
        if not self._fits(affine, behind=behind):
            return f"its constant is not known to be one number, or one for each channel of the {name}"
        with np.errstate(all="ignore"):
            if not (np.isfinite(affine.scale).all() and affine.scale.all() and np.isfinite(affine.shift).all()):
                return "it multiplies by zero, or by what is no finite number"
        return None if self.is_norm else self._why_not_linear(affine, behind=behind)

    def _why_not_linear(self, affine: Affine, *, behind: bool) -> str | None:
        name, weight = self.node.op_type, self.weight
        assert weight is not None
        if affine.shifts and self.bias_slot is None:
            return "the MatMul has no bias"
        if affine.shifts and not behind:
            if name == "ConvTranspose":
                return "what a ConvTranspose makes of a shift depends on the position"
            window = window_of(self.node) if name == "Conv" else None
            if isinstance(window, str) or (window is not None and window.is_padded):
                return "the Conv pads, and not with what is added here"
        slot = self.bias_slot
        bias = slot[0].inputs[slot[1]] if slot is not None and slot[1] < len(slot[0].inputs) else None
        if bias is not None and (behind or affine.shifts):
            tensor = constant_tensor(bias)
            if tensor is None:
                return f"the bias of the {name} is not constant"
            if not is_per_channel(dims_of(tensor), output_channels(self.node, weight)):
                return f"the bias of the {name} differs from row to row"
        return None

    def _fits(self, affine: Affine, *, behind: bool) -> bool:
        """Whether the affine node keeps the shape of its input and treats every channel of the host as one."""
        face = self.last.outputs[0] if behind else affine.source
        shape = None if face.is_graph_output() else face.shape  # what outputs declare is not checked by runtimes
        if self.is_norm:
            weight = self.weight
            if shape is None or len(shape) < 2 or weight is None:
                return False
            rank, after, channels = len(shape), len(shape) - 2, int(weight.size)
        else:
            assert self.weight is not None
            channels = (output_channels if behind else input_channels)(self.node, self.weight)
            if self.node.op_type in ("Conv", "ConvTranspose"):
                rank = len(dims_of(self.weight))
                after = rank - 2
            else:
                transposed = not behind and bool(self.node.attributes.get_int("transA", 0))
                rank, after = (None if shape is None else len(shape)), 1 if transposed else 0  # type: ignore[assignment]
        if not behind:  # what is before may bring its input to the shape that the host needs
            if shape is None or len(shape) != (rank if rank is not None else len(shape)):
                return False
            if affine.per_channel and (len(shape) <= after or shape[len(shape) - 1 - after] != channels):
                return False
        return affine.follows_channels(rank, after, channels)

    def changed(self, affine: Affine, *, behind: bool) -> dict[Slot, ir.TensorProtocol] | str:
        """The constants that make the affine node superfluous, by their place, or why their type cannot hold them."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return (
                self._changed_norm(affine, behind=behind)
                if self.is_norm
                else self._changed_linear(affine, behind=behind)
            )

    def _changed_norm(self, affine: Affine, *, behind: bool) -> dict[Slot, ir.TensorProtocol] | str:
        gamma, beta, mean = (float64(self.node.inputs[index]) for index in (GAMMA, BETA, MEAN))
        wanted = {}
        if affine.scales:
            wanted[GAMMA] = gamma * affine.scale
        if behind:
            wanted[BETA] = beta * affine.scale + affine.shift
        else:  # scale * x + shift - mean = scale * (x - (mean - shift) / scale)
            wanted[MEAN] = (mean - affine.shift) / affine.scale
        result: dict[Slot, ir.TensorProtocol] = {}
        for index, array in wanted.items():
            dtype = self.node.inputs[index].dtype  # type: ignore[union-attr]
            assert dtype is not None
            if not _holds(dtype, array):
                return f"the numbers of the BatchNormalization would not fit {dtype.name}"
            result[self.node, index] = ir.Tensor(array.astype(dtype.numpy()), dtype=dtype)
        return result

    def _changed_linear(self, affine: Affine, *, behind: bool) -> dict[Slot, ir.TensorProtocol] | str:
        weight, slot = self.weight, self.bias_slot
        assert weight is not None
        result: dict[Slot, ir.TensorProtocol] = {}
        if affine.scales:
            factor = (along_output if behind else along_input)(affine.scale, self.node, weight)
            if not (stays_finite(weight, factor) and _keeps_precision(weight, factor)):
                return f"the weight of the {self.node.op_type} would not fit {weight.dtype.name}"
            result[self.node, 1] = scaled_tensor(weight, factor)
        bias = self._changed_bias(affine, weight, behind=behind)
        if bias is not None and slot is not None:
            if not _holds(weight.dtype, bias):
                return f"the bias of the {self.node.op_type} would not fit {weight.dtype.name}"
            result[slot] = ir.Tensor(bias.astype(weight.dtype.numpy()), dtype=weight.dtype)
        return result

    def _changed_bias(self, affine: Affine, weight: ir.TensorProtocol, *, behind: bool) -> _Array | None:
        """What is added behind the host in place of its bias; None if that stays."""
        slot = self.bias_slot
        has_bias = slot is not None and slot[1] < len(slot[0].inputs) and slot[0].inputs[slot[1]] is not None
        if not (affine.shifts or (behind and has_bias)):
            return None
        old = float64(self.bias.constant).reshape(-1) if self.bias is not None else bias_array(self.node)
        if behind:
            new = np.asarray(old * affine.scale + affine.shift)
        else:
            new = np.asarray(old + response_to(affine.shift, self.node, weight))
        if self.bias is None:
            return np.broadcast_to(new, (output_channels(self.node, weight),))
        return new.reshape(*(1 for _ in self.bias.dims[:-1]), -1) if self.bias.dims or new.size > 1 else new.reshape(())


def host_of(node: ir.Node) -> Host | None:
    """The node as a host, with its bias if it is a MatMul; None if it is none."""
    if node.domain not in STANDARD_DOMAINS or node.op_type not in (*LINEAR, "BatchNormalization"):
        return None
    if node.op_type != "MatMul":
        return Host(node)
    host = Host(node)
    uses = list(node.outputs[0].uses())
    affine = affine_of(uses[0].node) if len(uses) == 1 else None
    if affine is None or affine.node.op_type != "Add" or host.weight is None or len(dims_of(host.weight)) != 2:
        return host
    if affine.node.graph is not node.graph or not only_consumer(node.outputs[0], affine.node):
        return host
    shape = node.outputs[0].shape
    follows = affine.follows_channels(None if shape is None else len(shape), 0, output_channels(node, host.weight))
    return Host(node, affine) if follows else host


def _keeps_precision(weight: ir.TensorProtocol, factor: _Array) -> bool:
    """Whether no channel of the weight becomes so small that it loses digits; large weights are judged by the factor."""
    if weight.nbytes > LAZY_BYTES and weight.dtype.itemsize > 2:
        return bool(((np.abs(factor) > _SAFE_FACTORS[0]) & (np.abs(factor) < _SAFE_FACTORS[1])).all())
    array = np.abs(np.asarray(weight.numpy()).astype(np.float64))
    axes = tuple(i for i, d in enumerate(factor.shape) if d == 1)
    before = array.max(axis=axes, initial=0.0, keepdims=True)
    smallest = _smallest_normal(weight.dtype)
    after = (array * np.abs(factor)).max(axis=axes, initial=0.0, keepdims=True)
    return bool(((after >= smallest) | (before == 0)).all())


def _holds(dtype: ir.DataType, array: _Array) -> bool:
    """Whether a type has all these numbers, and none so small that it loses digits."""
    stored = np.abs(array.astype(dtype.numpy()).astype(np.float64))
    return is_finite(stored) and bool(((stored >= _smallest_normal(dtype)) | (array == 0)).all())


def _smallest_normal(dtype: ir.DataType) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype.numpy()).smallest_normal)  # type: ignore[no-untyped-call]
