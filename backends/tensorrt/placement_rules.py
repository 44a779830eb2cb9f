"""Rules of TensorRT about what stands around quantizers, and about what its parser imports at all.

Source: as of `irc.backends.tensorrt.rules`; each was seen in the kernels that the builder of TensorRT-RTX 1.7 emits.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from irc.ir import constant
from irc.target import Finding, Rule, has_quantized_operands, is_dequantized, stored_weight


class OperandIsQuantizedDirectly(Rule):
    """What computes between DequantizeLinear and the operator hides the integers from it; what only moves data does not."""

    name = "operand-is-quantized-directly"
    summary = "Activations, casts and average pools stand behind the operator or before QuantizeLinear, not behind DequantizeLinear."

    _ACTIVATIONS = (
        "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Softplus",
        "Mish", "Gelu", "Swish",
    )  # fmt: skip
    _OTHERS = ("Cast", "AveragePool", "GlobalAveragePool", "ReduceMean", "BatchNormalization")

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A Conv, Gemm or MatMul with an int8 weight whose input was computed with after it was dequantized."""
        for node in model.graph.all_nodes():
            if node.op_type not in ("Conv", "Gemm", "MatMul") or stored_weight(node) is None or node.inputs[0] is None:
                continue
            between = node.inputs[0].producer()
            if between is None or between.domain != "" or not between.inputs or not is_dequantized(between.inputs[0]):
                continue
            if between.op_type in self._ACTIVATIONS:
                message = (
                    f"{between.op_type} stands between DequantizeLinear and {node.op_type}, which runs in float; put "
                    f"QuantizeLinear and DequantizeLinear behind {between.op_type}"
                )
                yield self.finding(node, message)
            elif between.op_type in self._OTHERS:
                message = f"{between.op_type} stands between DequantizeLinear and {node.op_type}, which runs in float; quantize behind it"
                yield self.finding(node, message)


class ConvolutionBranchStaysFloat(Rule):
    """Of a residual Add only the skip branch is quantized; placement obeys through `QuantizationStyle.residual`."""

    name = "convolution-branch-of-add-stays-float"
    summary = (
        "Quantize the skip branch of a residual Add, not what the operator before it computes: that fuses with the Add."
    )
    effect = "slower"

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """An Add that reads a pair behind an integer operator whose result nothing else reads."""
        for node in model.graph.all_nodes():
            if node.op_type != "Add" or node.domain != "":
                continue
            for value in node.inputs:
                made = _made_alone(value)
                if made is not None and made.op_type in ("Conv", "Gemm", "MatMul") and has_quantized_operands(made):
                    message = (
                        f"the branch that {made.op_type} computes is quantized before the Add, which rounds once more and "
                        "fuses nothing; quantize the skip branch instead"
                    )
                    yield self.finding(node, message)


def _made_alone(value: ir.Value | None) -> ir.Node | None:
    """What computes a value that nothing but one pair uses; None if others use it, or there is no pair."""
    current = value
    for op_type in ("DequantizeLinear", "QuantizeLinear"):
        producer = current.producer() if current is not None else None
        if producer is None or producer.op_type != op_type or current is None or len(current.uses()) != 1:
            return None
        current = producer.inputs[0]
    if current is None or len(current.uses()) != 1 or current.is_graph_output():
        return None
    return current.producer()


class ConcatSharesScale(Rule):
    """A Concat of int8 tensors with different scales has to requantize them."""

    name = "concat-shares-scale"
    summary = "The inputs of a Concat share one scale, or QuantizeLinear stands behind it; otherwise what reads it runs in float."

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A Concat of dequantized values with different scales and no QuantizeLinear behind it."""
        for node in model.graph.all_nodes():
            if node.op_type != "Concat" or node.domain != "" or not node.inputs:
                continue
            if not all(is_dequantized(value) for value in node.inputs):
                continue
            scales = [constant(value.producer().inputs[1]) for value in node.inputs]  # type: ignore[union-attr]
            numbers = {scale.tobytes() for scale in scales if scale is not None}
            behind = [use.node.op_type for use in node.outputs[0].uses()]
            if len(numbers) > 1 and behind and "QuantizeLinear" not in behind:
                message = "its inputs have different scales and nothing quantizes its output; give them one scale"
                yield self.finding(node, message)


class OperatorIsImported(Rule):
    """The parser knows Q/DQ, not the operators that other runtimes make of them."""

    name = "operator-is-imported"
    summary = "Integer operators of other runtimes are refused: spell them with QuantizeLinear and DequantizeLinear."
    effect = "refused"

    _UNKNOWN = ("QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear")

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """An integer operator, one of ONNX Runtime's own, or Attention in single precision."""
        for node in model.graph.all_nodes():
            if node.domain == "" and node.op_type in self._UNKNOWN:
                message = f"the parser has no {node.op_type}; spell it with QuantizeLinear and DequantizeLinear"
                yield self.finding(node, message)
            elif node.domain.startswith("com.microsoft") and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                message = (
                    f"{node.domain}::{node.op_type} is an operator of ONNX Runtime; the parser wants a plugin for it"
                )
                yield self.finding(node, message)
            elif node.domain == "" and node.op_type == "Attention" and _dtype(node) == ir.DataType.FLOAT:
                message = "no kernel computes Attention in single precision; write it out, or use half precision"
                yield self.finding(node, message)


class InputTypeIsKnown(Rule):
    """Inputs and outputs have types that engines have."""

    name = "input-type-is-known"
    summary = "Inputs are float32, float16, bfloat16, int8, uint8, int32, int64 or bool."
    effect = "refused"

    _UNKNOWN = (ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64, ir.DataType.STRING)

    def findings(self, model: ir.Model) -> Iterator[Finding]:
        """A graph input of another type."""
        for value in model.graph.inputs:
            if value.dtype in self._UNKNOWN:
                message = f"input {value.name!r} is {value.dtype.name}; cast it before the model"
                yield Finding(self.name, value.name or "<model>", message, self.effect)


def _dtype(node: ir.Node) -> ir.DataType | None:
    return node.inputs[0].dtype if node.inputs and node.inputs[0] is not None else None


PLACEMENT_RULES: tuple[Rule, ...] = (
    OperatorIsImported(),
    InputTypeIsKnown(),
    OperandIsQuantizedDirectly(),
    ConvolutionBranchStaysFloat(),
    ConcatSharesScale(),
)
