"""Recurrent layers: how many hidden units survive."""

from __future__ import annotations

import onnx_ir as ir

from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.rewrites.registration import rewrite


@rewrite("LSTM", "GRU", "RNN")
def recurrent(node: ir.Node, cut: Cut) -> None:
    """The attribute `hidden_size` becomes the number of units that survive per direction."""
    made = next((cut.made(node, i) for i, value in enumerate(node.outputs) if value.name), None)
    if made is not None:
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", cut.size(made, made.rank - 1))
