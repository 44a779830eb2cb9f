"""NVIDIA TensorRT 10.12 and later: explicit symmetric int8 Q/DQ, float bias, scalar activation scales.

This version declares and lints; it does not build engines, and its labels say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from irc.backends.tensorrt.placement_rules import PLACEMENT_RULES
from irc.backends.tensorrt.rules import WEIGHT_RULES, ArchitectureHasInt8
from irc.coverage import Coverage, Covered
from irc.errors import PassOptionError
from irc.ledger import Ledger
from irc.runner import Runner
from irc.target import QuantizationStyle, Rule, Target, has_quantized_operands, is_dequantized, stored_weight

COMPOSITES = frozenset({"Gelu", "Gemm", "HardSigmoid", "HardSwish", "LayerNormalization", "Mish"})
"""Operators that stand for several others and have an importer of their own in the ONNX parser of TensorRT 10."""
DECOMPOSED = frozenset({"Attention", "RMSNormalization", "Swish"})
"""Likewise, without one in all versions from 10.12."""


@dataclasses.dataclass(frozen=True)
class TensorRtTarget(Target):
    """TensorRT on an NVIDIA GPU.

    Attributes:
        sm: Compute capabilities the engine is for, for example 86 or 89; empty for any.
    """

    name: ClassVar[str] = "tensorrt"
    max_opset: ClassVar[int] = 20
    max_ir_version: ClassVar[int] = 10
    sm: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for value in self.sm:
            if not 50 <= value <= 130:
                raise PassOptionError(f"tensorrt: sm is {value}; it must be a compute capability such as 86")

    @property
    def quantization(self) -> QuantizationStyle:
        """Symmetric int8 on inputs only, and on skip branches; outputs, biases and tables stay float."""
        return QuantizationStyle(
            activation="int8",
            gemm_bias="float",
            weight_zero_points=("Conv", "Gemm", "MatMul"),
            residual=True,
            embeddings=False,
            dynamic=False,
            weights_fold=False,
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What the parser and builder accept and execute in int8."""
        return (ArchitectureHasInt8(self.sm), *WEIGHT_RULES, *PLACEMENT_RULES)

    def has_operator(self, op_type: str, opset: int, dtype: ir.DataType, *, mode: str = "") -> bool:
        """Composite operators are for float32 and float16, and only where every version from 10.12 reads them."""
        if op_type in DECOMPOSED or (op_type in COMPOSITES and dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16)):
            return False
        return super().has_operator(op_type, opset, dtype)

    def lacks_type(self, op_type: str, opset: int, dtype: ir.DataType) -> str | None:
        """float16 everywhere; bfloat16 from compute capability 8.0 on."""
        if dtype == ir.DataType.BFLOAT16 and (old := [value for value in self.sm if value < 80]):
            return f"compute capability {old[0]} has no bfloat16; it begins with 80"
        return None

    def channel_multiple(self, node: ir.Node, width: int, *, integers: bool = False) -> int:
        """8 for float products and 16 for int8 ones, as tensor cores want them; declared, not measured.

        Source: NVIDIA, Deep Learning Performance Guide, "Tensor Core Requirements": 16 bytes, that is 8 elements of
        float16 and 16 of int8.
        """
        return 16 if integers or has_quantized_operands(node) else 8

    def coverage(self, runner: Runner, file: Path, float_nodes: Sequence[tuple[str, str]], ledger: Ledger) -> Coverage:
        """The spelling alone: which operators have int8 operands in the file. Nothing is built or executed."""
        import irc.ir

        values = {value.name: value for node in irc.ir.load(file).graph.all_nodes() for value in node.outputs}
        approximate = [record for record in ledger if record.contract == "approximate"]
        rewritten = {entry.site for record in approximate for entry in record.rewritten}
        reasons = {e.site: e.reason for record in approximate for e in (*record.skipped, *record.undone)}
        nodes = []
        for site, op_type in float_nodes:
            producer = values[site].producer() if site in values else None
            spelled = site in rewritten and producer is not None and _has_int8_operands(producer, op_type)
            stored = producer is not None and stored_weight(producer) is not None
            default = "its weight is stored as int8 and computed with in float" if stored else "it has no int8 operands"
            reason = "" if spelled else reasons.get(site, default)
            nodes.append(Covered(site, op_type, spelled, spelled, reason))
        return Coverage(tuple(nodes), "int8 operands declared in the file; not built, not executed")


def _has_int8_operands(node: ir.Node, op_type: str) -> bool:
    """Whether the operands of a site are declared as int8; of an Add one is enough, the other coming out of a kernel."""
    return any(map(is_dequantized, node.inputs)) if op_type == "Add" else has_quantized_operands(node)
