"""Remove Identity nodes.

    y = Identity(x); z = Op(y)   =>   z = Op(x)

A graph output keeps its name: where its input cannot take it, the Identity stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.ir import bypass, can_replace
from irc.pass_base import Context, Contract, Pass, Site, Skip


@dataclasses.dataclass(frozen=True)
class EliminateIdentity(Pass):
    """Removes Identity nodes; the names, types and order of graph outputs survive."""

    name: ClassVar[str] = "eliminate-identity"
    contract: ClassVar[Contract] = Contract.EXACT
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Identity but those that give an output of their graph its name."""
        for node in model.graph.all_nodes():
            if node.op_type != "Identity" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
                continue
            if can_replace(node.outputs[0], node.inputs[0]):
                yield Site(node)
            elif node.graph is model.graph:
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
