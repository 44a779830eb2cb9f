"""Remove two negations in a row.

Neg(Neg(x)), Not(Not(x)), BitwiseNot(BitwiseNot(x))   =>   x
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.scopes import STANDARD_DOMAINS

_OWN_INVERSE = ("BitwiseNot", "Neg", "Not")


@dataclasses.dataclass(frozen=True)
class EliminateDoubleNegation(Pass):
    """Removes an operator that undoes the same operator before it, bit by bit; others may use what is between."""

    name: ClassVar[str] = "eliminate-double-negation"
    contract: ClassVar[Contract] = Contract.EXACT
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the second of every two."""
        for node in model.graph.all_nodes():
            if node.op_type not in _OWN_INVERSE or node.domain not in STANDARD_DOMAINS or node.inputs[0] is None:
                continue
            inner = node.inputs[0].producer()
            if inner is not None and inner.op_type == node.op_type and inner.domain in STANDARD_DOMAINS:
                yield Site(node, match=inner.inputs[0])

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Lets the users of the second use what goes into the first."""
        assert site.node is not None
        pass_through(site.node, site.match)
        return None
