"""Group normalization: how many groups survive."""

from __future__ import annotations

import onnx_ir as ir

from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.rewrites.registration import rewrite


@rewrite("GroupNormalization")
def group_normalization(node: ir.Node, cut: Cut) -> None:
    """The attribute `num_groups` becomes the number of groups of which any channel survives."""
    _count(node, cut, "num_groups", 1)


@rewrite("GroupNorm", "SkipGroupNorm", domain="com.microsoft")
def runtime_group_norm(node: ir.Node, cut: Cut) -> None:
    """The attribute `groups`, likewise."""
    rank = cut.read(node, 0).rank
    _count(node, cut, "groups", rank - 1 if node.attributes.get_int("channels_last", 1) else 1)


def _count(node: ir.Node, cut: Cut, name: str, axis: int) -> None:
    rows = cut.surviving_rows(cut.read(node, 0), axis, node.attributes.get_int(name, 1))
    node.attributes[name] = ir.AttrInt64(name, rows)
