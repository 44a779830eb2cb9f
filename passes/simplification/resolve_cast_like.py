"""Give CastLike the type it asks for, as a Cast, where that is known: what depends on constants only can then be folded.

y = CastLike(c, x: float16)   =>   y = Cast<to=FLOAT16>(c)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.ir import replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.unused import remove_unused


@dataclasses.dataclass(frozen=True)
class ResolveCastLike(Pass):
    """Replaces CastLike by Cast; its second input is then no longer needed."""

    name: ClassVar[str] = "resolve-cast-like"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every CastLike whose second input has a known type."""
        for node in model.graph.all_nodes():
            if node.op_type != "CastLike" or node.domain not in STANDARD_DOMAINS or node.inputs[1] is None:
                continue
            dtype = node.inputs[1].dtype
            if dtype is None:
                yield Skip(node, "the type of its second input is not known")
            elif dtype.name.startswith("FLOAT8"):
                yield Skip(node, "float8 saturates differently from runtime to runtime")
            else:
                yield Site(node, match=dtype)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts a Cast in its place."""
        node = site.node
        assert node is not None
        like = node.inputs[1]
        kept = {name: a for name, a in node.attributes.items() if name == "round_mode"}
        replace_node(node, "Cast", [node.inputs[0]], {"to": ir.AttrInt64("to", site.match.value), **kept})
        remove_unused([like])
        return None
