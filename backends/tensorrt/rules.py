"""The named rules of TensorRT for int8 Q/DQ, each read both ways.

Source: NVIDIA TensorRT documentation, "Working with Quantized Types", explicit quantization; checked against the real parser of TensorRT-RTX 1.x.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.pass_base import node_id
from irc.target import Finding, Rule


def _pairs(model: ir.Model) -> Iterator[ir.Node]:
    for node in model.graph.all_nodes():
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield node


class SignedActivations(Rule):
    """uint8 is not accepted."""

    name = "int8-is-signed"
    summary = "QuantizeLinear and DequantizeLinear take int8; uint8 and int32 are refused by the parser."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A pair of another type."""
        for node in _pairs(model):
            index = 0 if node.op_type == "DequantizeLinear" else 2
            value = node.inputs[index] if len(node.inputs) > index else None
            if value is not None and value.dtype is not None and value.dtype != ir.DataType.INT8:
                yield Finding(self.name, node_id(node), f"{node.op_type} uses {value.dtype.name}; TensorRT takes INT8")
            elif value is None and node.op_type == "QuantizeLinear":
                yield Finding(self.name, node_id(node), "QuantizeLinear without a zero point is uint8; give an int8 zero")


class ZeroPointIsZero(Rule):
    """Only symmetric quantization."""

    name = "zero-point-is-zero"
    summary = "Zero points must be zero."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A zero point that is not constant or not zero."""
        for node in _pairs(model):
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                zero = constant(node.inputs[2])
                if zero is None or np.any(zero != 0):
                    yield Finding(self.name, node_id(node), "the zero point is not a constant zero; quantize symmetrically")


class ConstantScale(Rule):
    """Scales are build-time constants, scalar for activations."""

    name = "scale-is-constant"
    summary = "Scales must be positive constants, and scalars for activations."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A computed, non-positive or non-scalar activation scale."""
        for node in _pairs(model):
            scale = constant(node.inputs[1])
            if scale is None:
                yield Finding(self.name, node_id(node), "the scale is computed; make it a constant")
            elif np.any(scale <= 0):
                yield Finding(self.name, node_id(node), "the scale is not positive")
            elif scale.ndim != 0 and constant(node.inputs[0]) is None and node.op_type == "QuantizeLinear":
                yield Finding(self.name, node_id(node), f"the activation scale has shape {list(scale.shape)}; make it a scalar")


class FloatTransposedConvolution(Rule):
    """ConvTranspose runs in float on TensorRT-RTX."""

    name = "transposed-convolution-is-float"
    summary = "ConvTranspose is executed in float."

    def refuses(self, node: ir.Node) -> str | None:
        """Refuses every ConvTranspose."""
        return "TensorRT executes ConvTranspose in float" if node.op_type == "ConvTranspose" else None


class ChannelsWorthInteger(Rule):
    """Depthwise and narrow convolutions do not pay."""

    name = "convolution-is-wide"
    summary = "Depthwise convolutions, and those below 16 channels, are not faster in int8."

    def refuses(self, node: ir.Node) -> str | None:
        """Refuses depthwise and narrow Conv."""
        shape = node.inputs[1].shape if node.op_type == "Conv" and node.inputs[1] is not None else None
        if shape is None or not isinstance(shape[0], int) or not isinstance(shape[1], int):
            return None
        group = node.attributes.get_int("group", 1)
        if group > 1 and shape[1] == 1:
            return "depthwise convolution is padded in int8 and does not pay"
        if group == 1 and (shape[0] < 16 or shape[1] < 16) and shape[0] % 8 and shape[1] % 8:
            return f"{shape[1]} input and {shape[0]} output channels are too few for int8"
        return None


class MatrixWeight(Rule):
    """MatMul weights are matrices."""

    name = "matmul-weight-is-a-matrix"
    summary = "The constant weight of an int8 MatMul is 2-D."

    def refuses(self, node: ir.Node) -> str | None:
        """Refuses MatMul whose weight is not a matrix, and Gemm with transA."""
        if node.op_type == "Gemm" and node.attributes.get_int("transA", 0):
            return "Gemm with transA is not executed in int8"
        if node.op_type != "MatMul" or node.inputs[1] is None or node.inputs[1].shape is None:
            return None
        rank = len(node.inputs[1].shape)
        return f"its weight has {rank} dimensions" if rank != 2 else None


RULES: tuple[Rule, ...] = (
    SignedActivations(),
    ZeroPointIsZero(),
    ConstantScale(),
    FloatTransposedConvolution(),
    ChannelsWorthInteger(),
    MatrixWeight(),
)
