"""NVIDIA TensorRT 10.12 and later: explicit symmetric int8 Q/DQ, float bias, scalar activation scales.

This version declares and lints; it does not build engines, and its labels say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from irc.backends.tensorrt.rules import RULES
from irc.coverage import Coverage, Covered
from irc.errors import UsageError
from irc.ledger import Ledger
from irc.runner import Runner
from irc.target import QuantizationStyle, Rule, Target


@dataclasses.dataclass(frozen=True)
class TensorRtTarget(Target):
    """TensorRT on an NVIDIA GPU.

    Attributes:
        sm: Compute capabilities the engine is for, for example 86 or 89; empty for any.
    """

    name: ClassVar[str] = "tensorrt"
    max_opset: ClassVar[int] = 20
    sm: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for value in self.sm:
            if not 50 <= value <= 130:
                raise UsageError(f"tensorrt: sm is {value}; it must be a compute capability such as 86")

    @property
    def quantization(self) -> QuantizationStyle:
        """Symmetric int8 on inputs only; outputs stay float."""
        return QuantizationStyle(activation="int8", bias="float", embeddings=False)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What the parser and builder accept and execute in int8."""
        return RULES

    def coverage(self, runner: Runner, file: Path, float_nodes: Sequence[tuple[str, str]], ledger: Ledger) -> Coverage:
        """The intent alone: nothing is executed."""
        intended = {e.site for record in ledger if record.contract == "approximate" for e in record.rewritten}
        reasons = {
            e.site: e.reason
            for record in ledger
            if record.contract == "approximate"
            for e in (*record.skipped, *record.undone)
        }
        nodes = tuple(
            Covered(site, op, site in intended, site in intended, reasons.get(site, "")) for site, op in float_nodes
        )
        return Coverage(nodes, "int8 operands declared, not executed")
