"""Merge a Concat of a Concat along the same axis into one.

Concat<axis=1>(Concat<axis=1>(a, b), c)   =>   Concat<axis=1>(a, b, c)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.ir import only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.dimensions import Dimensions
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.unused import remove_unused

_AXIS_REQUIRED_SINCE = 4
MAX_INPUTS = 1024
"""No Concat gets more inputs: each merge copies them all, and a long chain would take time quadratic in its length."""


@dataclasses.dataclass(frozen=True)
class MergeConcats(Pass):
    """Copies every part once instead of twice."""

    name: ClassVar[str] = "merge-concats"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Concat of a Concat along the same axis, and those whose inner one others use."""
        opset, dims = model.graph.opset_imports.get("", 0), Dimensions(model)
        for node in model.graph.all_nodes():
            if not _is_concat(node):
                continue
            reason: str | None = None
            for value in node.inputs:
                inner = value.producer() if value is not None else None
                if value is None or inner is None or not _is_concat(inner):
                    continue
                axes = [concat_axis(one, dims, opset) for one in (inner, node)]
                if axes[0] != axes[1] or len(inner.inputs) + len(node.inputs) > MAX_INPUTS:
                    continue
                if only_consumer(value, node):
                    reason = None
                    yield Site(node, match=value)
                    break
                reason = f"{value.name!r} has other users"
            if reason is not None:
                yield Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts the parts of the inner one where its output was."""
        node, value = site.node, site.match
        assert node is not None
        inner = value.producer()
        inputs: list[ir.Value | None] = []
        for given in node.inputs:
            inputs += inner.inputs if given is value else [given]
        replace_node(node, "Concat", inputs, dict(node.attributes))
        remove_unused([value])
        return None


def _is_concat(node: ir.Node) -> bool:
    return node.op_type == "Concat" and node.domain in STANDARD_DOMAINS


def concat_axis(node: ir.Node, dims: Dimensions, opset: int) -> int:
    """The axis of a Concat, from the front where the rank is known or it is given so."""
    axis = node.attributes.get_int("axis", 1) if opset < _AXIS_REQUIRED_SINCE else node.attributes.get_int("axis")
    if axis >= 0:
        return axis
    shapes = [dims.of(value) for value in (*node.inputs, *node.outputs)]
    rank = next((len(shape) for shape in shapes if shape is not None), None)
    return axis if rank is None else axis + rank
