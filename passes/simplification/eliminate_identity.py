"""Remove Identity nodes.

    y = Identity(x); z = Op(y)   =>   z = Op(x)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import onnx_ir as ir

from irc.ir import bypass, can_replace
from irc.pass_base import Context, Contract, Pass, Site, Skip


@dataclasses.dataclass(frozen=True)
class EliminateIdentity(Pass):
    """Removes Identity nodes; the names, types and order of graph outputs survive."""

    name = "eliminate-identity"
    contract = Contract.EXACT
    invalidates = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Identity; one that gives a graph output its name is skipped."""
        for node in model.graph.all_nodes():
            if node.op_type != "Identity" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
                continue
            if can_replace(node.outputs[0], node.inputs[0]):
                yield Site(node)
            else:
                yield Skip(node, "it gives a graph output a name that its input cannot take")

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Lets the users of the output use the input."""
        node = site.node
        assert node is not None and node.inputs[0] is not None
        source, target = node.inputs[0], node.outputs[0]
        type_, shape = target.type, target.shape
        if not bypass(node, source):
            return Skip(node, "it gives a graph output a name that its input cannot take")
        if source.type is None:
            source.type = type_
        if source.shape is None and not source.is_graph_input():
            source.shape = shape
        return None
