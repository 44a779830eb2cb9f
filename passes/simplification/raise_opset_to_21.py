"""Raise the opset of a model to 21, for integers of 4 bits and scales per block.

opset 20  =>  opset 21 (DequantizeLinear with block_size, INT4 and UINT4), IR version 10
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from irc.pass_base import Context
from irc.passes.simplification.raise_opset import RaiseOpset

MIN_IR_VERSION = 10
"""The first with 4-bit types."""


@dataclasses.dataclass(frozen=True)
class RaiseOpsetTo21(RaiseOpset):
    """Converts the default operator set to version 21; does nothing when it is as high.

    Attributes:
        to: The lowest version wanted.
    """

    name: ClassVar[str] = "raise-opset-to-21"
    establishes: ClassVar[tuple[str, ...]] = ("opset-13", "opset-21")

    to: int = 21

    def apply(self, model: ir.Model, ctx: Context) -> bool:
        """Converts the graph, and lets the file say that it may hold 4-bit types."""
        changed = super().apply(model, ctx)
        model.ir_version = max(model.ir_version or 0, MIN_IR_VERSION)
        return changed
