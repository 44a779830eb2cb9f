"""The named rules of ONNX Runtime's CPU provider, each read both ways."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from irc.target import Finding, OperatorRule, Rule, has_quantized_operands, is_dequantized, operand_shape, stored_weight


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
                message = "the Conv runs in float: put QuantizeLinear and DequantizeLinear behind it"
                yield self.finding(node, message)


def _quantized_after(node: ir.Node) -> bool:
    """Whether the only use of a node's output, behind one Relu or Clip, is a QuantizeLinear."""
    value = node.outputs[0]
    for _ in range(2):
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return False
        user = uses[0].node
        if user.op_type == "QuantizeLinear":
            return True
        if user.op_type not in ("Relu", "Clip"):
            return False
        value = user.outputs[0]
    return False


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


class PairFeedsIntegerKernel(Rule):
    """A Q/DQ pair that nothing integer uses is pure cost."""

    name = "pair-feeds-an-integer-kernel"
    summary = "QuantizeLinear and DequantizeLinear between float operators only cost time and accuracy."
    effect = "slower"

    _KERNELS = (
        "Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid",
        "Softmax",
    )  # fmt: skip
    _MOVES = (
        "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Pad", "Resize", "Expand",
        "Gather",
    )  # fmt: skip

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
    GemmOperands(),
    OperandIsQuantizedDirectly(),
    PairFeedsIntegerKernel(),
)
