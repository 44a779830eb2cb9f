"""The named rules of ONNX Runtime's CPU provider, each read both ways."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from irc.pass_base import node_id
from irc.target import Finding, Rule


def dequantized(value: ir.Value | None) -> bool:
    """Whether a value comes out of a DequantizeLinear."""
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def quantized_after(node: ir.Node) -> bool:
    """Whether the only use of a node's output, behind Relu or Clip, is a QuantizeLinear."""
    value = node.outputs[0]
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return False
        user = uses[0].node
        if user.op_type == "QuantizeLinear":
            return True
        if user.op_type not in ("Relu", "Clip"):
            return False
        value = user.outputs[0]


class TransposedConvolutionIsFloat(Rule):
    """ConvTranspose has no integer kernel."""

    name = "transposed-convolution-is-float"
    summary = "ConvTranspose has no integer kernel; Q/DQ around it costs time."

    def refuses(self, node: ir.Node) -> str | None:
        """Refuses every ConvTranspose."""
        return "the CPU provider has no integer ConvTranspose" if node.op_type == "ConvTranspose" else None

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A ConvTranspose behind DequantizeLinear."""
        for node in model.graph.all_nodes():
            if node.op_type == "ConvTranspose" and dequantized(node.inputs[0]):
                yield Finding(self.name, node_id(node), "ConvTranspose runs in float behind DequantizeLinear; leave its input float")


class ConvolutionNeedsQuantizedOutput(Rule):
    """A Conv is integer only when its output is quantized."""

    name = "convolution-needs-quantized-output"
    summary = "A Conv becomes QLinearConv only when its single consumer, behind Relu or Clip, is QuantizeLinear."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A Conv with quantized inputs and a float output."""
        for node in model.graph.all_nodes():
            if node.op_type == "Conv" and dequantized(node.inputs[0]) and dequantized(node.inputs[1]) and not quantized_after(node):
                yield Finding(self.name, node_id(node), "the Conv runs in float: put QuantizeLinear and DequantizeLinear behind it")


class GemmBias(Rule):
    """A Gemm with a float bias stays float."""

    name = "gemm-bias-is-int32"
    summary = "A quantized Gemm needs its bias as int32 behind DequantizeLinear, or none."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A quantized Gemm with a float bias."""
        for node in model.graph.all_nodes():
            if (
                node.op_type == "Gemm"
                and dequantized(node.inputs[0])
                and len(node.inputs) > 2
                and node.inputs[2] is not None
                and not dequantized(node.inputs[2])
            ):
                yield Finding(self.name, node_id(node), "the Gemm runs in float: store its bias as int32 with scale x_scale * w_scale")


class PlainGemm(Rule):
    """A Gemm with a transposed activation is not fused."""

    name = "gemm-activation-not-transposed"
    summary = "A Gemm with transA is not fused."

    def refuses(self, node: ir.Node) -> str | None:
        """Refuses Gemm with transA = 1."""
        if node.op_type == "Gemm" and node.attributes.get_int("transA", 0):
            return "Gemm with transA has no integer kernel"
        return None


class MatMulWeightRank(Rule):
    """Batched constant weights are not fused per channel."""

    name = "matmul-weight-is-a-matrix"
    summary = "MatMul becomes integer when its constant weight is 2-D."

    def refuses(self, node: ir.Node) -> str | None:
        """Refuses MatMul whose constant operand is not a matrix on the right."""
        if node.op_type != "MatMul" or node.inputs[1] is None:
            return None
        shape = node.inputs[1].shape
        if shape is not None and len(shape) != 2:
            return f"its weight has {len(shape)} dimensions; integer MatMul takes a matrix"
        return None


class UnusedPair(Rule):
    """A Q/DQ pair that nothing integer uses is pure cost."""

    name = "pair-feeds-an-integer-kernel"
    summary = "QuantizeLinear and DequantizeLinear that end in float operators only cost time and accuracy."

    _INTEGER = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool",
                "LeakyRelu", "Sigmoid", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Gather", "Softmax")  # fmt: skip
    _KERNELS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A pair whose producer and consumers are all float."""
        for node in model.graph.all_nodes():
            if node.op_type != "DequantizeLinear" or node.inputs[0] is None:
                continue
            quantize = node.inputs[0].producer()
            if quantize is None or quantize.op_type != "QuantizeLinear" or quantize.inputs[0] is None:
                continue
            consumers = [use.node.op_type for use in node.outputs[0].uses()]
            producer = quantize.inputs[0].producer()
            made = producer is not None and producer.op_type in (*self._KERNELS, "Relu", "Clip", "MaxPool")
            if consumers and not any(op in self._INTEGER for op in consumers) and not made:
                yield Finding(self.name, node_id(node), f"this pair only feeds {', '.join(consumers)} in float; remove it")


RULES: tuple[Rule, ...] = (
    TransposedConvolutionIsFloat(),
    ConvolutionNeedsQuantizedOutput(),
    GemmBias(),
    PlainGemm(),
    MatMulWeightRank(),
    UnusedPair(),
)
