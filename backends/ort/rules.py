"""The named rules of ONNX Runtime's CPU provider, each read both ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.target import Finding, OperatorRule, Rule, has_quantized_operands, is_dequantized, operand_shape, stored_weight

MOVES = (
    "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "DepthToSpace",
    "Expand",
)  # fmt: skip
"""Operators that the runtime runs on integers when their result has the scale of their input."""


class TransposedConvolutionIsFloat(OperatorRule):
    """ConvTranspose has no integer kernel."""

    name = "transposed-convolution-is-float"
    summary = "ConvTranspose has no integer kernel; Q/DQ around it costs time."

    def why_float(self, node: ir.Node) -> str | None:
        """Every ConvTranspose."""
        return "the CPU provider has no integer ConvTranspose" if node.op_type == "ConvTranspose" else None


class MatMulWeightIsMatrix(OperatorRule):
    """Batched constant weights with channel scales are refused when the model runs."""

    name = "matmul-weight-is-a-matrix"
    summary = "MatMul becomes integer when its constant weight is 2-D; per channel, others fail when they run."

    def why_float(self, node: ir.Node) -> str | None:
        """MatMul whose constant operand is not a matrix on the right."""
        if node.op_type != "MatMul":
            return None
        shape = operand_shape(node.inputs[1])
        if shape is not None and len(shape) != 2:
            return f"its weight has {len(shape)} dimensions; integer MatMul takes a matrix"
        return None


class ConvolutionNeedsQuantizedOutput(Rule):
    """A Conv is integer only when its output is quantized; placement obeys through `QuantizationStyle.needs_output`."""

    name = "convolution-needs-quantized-output"
    summary = "A Conv becomes QLinearConv only when its single consumer, behind Relu or Clip, is QuantizeLinear."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A Conv with quantized operands and a float output."""
        for node in model.graph.all_nodes():
            if node.op_type == "Conv" and has_quantized_operands(node) and not _quantized_after(node):
                message = "the Conv runs in float: put QuantizeLinear and DequantizeLinear behind it, within the range of its activation"
                yield self.finding(node, message)


def _quantized_after(node: ir.Node) -> bool:
    """Whether the only use of a node's output, behind one Relu or Clip that disappears, is a QuantizeLinear."""
    value, activation = node.outputs[0], None
    for _ in range(2):
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return False
        user = uses[0].node
        if user.op_type == "QuantizeLinear":
            return activation is None or _disappears(activation, user)
        if user.op_type not in ("Relu", "Clip"):
            return False
        value, activation = user.outputs[0], user
    return False


def _disappears(activation: ir.Node, quantize: ir.Node) -> bool:
    """Whether a QuantizeLinear cuts off all that a Relu or Clip before it does; what is not constant may be anything."""
    scale, zero, *bounds = (_number(v) for v in (*quantize.inputs[1:3], *activation.inputs[1:3]))
    if scale is None or zero is None:
        return True
    limits = np.iinfo(zero.dtype)
    low, high = ((limit - np.float32(zero)) * scale for limit in (limits.min, limits.max))
    if activation.op_type == "Relu":
        return bool(low >= 0)
    lower, upper = (*bounds, None, None)[:2]
    return (lower is None or bool(lower <= low)) and (upper is None or bool(high <= upper))


def _number(value: ir.Value | None) -> Any:
    array = constant(value)
    return None if array is None or array.size != 1 else array.reshape(-1)[0]


