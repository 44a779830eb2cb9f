"""Packed weights: how many rows survive."""

from __future__ import annotations

import onnx_ir as ir

from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.rewrites.registration import rewrite


@rewrite("MatMulNBits", domain="com.microsoft")
def packed_matmul(node: ir.Node, cut: Cut) -> None:
    """The attribute `N` becomes the size of the result's last axis."""
    made = cut.made(node)
    node.attributes["N"] = ir.AttrInt64("N", cut.size(made, made.rank - 1))
