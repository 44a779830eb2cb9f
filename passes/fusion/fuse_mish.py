"""Mish written out back to one operator.

x * Tanh(Softplus(x))   =>   Mish(x)
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from irc.passes.fusion.composite import Composite, Fusion, either_way, producer_of

SINCE = 18


@dataclasses.dataclass(frozen=True)
class FuseMish(Fusion):
    """Two nodes less; runtimes without a kernel take it apart again.

    Source: Misra 2019, arXiv:1908.08681.
    """

    name: ClassVar[str] = "fuse-mish"

    def composite(self, last: ir.Node, model: ir.Model) -> Composite | str | None:
        """A Mish whose product is this node."""
        if last.op_type != "Mul":
            return None
        for x, factor in either_way(last):
            tanh = producer_of(factor, "Tanh")
            softplus = producer_of(tanh.inputs[0], "Softplus") if tanh is not None else None
            if tanh is not None and softplus is not None and softplus.inputs[0] is x and x.dtype is not None:
                return Composite("Mish", SINCE, (x,), (tanh, softplus), x.dtype)
        return None
