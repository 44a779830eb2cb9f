"""Remove what takes a tensor apart and puts it together again, or the reverse.

Concat(Split(x))                             =>   x            all parts, in order, along the same axis
Split(Concat(a, b), sizes of a and b)        =>   a, b
Slice(Concat(a: float[n, 3], b), 0, 3)       =>   a
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.ir import can_replace, replace_value
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.dimensions import Dim, Dimensions
from irc.passes.simplification.merge_concats import concat_axis
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.slicing import cuts, is_slice
from irc.passes.simplification.unused import remove_unused

_SIZES_ARE_INPUT_SINCE = 13


@dataclasses.dataclass(frozen=True)
class EliminateInverseConcat(Pass):
    """Saves the copies of a Concat and a Split or Slice that undo each other; others may use what is between."""

    name: ClassVar[str] = "eliminate-inverse-concat"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the second of every two that undo each other, and those that would but for a detail."""
        opset, dims = model.graph.opset_imports.get("", 0), Dimensions(model)
        for node in model.graph.all_nodes():
            if node.domain not in STANDARD_DOMAINS or not node.inputs or node.inputs[0] is None:
                continue
            before = node.inputs[0].producer()
            if before is None or before.domain not in STANDARD_DOMAINS:
                continue
            found: list[ir.Value] | str | None = None
            if node.op_type == "Concat" and before.op_type == "Split":
                found = _rejoined(before, node, dims, opset)
            elif before.op_type == "Concat" and node.op_type == "Split":
                found = _parted(before, node, dims, opset)
            elif before.op_type == "Concat" and is_slice(node):
                found = _picked(before, node, dims, opset)
            if isinstance(found, str):
                yield Skip(node, found)
            elif found is not None:
                yield Site(node, match=found)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Lets the users of the second use what goes into the first."""
        node, sources = site.node, site.match
        assert node is not None and node.graph is not None
        if node.op_type != "Split":
            pass_through(node, sources[0])
            return None
        inputs = list(node.inputs)
        for output, source in zip(node.outputs, sources, strict=True):
            if output.uses() or output.is_graph_output():
                replace_value(output, source)
        node.graph.remove(node, safe=True)
        remove_unused(inputs)
        return None


def _rejoined(split: ir.Node, concat: ir.Node, dims: Dimensions, opset: int) -> list[ir.Value] | str | None:
    """The input of the Split."""
    source = split.inputs[0]
    if source is None or any(value is None or value.producer() is not split for value in concat.inputs):
        return None
    if list(concat.inputs) != list(split.outputs):
        return "it does not take all parts of the Split before it in order"
    if _split_axis(split, dims) != concat_axis(concat, dims, opset):
        return "the Split before it is along another axis"
    return [source]


def _parted(concat: ir.Node, split: ir.Node, dims: Dimensions, opset: int) -> list[ir.Value] | str | None:
    """The inputs of the Concat."""
    axis = _split_axis(split, dims)
    parts = [value for value in concat.inputs if value is not None]
    if axis != concat_axis(concat, dims, opset) or len(parts) != len(split.outputs):
        return None
    sizes = [_size(part, axis, dims) for part in parts]
    wanted = _split_sizes(split, dims, opset)
    # Without sizes all parts are equal, where they can be: then the only way is that the inputs are.
    if wanted is None:
        return "sizes of the parts are not constant"
    if not all(isinstance(size, int) for size in sizes) or (list(wanted) != sizes if wanted else len(set(sizes)) != 1):
        return "its parts are not known to be those of the Concat before it"
    for output, part in zip(split.outputs, parts, strict=True):
        if not can_replace(output, part):
            return f"{output.name!r} is a graph output, whose name {part.name!r} cannot take"
    named = [part for output, part in zip(split.outputs, parts, strict=True) if output.is_graph_output()]
    return parts if len(set(named)) == len(named) else "two graph outputs would be one value"


def _picked(concat: ir.Node, node: ir.Node, dims: Dimensions, opset: int) -> list[ir.Value] | None:
    """The input of the Concat that a Slice takes."""
    axis = concat_axis(concat, dims, opset)
    found = cuts(node, dims.of(concat.outputs[0]), opset)
    if found is None or list(found) != [axis] or found[axis].step != 1:
        return None
    start, end = found[axis].start, found[axis].end
    sizes = [None if value is None else _size(value, axis, dims) for value in concat.inputs]
    known = [size for size in sizes if isinstance(size, int)]
    total = sum(known) if len(known) == len(sizes) else None
    if total is not None:
        start, end, _ = slice(start, end).indices(total)
    offset = 0
    for value, size in zip(concat.inputs, sizes, strict=True):
        if not isinstance(size, int):
            return None
        if start == offset and end == offset + size and size > 0 and value is not None:
            return [value]
        offset += size
    return None


def _size(value: ir.Value, axis: int, dims: Dimensions) -> Dim | None:
    shape = dims.of(value)
    return shape[axis] if shape is not None and 0 <= axis < len(shape) else None


def _split_axis(split: ir.Node, dims: Dimensions) -> int:
    """The axis of a Split, from the front where the rank is known or it is given so."""
    axis = split.attributes.get_int("axis", 0)
    shape = dims.of(split.inputs[0])
    return axis + len(shape) if axis < 0 and shape is not None else axis


def _split_sizes(split: ir.Node, dims: Dimensions, opset: int) -> tuple[Dim, ...] | None:
    """The sizes of the parts, () if they are equal, None if not known."""
    if opset < _SIZES_ARE_INPUT_SINCE:
        return tuple(split.attributes.get_ints("split", ())) if len(split.inputs) < 2 else None
    if len(split.inputs) < 2 or split.inputs[1] is None:
        return ()
    return dims.elements(split.inputs[1])
