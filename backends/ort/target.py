"""ONNX Runtime's CPU provider: QDQ that it really fuses into integer kernels.

Learnt from the runtime itself (ONNX Runtime 1.31.1, x86-64 with VNNI) by reading its optimized graph:
`benchmarks/ort_integer_kernels.py` is the probe, with times; a test has each row.

| float pattern behind DequantizeLinear | becomes |
|---|---|
| Conv 1-D to 3-D, grouped, depthwise; float bias; Relu or Clip; then QuantizeLinear within their range | QLinearConv |
| the same with a constant float weight, between scalar scales | QLinearConv: the runtime quantizes it, one scale for all |
| Conv without a QuantizeLinear behind it, or with another user of its output | float Conv |
| Conv, Relu, QuantizeLinear with a zero point other than 0; Conv, then LeakyRelu or Sigmoid-Mul | float Conv |
| ConvTranspose | float ConvTranspose; between pairs its float weight is rounded to int8 nevertheless |
| Gemm, int32 bias behind DequantizeLinear or none, weight with zero points; any alpha, trans | QGemm, float output or not |
| Gemm with a float bias, or a weight without zero points | float Gemm |
| MatMul, constant 2-D weight, zero points omitted or not | MatMulIntegerToFloat, float output |
| MatMul, then Add of what can be the bias of a Gemm; any rank if all dimensions are known | float Gemm |
| the same, then QuantizeLinear; weight with zero points, addend a constant row | QGemm |
| MatMul with a constant 3-D weight per channel | MatMulIntegerToFloat, which fails when it runs |
| MatMul whose weight is Transpose(DequantizeLinear) | MatMulIntegerToFloat, with zero points; float without |
| MatMul with its constant on the left | float MatMul |
| MatMul of two activations | MatMulIntegerToFloat; QLinearMatMul before QuantizeLinear |
| Flatten or Expand between DequantizeLinear and Gemm or MatMul | MatMulNBits: only the weight is read as integers |
| Reshape, Squeeze, Transpose, Slice between them | QGemm, MatMulIntegerToFloat |
| Add of two dequantized values, Relu, then QuantizeLinear | QLinearAdd |
| the same without QuantizeLinear, or with a float constant | float Add |
| AveragePool, GlobalAveragePool, Concat, LeakyRelu, Sigmoid, Mul, Softmax, Where, then QuantizeLinear | QLinear form |
| MaxPool, Reshape, Transpose, Slice, nearest Resize, Gather, DepthToSpace, Expand with one scale before and behind | int8 data moved |
| Split with one scale before it and behind each of its results | int8 data moved |
| the same with different scales | float |
| Pad; Resize other than nearest; GlobalMaxPool; SpaceToDepth | float, whatever the scales |
| Pad of zeros, Conv, then QuantizeLinear | one QLinearConv |
| ReduceMean, Relu alone, Tanh, HardSwish, Gelu, LayerNormalization, InstanceNormalization, Sub, Div | float |
| Gather of an int8 table, then DequantizeLinear | as written |

Latency of the int8 form with the fusion switched off over the same fused (above 1: the kernel pays where its neighbours
are integer), at two sizes: GlobalAveragePool 1.4 and 4.6, Add 1.5 and 4.4, Mul 1.4 and 2.3, Concat 1.1 and 1.9, Sigmoid 1.3
and 1.7, LeakyRelu 1.2 and 1.5, moves 1.4 to 8, Softmax 0.9 and 0.3, Where 0.7 and 0.3. AveragePool and MaxPool alone lose
too (0.4 and 0.2, 0.6 and 0.1) but not between convolutions, where they run channels-last as those do. Hence `joining`.

Instruction sets: U8S8 below is uint8 activations with int8 weights, and so on.

- vnni: U8S8 is 2 to 3 times as fast as U8U8, and ten times as fast as S8S8, which the runtime turns into U8S8 where it can.
- avx2: U8S8 multiplies by VPMADDUBSW, whose sums of two products saturate at 16 bits, so that weights have 7 bits; the same
  goes for AVX-512 without VNNI (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
- arm64: nothing saturates. S8S8 is what the runtime's documentation recommends; U8S8 takes the same kernels, after flipping a
  sign where matrices are packed, except for one of S8S8 alone, worth 2 to 8 % of a network with dot product
  instructions and 6 to 25 % without (pull requests 9902 and 10289 of microsoft/onnxruntime). The style stays U8S8
  nevertheless: other hosts, where an artifact may be built and checked, run part of S8S8 in float, at 0.7 times the
  speed of the original where U8S8 has 2.6.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir

from irc.backends.ort import coverage as read_back
from irc.backends.ort.composites import has_composite
from irc.backends.ort.rules import MOVES, RULES
from irc.backends.ort.slow_fusions import installed_version, is_slow
from irc.coverage import Coverage
from irc.errors import PassOptionError
from irc.ledger import Ledger
from irc.runner import Runner
from irc.target import QuantizationStyle, Rule, Target, has_quantized_operands, operand_shape

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "QLinearConv", "ConvInteger"})
"""Operators whose kernels work on blocks of channels."""
INTEGER_CONVOLUTIONS = frozenset({"QLinearConv", "ConvInteger"})


def _has_wide_kernel(node: ir.Node) -> bool:
    """Whether a convolution has one group and a kernel larger than 1x1."""
    shape = operand_shape(node.inputs[1]) if len(node.inputs) > 1 else None
    wide = shape is not None and any(isinstance(size, int) and size > 1 for size in list(shape)[2:])
    return wide and node.attributes.get_int("group", 1) == 1


@dataclasses.dataclass(frozen=True)
class OrtTarget(Target):
    """Stock ONNX Runtime on a CPU.

    Attributes:
        cpu: Instruction set: "vnni" (also AMX), "avx2" (also AVX-512 without VNNI; 7-bit weights, whose products cannot
            saturate), "arm64".
        version: Version of the runtime that the artifact is for, as in "1.31"; by default that of the installed one.
            Which fusions of the runtime are avoided depends on it: see `slow_fusions`.
    """

    name: ClassVar[str] = "ort"
    max_opset: ClassVar[int] = 25
    max_ir_version: ClassVar[int] = 13
    executed_here: ClassVar[bool] = True
    cpu: Literal["vnni", "avx2", "arm64"] = "vnni"
    version: str = ""

    def __post_init__(self) -> None:
        if self.version and not re.fullmatch(r"\d+\.\d+(\.\d+)?", self.version):
            raise PassOptionError(f"ort: version is {self.version!r}; it must be one such as 1.31")

    @property
    def quantization(self) -> QuantizationStyle:
        """Asymmetric uint8 activations, symmetric int8 weights per channel."""
        return QuantizationStyle(
            activation="uint8",
            weight_limit=63 if self.cpu == "avx2" else 127,
            gemm_bias="int32",
            needs_output=("Conv",),
            sums_become_bias=True,
            requantized=("Conv", "ConvTranspose", "Gemm"),
            weight_zero_points=("Gemm",),
            joining=("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid"),
            commuting=MOVES,
            fused=("Relu", "Clip"),
        )

    def pinned(self) -> OrtTarget:
        """With the version of the installed runtime, without its patch level, where none is given."""
        installed = ".".join(installed_version().split(".")[:2])
        return self if self.version or not installed else dataclasses.replace(self, version=installed)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What the CPU provider fuses and what it does not."""
        return RULES

    def has_operator(self, op_type: str, opset: int, dtype: ir.DataType, *, mode: str = "") -> bool:
        """What was measured of composite operators; of others, whether the opset is read."""
        return super().has_operator(op_type, opset, dtype) and has_composite(op_type, opset, dtype, mode)

    def lacks_type(self, op_type: str, opset: int, dtype: ir.DataType) -> str | None:
        """What the CPU provider has no kernel for and puts no conversions around: of float16 EyeLike, of bfloat16 all but moves."""
        if dtype == ir.DataType.BFLOAT16:
            return "its CPU provider has no bfloat16 kernels for Conv, MatMul or Softmax"
        if dtype == ir.DataType.FLOAT16 and op_type == "EyeLike":
            return "its CPU provider has no float16 kernel for EyeLike"
        return None

    def fuses_slowly(self, node: ir.Node, reader: str, opset: int) -> bool:
        """What was measured of the runtime's own fusions in its versions, on x86-64."""
        return self.cpu != "arm64" and is_slow(node, reader, opset, self.version or installed_version())

    def channel_multiple(self, node: ir.Node, width: int, *, integers: bool = False) -> int:
        """16 for a convolution, 4 where there are fewer; 1 for matrix products, whose time is smooth.

        Measured on x86-64 with one thread (`benchmarks/channel_staircase.py`): 52 to 64 channels of a float32 3x3 Conv take 3.0 ms and
        36 to 48 take 2.2, but 63 take 3.5. Below 16 every fourth is a step, lower than 16 only for float kernels larger than 1x1 of
        one group: 16, 12, 8 and 4 take 0.21, 0.20, 0.17 and 0.14 ms, but 0.10, 0.13, 0.12 and 0.12 in int8, and depthwise
        0.06, 0.14, 0.08 and 0.11: the kernel that copies no patches together makes at least 16 channels, and depthwise
        multiples of 16 (`MlasConvSymPackWSize` of the runtime).
        """
        if node.op_type not in CONVOLUTIONS:
            return 1
        integers = integers or node.op_type in INTEGER_CONVOLUTIONS or has_quantized_operands(node)
        return 16 if width > 16 or (width == 16 and (integers or not _has_wide_kernel(node))) else 4

    def coverage(self, runner: Runner, file: Path, float_nodes: Sequence[tuple[str, str]], ledger: Ledger) -> Coverage:
        """Reads ONNX Runtime's own optimized graph of the artifact."""
        return read_back.coverage(runner, file, float_nodes, ledger)
