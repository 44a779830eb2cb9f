"""Grouped convolutions: how many groups survive."""

from __future__ import annotations

import onnx_ir as ir

from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.rewrites.registration import rewrite


@rewrite("Conv", "ConvTranspose", "QLinearConv", "ConvInteger")
@rewrite("FusedConv", "QLinearConv", domain="com.microsoft")
def convolution(node: ir.Node, cut: Cut) -> None:
    """The attribute `group` becomes the number of groups of which any channel survives."""
    groups = node.attributes.get_int("group", 1)
    if groups == 1:
        return
    tensor = cut.read(node, 0)
    bundle = tensor.on(1)
    if bundle is None:
        return
    labels = next(tensor.labels_along(1))
    left = cut.alive[labels].reshape(groups, -1).any(axis=1)
    node.attributes["group"] = ir.AttrInt64("group", int(left.sum()))
