"""ONNX Runtime's CPU provider: QDQ that it really fuses into integer kernels.

Learnt from the runtime itself (ONNX Runtime 1.31.1, x86-64 with VNNI), by reading its optimized graph:

| float pattern behind DequantizeLinear | becomes |
|---|---|
| Conv 1-D to 3-D, grouped, depthwise; float bias; Relu or Clip; then QuantizeLinear | QLinearConv |
| Conv without a QuantizeLinear behind it | float Conv |
| ConvTranspose | float ConvTranspose |
| Gemm with an int32 bias behind DequantizeLinear, or none; weight with zero points | QGemm, float output |
| the same without zero points of the weight | float Gemm |
| Gemm with a float bias | float Gemm |
| MatMul, constant 2-D weight | MatMulIntegerToFloat, float output |
| Add of two dequantized values, Relu, then QuantizeLinear | QLinearAdd |
| the same without QuantizeLinear | float Add |
| GlobalAveragePool, Concat, LeakyRelu, Sigmoid between both | QLinear form |
| MaxPool, Reshape, Transpose with one scale before and behind | int8 data moved |
| Gelu, Softmax, LayerNormalization | float |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from irc.backends.ort import coverage as read_back
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
    max_opset: ClassVar[int] = 23
    cpu: Literal["vnni", "avx2", "arm64"] = "vnni"

    @property
    def quantization(self) -> QuantizationStyle:
        """Asymmetric uint8 activations, symmetric int8 weights per channel."""
        return QuantizationStyle(
            activation="uint8",
            weight_limit=63 if self.cpu == "avx2" else 127,
            bias="int32",
            weight_zero_points=("Gemm",),
            needs_output=("Conv",),
            joining=("Add", "Concat", "GlobalAveragePool", "LeakyRelu", "Sigmoid"),
            commuting=("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"),
            fused=("Relu", "Clip"),
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What the CPU provider fuses and what it does not."""
        return RULES

    def coverage(self, runner: Runner, file: Path, float_nodes: Sequence[tuple[str, str]], ledger: Ledger) -> Coverage:
        """Reads ONNX Runtime's own optimized graph of the artifact."""
        return read_back.coverage(runner, file, float_nodes, ledger)
