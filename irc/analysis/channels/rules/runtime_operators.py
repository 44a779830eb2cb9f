"""Elementwise operators of ONNX Runtime that add a bias on the way."""

from __future__ import annotations

from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.elementwise import broadcast
from irc.analysis.channels.rules.registration import rule


@rule("BiasGelu", "BiasAdd", domain="com.microsoft")
def biased(view: NodeView) -> None:
    """Y = f(x + bias), plus a skip connection."""
    broadcast(view)


@rule("BiasDropout", domain="com.microsoft")
def biased_dropout(view: NodeView) -> None:
    """Y = dropout(x + bias) + residual; the ratio and the mode are scalars."""
    rank = len(view.dims_out())
    operands = [(view.read(i), range(rank - view.read(i).rank, rank)) for i in range(3) if view.has(i)]
    groups = view.align(*operands)
    for index in range(2):
        if view.makes(index):
            view.write_bundles(view.kept(groups, range(rank)), index)