class SumStaysApart(Rule):
    """The runtime makes a Gemm of a MatMul and the Add behind it before it looks for integers, and a float bias keeps it float."""

    name = "sum-stays-apart"
    summary = "A quantized MatMul must not look like a Gemm with the Add behind it, unless the sum is quantized."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A quantized MatMul whose only reader is an Add that the runtime takes for the bias of a Gemm."""
        for node in model.graph.all_nodes():
            if node.op_type != "MatMul" or not has_quantized_operands(node):
                continue
            found = _fused_sum(node)
            if found is None or _becomes_integer(node, *found):
                continue
            rank = len(operand_shape(node.inputs[0]) or ())
            cure = "write it as a Gemm without bias" if rank == 2 else "give the addend a leading dimension of 1"
            yield self.finding(node, f"the MatMul runs in float, as a Gemm with the Add behind it: {cure}")


def _becomes_integer(product: ir.Node, add: ir.Node, addend: ir.Value) -> bool:
    """Whether the Gemm that the runtime makes is integer all the same: it quantizes a constant row by itself."""
    weight = stored_weight(product)
    row = addend.is_initializer() and addend.shape is not None and len(addend.shape) == 1
    return row and weight is not None and len(weight.inputs) > 2 and _quantized_after(add)


def _fused_sum(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """The Add behind a product and what it adds, where the runtime makes a Gemm of both: its MatMulAddFusion."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or node.outputs[0].is_graph_output() or uses[0].node.op_type != "Add":
        return None
    addend = uses[0].node.inputs[1 - uses[0].idx]
    a, b = operand_shape(node.inputs[0]), operand_shape(node.inputs[1])
    if addend is None or addend.shape is None or a is None or b is None or len(b) != 2:
        return None
    row = len(addend.shape) == 1 and addend.shape[0] == b[1]
    if len(a) != 2:
        fused = row and a.is_static()
    else:
        fused = row or (
            len(addend.shape) == 2
            and ((addend.shape[0] in (1, a[0]) and addend.shape[1] == b[1]) or addend.shape == (a[0], 1))
        )
    return (uses[0].node, addend) if fused else None


class TransposedWeightHasZeroPoints(Rule):
    """A Transpose behind the DequantizeLinear of a weight hides it unless there are zero points; placement writes them."""

    name = "transposed-weight-has-zero-points"
    summary = "A MatMul whose int8 weight is transposed after DequantizeLinear needs zero points for it."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A MatMul with a transposed int8 weight without zero points."""
        for node in model.graph.all_nodes():
            weight = stored_weight(node) if node.op_type == "MatMul" and has_quantized_operands(node) else None
            if weight is not None and node.inputs[1] not in weight.outputs and len(weight.inputs) < 3:
                yield self.finding(
                    node, "the MatMul runs in float: give the DequantizeLinear of its weight zero points of zero"
                )


class GemmOperands(Rule):
    """A Gemm with a float bias, or a weight without zero points, stays float; placement obeys through the style."""

    name = "gemm-operands-are-integer"
    summary = "A quantized Gemm needs an int32 bias behind DequantizeLinear, or none, and zero points for its weight."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A quantized Gemm that the runtime does not recognize."""
        for node in model.graph.all_nodes():
            if node.op_type != "Gemm" or not has_quantized_operands(node):
                continue
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            weight = stored_weight(node)
            if bias is not None and not is_dequantized(bias):
                message = "the Gemm runs in float: store its bias as int32 with scale x_scale * w_scale"
                yield self.finding(node, message)
            elif weight is not None and (len(weight.inputs) < 3 or weight.inputs[2] is None):
                message = "the Gemm runs in float: give the DequantizeLinear of its weight zero points of zero"
                yield self.finding(node, message)


class OperandIsQuantizedDirectly(Rule):
    """Flatten and Expand between DequantizeLinear and the operator hide the integers from it; Reshape does not."""

    name = "operand-is-quantized-directly"
    summary = "DequantizeLinear must feed Gemm and MatMul directly: behind Flatten only their weight is integer."

    _MOVES = ("Flatten", "Expand")

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A Gemm or MatMul with an int8 weight whose activation was moved after it was dequantized."""
        for node in model.graph.all_nodes():
            if node.op_type not in ("Gemm", "MatMul") or stored_weight(node) is None or node.inputs[0] is None:
                continue
            producer = node.inputs[0].producer()
            if producer is not None and producer.op_type in self._MOVES and is_dequantized(producer.inputs[0]):
                message = (
                    f"put a pair with the same scale between {producer.op_type} and {node.op_type}, or it runs in float"
                )
                yield self.finding(node, message)


class MovedIntegersKeepTheirScale(Rule):
    """An operator that only moves data does so with integers where nothing has to be rescaled; placement obeys through the style."""

    name = "moved-integers-keep-their-scale"
    summary = (
        "MaxPool, Reshape, Slice and the like are integer when scale and zero point are the same before and behind."
    )

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A move between pairs with other numbers."""
        for node in model.graph.all_nodes():
            source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
            if node.op_type not in MOVES or source is None or source.op_type != "DequantizeLinear":
                continue
            for use in (use for output in node.outputs for use in output.uses()):
                if use.node.op_type == "QuantizeLinear" and not _same_numbers(source, use.node):
                    message = f"the {node.op_type} runs in float: quantize its result with the scale of its input"
                    yield self.finding(node, message)
                    break


