"""ONNX Runtime's CPU provider: QDQ that it really fuses into integer kernels.

Learnt from the runtime itself (ONNX Runtime 1.31.1, x86-64 with VNNI) by reading its optimized graph; a test has each row:

| float pattern behind DequantizeLinear | becomes |
|---|---|
| Conv 1-D to 3-D, grouped, depthwise; float bias; Relu or Clip; then QuantizeLinear within their range | QLinearConv |
| Conv without a QuantizeLinear behind it, or with another user of its output | float Conv |
| Conv, Relu, QuantizeLinear with a zero point other than 0; Conv, then LeakyRelu or Sigmoid-Mul | float Conv |
| ConvTranspose | float ConvTranspose |
| Gemm, int32 bias behind DequantizeLinear or none, weight with zero points; any alpha, trans | QGemm, float output |
| Gemm with a float bias, or a weight without zero points | float Gemm |
| MatMul, constant 2-D weight, zero points omitted or not | MatMulIntegerToFloat, float output |
| MatMul with a constant 3-D weight per channel | MatMulIntegerToFloat, which fails when it runs |
| MatMul whose weight is Transpose(DequantizeLinear) | MatMulIntegerToFloat, with zero points; float without |
| MatMul with its constant on the left | float MatMul |
| Flatten or Expand between DequantizeLinear and Gemm or MatMul | MatMulNBits: only the weight is read as integers |
| Reshape, Squeeze, Transpose, Slice between them | QGemm, MatMulIntegerToFloat |
| Add of two dequantized values, Relu, then QuantizeLinear | QLinearAdd |
| the same without QuantizeLinear | float Add |
| AveragePool, GlobalAveragePool, Concat, LeakyRelu, Sigmoid, Mul, Softmax, then QuantizeLinear | QLinear form |
| MaxPool, Reshape, Transpose, Slice, Pad, nearest Resize, Expand with one scale before and behind | int8 data moved |
| Split | float Split |
| ReduceMean, Relu alone, Tanh, HardSwish, Gelu, LayerNormalization, InstanceNormalization | float |
| Gather of an int8 table, then DequantizeLinear | as written |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir

from irc.backends.ort import coverage as read_back
from irc.backends.ort.composites import has_composite
from irc.backends.ort.rules import RULES
from irc.coverage import Coverage
from irc.ledger import Ledger
from irc.runner import Runner
from irc.target import QuantizationStyle, Rule, Target


@dataclasses.dataclass(frozen=True)
class OrtTarget(Target):
    """Stock ONNX Runtime on a CPU.

    Attributes:
        cpu: Instruction set: "vnni" (also AMX), "avx2" (7-bit weights, whose products cannot saturate), "arm64".
    """

    name: ClassVar[str] = "ort"
    max_opset: ClassVar[int] = 25
    max_ir_version: ClassVar[int] = 13
    cpu: Literal["vnni", "avx2", "arm64"] = "vnni"

    @property
    def quantization(self) -> QuantizationStyle:
        """Asymmetric uint8 activations, symmetric int8 weights per channel."""
        return QuantizationStyle(
            activation="uint8",
            weight_limit=63 if self.cpu == "avx2" else 127,
            gemm_bias="int32",
            needs_output=("Conv",),
            weight_zero_points=("Gemm",),
            joining=("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid"),
            commuting=(
                "MaxPool",
                "Reshape",
                "Transpose",
                "Flatten",
                "Squeeze",
                "Unsqueeze",
                "Slice",
                "Pad",
                "Expand",
            ),
            fused=("Relu", "Clip"),
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What the CPU provider fuses and what it does not."""
        return RULES

    def has_operator(self, op_type: str, opset: int, dtype: ir.DataType, *, mode: str = "") -> bool:
        """What was measured of composite operators; of others, whether the opset is read."""
        return super().has_operator(op_type, opset, dtype) and has_composite(op_type, opset, dtype, mode)

    def coverage(self, runner: Runner, file: Path, float_nodes: Sequence[tuple[str, str]], ledger: Ledger) -> Coverage:
        """Reads ONNX Runtime's own optimized graph of the artifact."""
        return read_back.coverage(runner, file, float_nodes, ledger)
