"""Remove Dropout nodes that are in inference mode, where dropout passes its input through.

    y = Dropout(x, ratio, training_mode=false)   =>   y = x

How a node says that it is in inference mode depends on the opset: up to 6 by the attribute `is_test`, from 7 to 11
always, from 12 on by the optional input `training_mode` (default false).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.ir import bypass, constant, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.pass_through import why_no_gain
from irc.passes.simplification.unused import remove_unused


@dataclasses.dataclass(frozen=True)
class EliminateDropout(Pass):
    """Removes Dropout nodes in inference mode; one in training mode, or whose mask is used, stays.

    Where the dropout connects a graph input with a graph output, an Identity takes its place if it is smaller.
    """

    name: ClassVar[str] = "eliminate-dropout"
    contract: ClassVar[Contract] = Contract.EXACT
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Dropout in inference mode."""
        opset = model.graph.opset_imports.get("", 0)
        for node in model.graph.all_nodes():
            if node.op_type == "Dropout" and node.domain in ("", "ai.onnx"):
                assert node.inputs[0] is not None
                reason = _why_not(node, opset) or why_no_gain(node, node.inputs[0])
                yield Site(node) if reason is None else Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Lets the users of the output use the input."""
        node = site.node
        assert node is not None and node.inputs[0] is not None
        source, settings = node.inputs[0], node.inputs[1:]
        if not bypass(node, source):
            replace_node(node, "Identity", [source], outputs=1)
        remove_unused(settings)
        return None


def _why_not(node: ir.Node, opset: int) -> str | None:
    """The reason this dropout must stay, or None if it passes its input through."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "its mask is used"
    if opset < 7:
        return None if node.attributes.get_int("is_test", 0) else "it is in training mode"
    if opset < 12 or len(node.inputs) < 3 or node.inputs[2] is None:
        return None
    training = constant(node.inputs[2])
    if training is None:
        return "its training_mode is not constant"
    return "it is in training mode" if training.any() else None
