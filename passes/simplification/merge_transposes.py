"""Merge a Transpose of a Transpose into one, or none if they are inverse to each other.

Transpose<perm=q>(Transpose<perm=p>(x))   =>   Transpose<perm=[p[i] for i in q]>(x),   or x if that moves nothing
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import onnx_ir as ir

from irc.ir import only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.unused import remove_unused


@dataclasses.dataclass(frozen=True)
class MergeTransposes(Pass):
    """Moves a tensor once instead of twice; inverse pairs go even where others use what is between them."""

    name: ClassVar[str] = "merge-transposes"
    contract: ClassVar[Contract] = Contract.EXACT
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Transpose of a Transpose."""
        for node in model.graph.all_nodes():
            inner = node.inputs[0].producer() if _is_transpose(node) and node.inputs[0] is not None else None
            if inner is None or not _is_transpose(inner) or inner.inputs[0] is None:
                continue
            perm = _combined(inner, node)
            if not _moves_nothing(perm) and not only_consumer(inner.outputs[0], node):
                yield Skip(node, "the output of the Transpose before it has other users")
            else:
                yield Site(node, match=perm)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Transposes the input of the first by both permutations."""
        node, perm = site.node, site.match
        assert node is not None and node.inputs[0] is not None
        between = node.inputs[0]
        inner = between.producer()
        assert inner is not None and inner.inputs[0] is not None
        if _moves_nothing(perm):
            pass_through(node, inner.inputs[0])
        else:
            replace_node(node, "Transpose", [inner.inputs[0]], {"perm": perm})
            remove_unused([between])
        return None


def _is_transpose(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and node.domain in ("", "ai.onnx")


def _combined(first: ir.Node, second: ir.Node) -> list[int]:
    """The permutation that does what two do. One that is not given reverses the axes."""
    p, q = (node.attributes.get_ints("perm", None) for node in (first, second))
    given = p if p is not None else q
    if given is None:
        return []  # one reversal undoes the other, whatever the rank
    reverse = range(len(given))[::-1]
    return [(p if p is not None else reverse)[axis] for axis in (q if q is not None else reverse)]


def _moves_nothing(perm: Sequence[int]) -> bool:
    return list(perm) == list(range(len(perm)))
