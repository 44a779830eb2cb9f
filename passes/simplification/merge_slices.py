"""Merge a Slice of a Slice into one.

x[:, 2:10][:, 1:3]        =>  x[:, 3:5]
x[1:][:, ::2]             =>  x[1:, ::2]
x[2:-1][1:]               =>  x[3:-1]         whatever the size of x
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.simplification.dimensions import Dimensions
from irc.passes.simplification.node_size import bytes_in_one, integer_bytes, stored_bytes
from irc.passes.simplification.slicing import BOUNDS_ARE_INPUTS_SINCE, Cut, both, cuts, is_slice
from irc.passes.simplification.unused import remove_unused

_Vectors = dict[str, list[int]]


@dataclasses.dataclass(frozen=True)
class MergeSlices(Pass):
    """Copies what is wanted once instead of twice.

    Where both cut the same axis, its size must be known, or the cuts must be such that it does not matter.
    """

    name: ClassVar[str] = "merge-slices"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Slice of a Slice with constant bounds, or why it must stay."""
        opset, dims = model.graph.opset_imports.get("", 0), Dimensions(model)
        for node in model.graph.all_nodes():
            inner = node.inputs[0].producer() if is_slice(node) and node.inputs[0] is not None else None
            if inner is None or not is_slice(inner):
                continue
            merged = _merged(inner, node, dims, opset)
            if isinstance(merged, dict):
                yield Site(node, match=(merged, opset))
            else:
                yield Skip(node, merged)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Slices the input of the first by both."""
        node, (vectors, opset) = site.node, site.match
        assert node is not None and isinstance(node.graph, ir.Graph) and node.inputs[0] is not None
        inner = node.inputs[0].producer()
        assert inner is not None
        others = [*node.inputs, *inner.inputs[1:]]
        if opset < BOUNDS_ARE_INPUTS_SINCE:
            replace_node(node, "Slice", [inner.inputs[0]], vectors)
        else:
            values: list[ir.Value] = []
            for name, vector in vectors.items():
                held = _held(inner, node, vector)
                array = np.array(vector, np.int64)
                values.append(add_initializer(node.graph, f"{node_id(node)}.{name}", array) if held is None else held)
            replace_node(node, "Slice", [inner.inputs[0], *values])
        remove_unused(others)
        return None


def _merged(inner: ir.Node, outer: ir.Node, dims: Dimensions, opset: int) -> _Vectors | str:
    """Starts, ends, axes and steps of one Slice for two, or why there is none."""
    between, shape = inner.outputs[0], dims.of(inner.inputs[0])
    first, second = cuts(inner, shape, opset), cuts(outer, dims.of(between) or shape, opset)
    if first is None or second is None:
        return "starts, ends, axes or steps are not constant, or count from the end of an unknown rank"
    merged: dict[int, Cut] = dict(first)
    for axis, cut in second.items():
        if axis not in first:
            merged[axis] = cut
            continue
        size = shape[axis] if shape is not None and axis < len(shape) else None
        one = both(first[axis], cut, size if isinstance(size, int) else None)
        if one is None:
            return f"what both leave of axis {axis} depends on its size, which is not known"
        merged[axis] = one
    if not only_consumer(between, outer):
        return "the output of the Slice before it has other users"
    axes = sorted(merged)
    vectors = {"starts": [merged[a].start for a in axes], "ends": [merged[a].end for a in axes], "axes": axes}
    if opset < BOUNDS_ARE_INPUTS_SINCE:
        return vectors
    if any(cut.step != 1 for cut in merged.values()):
        vectors["steps"] = [merged[a].step for a in axes]
    elif axes == list(range(len(axes))):
        del vectors["axes"]
    # A constant that both have already counts as stored anew: it counts as freed, too.
    stored = sum(stored_bytes(f"{node_id(outer)}.{name}", 1, integer_bytes(vector)) for name, vector in vectors.items())
    if stored > bytes_in_one(inner, outer):
        return "the bounds to store are larger than what they replace"
    return vectors


def _held(inner: ir.Node, outer: ir.Node, vector: list[int]) -> ir.Value | None:
    """A constant that one of the two has already."""
    for value in (*outer.inputs[1:], *inner.inputs[1:]):
        array = constant(value)
        if value is not None and array is not None and array.dtype == np.int64 and array.tolist() == vector:
            return value
    return None
