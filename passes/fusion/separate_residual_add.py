"""A residual sum spelled so that the runtime does not fuse it with the normalization behind it.

    LayerNormalization(Add(a, b), scale, bias)   =>   LayerNormalization(Sum(a, b), scale, bias)

Sum of two is the same addition, bit for bit. Whether a runtime has such a fusion, and loses time by it, is the target's to
say; without a target nothing is rewritten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.ir import replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.fusion.composite import Composite, needed_elsewhere, opset_of, producer_of, target_of
from irc.passes.fusion.fuse_layer_normalization import FuseLayerNormalization
from irc.passes.fusion.scalars import rank_of

_NORMALIZATION = "LayerNormalization"


@dataclasses.dataclass(frozen=True)
class SeparateResidualAdd(Pass):
    """Add before a normalization of the last axis as Sum, the normalization being one operator or written out.

    A sum that others read too stays: the runtime would have to compute it anyway, and does not fuse it.
    """

    name: ClassVar[str] = "separate-residual-add"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Add that the target would fuse with the normalization behind it, or why it does not."""
        if ctx.target is None:
            return
        opset, target = opset_of(model), target_of(ctx)
        for node in model.graph.all_nodes():
            value, readers = _normalized(node, model)
            add = producer_of(value, "Add")
            if add is None or not target.fuses_slowly(add, _NORMALIZATION, opset):
                continue
            if add.graph is not node.graph:
                yield Skip(add, "the normalization of its result is in another graph")
            elif add.outputs[0].is_graph_output() or any(use.node not in readers for use in add.outputs[0].uses()):
                yield Skip(add, "its result has other users, so that nothing fuses it")
            else:
                yield Site(add)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts Sum in the place of Add."""
        assert site.node is not None
        replace_node(site.node, "Sum", list(site.node.inputs))
        return None


def _normalized(last: ir.Node, model: ir.Model) -> tuple[ir.Value | None, frozenset[ir.Node]]:
    """The value whose last axis is normalized by what ends in a node, with the nodes that do so; None if it is none."""
    if last.domain not in ("", "ai.onnx"):
        return None, frozenset()
    if last.op_type == _NORMALIZATION:
        is_last = last.attributes.get_int("axis", -1) in (-1, (rank_of(last.inputs[0]) or 0) - 1)
        return (last.inputs[0] if is_last else None), frozenset((last,))
    found = FuseLayerNormalization().composite(last, model)
    if not isinstance(found, Composite) or "axis" in found.attributes or needed_elsewhere(found.interior, last):
        return None, frozenset()
    value = found.inputs[0]
    return (value if isinstance(value, ir.Value) else None), frozenset((last, *found.interior))
