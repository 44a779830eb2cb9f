"""The named rules of TensorRT for int8 Q/DQ, each read both ways.

Source: NVIDIA TensorRT documentation, "Working with Quantized Types" (explicit quantization); acceptance was checked
against the parser and builder of TensorRT-RTX 1.7. Numbers about what pays follow NVIDIA ModelOpt 0.47's defaults.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.target import Finding, OperatorRule, Rule, has_quantized_operands, is_dequantized, operand_shape, stored_weight

MIN_CHANNELS = 16


def _quantizers(model: ir.Model) -> Iterator[ir.Node]:
    for node in model.graph.all_nodes():
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain == "":
            yield node


def _static(shape: ir.Shape | None) -> list[int] | None:
    return [int(d) for d in shape] if shape is not None and all(isinstance(d, int) for d in shape) else None  # type: ignore[arg-type]


class QuantizedTypeIsInt8(Rule):
    """uint8, int16 and int32 are refused or, worse, read as int8."""

    name = "quantized-type-is-int8"
    summary = "Quantizers take int8; int32 biases are refused by the parser, uint8 is read as int8 and clips."
    effect = "refused"

    _TAKEN = (ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1)

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A quantizer of another type, or one whose type must be guessed."""
        for node in _quantizers(model):
            index = 0 if node.op_type == "DequantizeLinear" else 2
            value = node.inputs[index] if len(node.inputs) > index else None
            if value is None:
                given = node.attributes.get_int("output_dtype", 0)
                if node.op_type == "QuantizeLinear" and given in (0, ir.DataType.UINT8):
                    message = (
                        "QuantizeLinear without a zero point means uint8, which is read as int8; give an int8 zero"
                    )
                    yield self.finding(node, message, "wrong")
            elif value.dtype == ir.DataType.UINT8:
                message = (
                    f"{node.op_type} uses UINT8, which is read as INT8: what is above 127 is lost; quantize to INT8"
                )
                yield self.finding(node, message, "wrong")
            elif value.dtype == ir.DataType.INT32:
                yield self.finding(node, "an INT32 bias is refused by the parser; leave the bias in float")
            elif value.dtype is not None and value.dtype not in self._TAKEN:
                yield self.finding(node, f"{node.op_type} uses {value.dtype.name}; TensorRT takes INT8")


class ZeroPointIsZero(Rule):
    """Only symmetric quantization."""

    name = "zero-point-is-zero"
    summary = "Zero points must be constant zeros."
    effect = "refused"

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A zero point that is computed or not zero."""
        for node in _quantizers(model):
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                zero = constant(node.inputs[2])
                if zero is None or np.any(zero != 0):
                    message = "the zero point is not a constant zero; quantize symmetrically"
                    yield self.finding(node, message)


class ScaleIsConstant(Rule):
    """Scales are build-time constants, rank 0 for activations."""

    name = "scale-is-constant"
    summary = "Scales must be positive constants, rank 0 for activations: with shape [1] a Conv runs in float."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A computed, non-positive or non-scalar activation scale."""
        for node in _quantizers(model):
            scale = constant(node.inputs[1])
            if scale is None:
                yield self.finding(
                    node, "the scale is computed, which crashes the parser; make it a constant", "refused"
                )
            elif not np.all((scale > 0) & np.isfinite(scale)):
                yield self.finding(node, "the scale is not positive and finite", "refused")
            elif scale.ndim != 0 and node.op_type == "QuantizeLinear" and constant(node.inputs[0]) is None:
                what = "per channel, which only weights may have" if scale.size > 1 else f"of shape {list(scale.shape)}"
                message = f"the activation scale is {what}; make it a scalar, or a Conv behind it runs in float"
                yield self.finding(node, message)


class WeightAxisIsOutput(Rule):
    """Channel scales along the inputs are dequantized in a kernel of their own."""

    name = "weight-axis-is-output-channel"
    summary = "Weight scales lie along the output channels: Conv 0, MatMul last, Gemm 0 with transB, else 1."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A weight quantized per channel along another axis."""
        for node in model.graph.all_nodes():
            weight = stored_weight(node) if has_quantized_operands(node) else None
            if weight is None or weight is not node.inputs[1].producer():  # type: ignore[union-attr]
                continue
            scale, shape = constant(weight.inputs[1]), operand_shape(weight.inputs[0])
            if scale is None or scale.size == 1 or shape is None:
                continue
            wanted = {"Conv": 0, "MatMul": len(shape) - 1}.get(node.op_type)
            if node.op_type == "Gemm":
                wanted = 0 if node.attributes.get_int("transB", 0) else 1
            axis = weight.attributes.get_int("axis", 1) % len(shape)
            if wanted is not None and axis != wanted:
                message = f"the weight has scales along axis {axis}; int8 kernels take them along axis {wanted}"
                yield self.finding(node, message)


class QuantizedConstantFeedsDequantize(Rule):
    """An int8 constant has one kind of reader."""

    name = "quantized-constant-feeds-dequantize"
    summary = "Nothing but DequantizeLinear may read an int8 constant, and the constant has at least one dimension."
    effect = "refused"

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """An int8 table read by Gather, an int8 weight behind Cast or Transpose, or a quantized scalar."""
        for node in model.graph.all_nodes():
            for index, value in enumerate(node.inputs):
                if value is None or value.dtype != ir.DataType.INT8 or constant(value) is None:
                    continue
                if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                    message = f"{node.op_type} reads the int8 constant {value.name!r}; only DequantizeLinear may"
                    yield self.finding(node, message)
                elif index == 0 and value.shape is not None and len(value.shape) == 0:
                    yield self.finding(node, f"{value.name!r} is a quantized scalar; leave it in float")


class BothOperandsAreQuantized(Rule):
    """An integer kernel needs both."""

    name = "both-operands-are-quantized"
    summary = "Conv and Gemm with only a quantized weight dequantize it in a kernel of its own on every run."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A Conv or Gemm with an int8 weight and a float activation."""
        for node in model.graph.all_nodes():
            if (
                node.op_type in ("Conv", "Gemm")
                and stored_weight(node) is not None
                and not has_quantized_operands(node)
                and not _behind_quantized(node)
            ):
                message = f"{node.op_type} has an int8 weight and a float input; quantize both or neither"
                yield self.finding(node, message)


