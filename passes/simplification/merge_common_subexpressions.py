"""Compute once what is computed twice.

    y = Add(Relu(Neg(x)), Tanh(Neg(x)))   =>   n = Neg(x), y = Add(Relu(n), Tanh(n))

The first of equal nodes stays. A node in a body of an If, Loop or Scan gives way to an equal one that the graph around it
has computed before; the other way round nothing is shared, since a branch may not run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from typing import ClassVar

import onnx_ir as ir

from irc.ir import bodies, can_replace, replace_value
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.computation_key import computation_key, unrepeatable
from irc.passes.simplification.scopes import sees_outside
from irc.passes.simplification.unused import release_bodies

_Computed = dict[Hashable, ir.Node]


@dataclasses.dataclass(frozen=True)
class MergeCommonSubexpressions(Pass):
    """Removes nodes that repeat an earlier one: same operator, attributes, inputs and outputs present.

    Random operators, operators in training mode and other domains stay, as do nodes whose outputs are graph outputs if
    the earlier node's are too: each keeps its name. One sweep finds all, in time linear in the size of the graph.
    """

    name: ClassVar[str] = "merge-common-subexpressions"
    contract: ClassVar[Contract] = Contract.EXACT
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every node that repeats one before it, in graph order, so that its users become equal in turn."""
        yield from _repetitions(model.graph, [], model.graph.opset_imports.get("", 0))

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Makes the users of the outputs use those of the earlier node, and removes the node."""
        node, kept = site.node, site.match
        assert node is not None and isinstance(node.graph, ir.Graph)
        for old, new in zip(node.outputs, kept.outputs, strict=True):
            new.type = new.type if new.type is not None else old.type
            new.shape = new.shape if new.shape is not None else old.shape
            replace_value(old, new)
        node.graph.remove(node, safe=True)
        release_bodies(node)
        return None


def _repetitions(graph: ir.Graph, around: Sequence[_Computed], opset: int) -> Iterator[Site | Skip]:
    """The repetitions in a graph and its bodies.

    Args:
        graph: In topological order.
        around: What the graphs around it have computed so far, nearest first.
        opset: Version of the default domain.
    """
    computed: _Computed = {}
    scopes = (computed, *around)
    for node in graph:
        for body in bodies(node):
            yield from _repetitions(body, scopes if sees_outside(node) else (), opset)
        key = computation_key(node, opset)
        if key is None:
            continue
        kept = next((scope[key] for scope in scopes if key in scope), None)
        if kept is None:
            computed[key] = node
            continue
        reason = unrepeatable(node, opset) or _names_taken(node, kept)
        yield Site(node, match=kept) if reason is None else Skip(node, reason)


def _names_taken(node: ir.Node, kept: ir.Node) -> str | None:
    """Why the outputs of the earlier node cannot stand for those of this one, or None if they can."""
    if all(can_replace(old, new) for old, new in zip(node.outputs, kept.outputs, strict=True)):
        return None
    if node.graph is not kept.graph:
        return "it gives its body an output, which must be computed there"
    return "it and the node it repeats are both graph outputs, whose names must stay"