def _same_numbers(one: ir.Node, other: ir.Node) -> bool:
    """Whether two operators have equal constant scales and zero points; what is not constant counts as equal."""
    for a, b in zip(one.inputs[1:], other.inputs[1:], strict=False):
        if a is b or a is None or b is None or a.const_value is None or b.const_value is None:
            continue
        if not np.array_equal(a.const_value.numpy(), b.const_value.numpy()):
            return False
    return True


class FloatWeightStaysFloat(Rule):
    """Between a pair and a quantizer the runtime rounds float weights itself, per tensor (its WeightBiasQuantization).

    Placement obeys through `QuantizationStyle.requantized`.
    """

    name = "float-weight-stays-float"
    summary = "A float Conv, ConvTranspose or Gemm must not stand directly between DequantizeLinear and QuantizeLinear."
    effect = "wrong"

    _OPERATORS = ("Conv", "ConvTranspose", "Gemm")

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """An operator with a float constant weight, a dequantized input with one scale, and a quantized output."""
        for node in model.graph.all_nodes():
            if node.domain != "" or node.op_type not in self._OPERATORS or not is_dequantized(node.inputs[0]):
                continue
            if constant(node.inputs[1]) is None or is_dequantized(node.inputs[1]) or not _quantized_after(node):
                continue
            assert node.inputs[0] is not None
            pair = node.inputs[0].producer()
            scale = constant(pair.inputs[1]) if pair is not None else None
            if scale is not None and scale.size == 1:
                message = (
                    f"the runtime quantizes the weight of this {node.op_type} per tensor, whatever the file says: quantize it "
                    "per channel, or dequantize its input with a vector of equal scales"
                )
                yield self.finding(node, message)


class PairFeedsIntegerKernel(Rule):
    """A Q/DQ pair that nothing integer uses is pure cost."""

    name = "pair-feeds-an-integer-kernel"
    summary = "QuantizeLinear and DequantizeLinear between float operators only cost time and accuracy."
    effect = "slower"

    _KERNELS = (
        "Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid",
        "Softmax", "Where",
    )  # fmt: skip
    # A Pad of zeros is float alone, and disappears into the Conv behind it.
    _MOVES = (*MOVES, "Pad", "Resize")

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A pair whose producer and consumers are all float."""
        for node in model.graph.all_nodes():
            if node.op_type != "DequantizeLinear" or node.inputs[0] is None:
                continue
            quantize = node.inputs[0].producer()
            if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
                continue
            readers = [use.node.op_type for use in node.outputs[0].uses()]
            producer = quantize.inputs[0].producer()
            made = producer is not None and producer.op_type in (*self._KERNELS, *self._MOVES, "Relu", "Clip")
            if (
                readers
                and not any(op in (*self._KERNELS, *self._MOVES, "QuantizeLinear") for op in readers)
                and not made
            ):
                message = f"this pair only feeds {', '.join(dict.fromkeys(readers))} in float; remove it"
                yield self.finding(node, message)


RULES: tuple[Rule, ...] = (
    TransposedConvolutionIsFloat(),
    MatMulWeightIsMatrix(),
    ConvolutionNeedsQuantizedOutput(),
    SumStaysApart(),
    TransposedWeightHasZeroPoints(),
    GemmOperands(),
    OperandIsQuantizedDirectly(),
    MovedIntegersKeepTheirScale(),
    FloatWeightStaysFloat(),
    PairFeedsIntegerKernel(),
)