def _behind_quantized(node: ir.Node) -> bool:
    """Whether an operator's input is computed, by one operator, from a dequantized value: another rule's matter."""
    between = node.inputs[0].producer() if node.inputs[0] is not None else None
    return between is not None and bool(between.inputs) and is_dequantized(between.inputs[0])


class TransposedConvolutionIsFloat(OperatorRule):
    """ConvTranspose runs in float on TensorRT-RTX."""

    name = "transposed-convolution-is-float"
    summary = "ConvTranspose is executed in float."

    def why_float(self, node: ir.Node) -> str | None:
        """Every ConvTranspose."""
        return "TensorRT executes ConvTranspose in float" if node.op_type == "ConvTranspose" else None


class ConvolutionIsWide(OperatorRule):
    """Depthwise and narrow convolutions do not pay."""

    name = "convolution-is-wide"
    summary = "Depthwise convolutions are padded in int8, and those with fewer than 16 channels are not faster."
    effect = "slower"

    def why_float(self, node: ir.Node) -> str | None:
        """Depthwise and narrow Conv."""
        shape = _static(operand_shape(node.inputs[1])) if node.op_type == "Conv" else None
        if shape is None or len(shape) < 3:
            return None
        outputs, inputs = shape[0], shape[1]
        group = node.attributes.get_int("group", 1)
        if group > 1 and inputs == 1:
            return "depthwise convolution is padded in int8 and does not pay"
        if group > 1:
            pays = outputs % 8 == 0 and min(shape[2:]) >= 3
            return None if pays or inputs >= MIN_CHANNELS else f"{inputs} channels per group are too few for int8"
        if min(inputs, outputs) >= MIN_CHANNELS:
            return None
        if max(inputs, outputs) >= MIN_CHANNELS and (inputs % 8 == 0 or outputs % 8 == 0) and len(set(shape[2:])) == 1:
            return None
        return f"{inputs} input and {outputs} output channels are too few for int8"


class OperandIsMatrix(OperatorRule):
    """Products with vectors, and batched weights, do not pay."""

    name = "operand-is-a-matrix"
    summary = "MatMul and Gemm take a 2-D weight; with one row or one column they are faster in float."

    def why_float(self, node: ir.Node) -> str | None:
        """MatMul whose weight is not a matrix, Gemm with transA, and products with one row or column."""
        if node.op_type not in ("MatMul", "Gemm"):
            return None
        if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1:
            return "Gemm with transA is not executed in int8"
        weight, data = operand_shape(node.inputs[1]), _static(operand_shape(node.inputs[0]))
        if weight is not None and len(weight) != 2:
            return f"its weight has {len(weight)} dimensions"
        columns = weight[0 if node.attributes.get_int("transB", 0) else 1] if weight is not None else None
        if columns == 1 or (data is not None and math.prod(data[:-1]) == 1):
            return "it multiplies with a vector, which is faster in float"
        return None


@dataclasses.dataclass(frozen=True)
class ArchitectureHasInt8(Rule):
    """Turing builds have no int8 kernels.

    Attributes:
        sm: The compute capabilities of the target.
    """

    name: ClassVar[str] = "architecture-has-int8"
    summary: ClassVar[str] = "With SM75 among the architectures, everything is computed in float."
    sm: tuple[int, ...] = ()

    def refuses(self, node: ir.Node) -> str | None:
        """Refuses everything when one architecture has no int8 kernels."""
        old = [value for value in self.sm if value < 80]
        return f"SM{old[0]} has no int8 kernels, nor has an engine that includes it" if old else None

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """Every integer operator of a file for such an architecture."""
        for node in model.graph.all_nodes():
            if has_quantized_operands(node) and (reason := self.refuses(node)) is not None:
                yield self.finding(node, reason)


WEIGHT_RULES: tuple[Rule, ...] = (
    QuantizedTypeIsInt8(),
    ZeroPointIsZero(),
    ScaleIsConstant(),
    WeightAxisIsOutput(),
    QuantizedConstantFeedsDequantize(),
    BothOperandsAreQuantized(),
    TransposedConvolutionIsFloat(),
    ConvolutionIsWide(),
    OperandIsMatrix(),
)
