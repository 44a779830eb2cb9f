"""Merge two of Reshape, Flatten, Squeeze and Unsqueeze in a row into one, or none if they undo each other.

Reshape(Reshape(x, s), t)                       =>   Reshape(x, t)
Squeeze(Unsqueeze(x, a), a)                     =>   x
Unsqueeze(Unsqueeze(x: [n, m], [1]), [2])       =>   Unsqueeze(x, [1, 2])
Flatten(Unsqueeze(x: [n, 3, 4], [0]), axis=2)   =>   Reshape(x, [-1, 12])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.simplification.dimensions import Dimensions, Dims
from irc.passes.simplification.node_size import bytes_in_one, integer_bytes, stored_bytes
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.reshaped_dimensions import REGROUPING, axes_of, numbers, regrouped, reshaped, target_of
from irc.passes.simplification.unused import remove_unused

MIN_OPSET = 5
"""Before, the shape was an attribute of Reshape."""


@dataclasses.dataclass(frozen=True)
class _Merged:
    """The operator that replaces two.

    Attributes:
        op_type: Reshape, Squeeze or Unsqueeze; None if the input of the first takes the place of both.
        values: The shape or the axes.
    """

    op_type: str | None
    values: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class MergeReshapes(Pass):
    """Regroups the elements of a tensor once instead of twice; inverse pairs go even where others use what is between."""

    name: ClassVar[str] = "merge-reshapes"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the second of every two in a row, and why not."""
        opset, dims = model.graph.opset_imports.get("", 0), Dimensions(model)
        for node in model.graph.all_nodes():
            inner = node.inputs[0].producer() if _regroups(node) and node.inputs[0] is not None else None
            if inner is None or not _regroups(inner) or inner.inputs[0] is None:
                continue
            merged = _merge(inner, node, dims, opset)
            if isinstance(merged, str):
                yield Skip(node, merged)
            elif merged.op_type is not None and not only_consumer(inner.outputs[0], node):
                yield Skip(node, f"the output of the {inner.op_type} before it has other users")
            elif merged.op_type is not None and _grows(inner, node, merged, opset):
                yield Skip(node, "the shape to store for both is larger than what it replaces")
            else:
                yield Site(node, match=(merged, opset))

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts one operator on the input of the first."""
        node = site.node
        assert node is not None and node.inputs[0] is not None and isinstance(node.graph, ir.Graph)
        merged, opset = site.match
        between, rest = node.inputs[0], node.inputs[1:]
        inner = between.producer()
        assert inner is not None and inner.inputs[0] is not None
        source = inner.inputs[0]
        if merged.op_type is None:
            pass_through(node, source)
            return None
        if merged.op_type != "Reshape" and opset < 13:
            replace_node(node, merged.op_type, [source], {"axes": merged.values})
        elif _holds(node, merged):
            replace_node(node, "Reshape", [source, node.inputs[1]])
        else:
            values = np.array(merged.values, np.int64)
            stored = add_initializer(node.graph, _hint(node, merged), values)
            replace_node(node, merged.op_type, [source, stored])
        remove_unused([between, *rest])
        return None


def _regroups(node: ir.Node) -> bool:
    return node.op_type in REGROUPING and node.domain in ("", "ai.onnx")


def _merge(inner: ir.Node, outer: ir.Node, dims: Dimensions, opset: int) -> _Merged | str:
    """What replaces both, or why nothing does."""
    if opset < MIN_OPSET:
        return f"Reshape of opset {opset} has no shape input; convert the model to opset {MIN_OPSET} or later"
    before = dims.of(inner.inputs[0])
    between = reshaped(inner, before, dims, opset)
    after = reshaped(outer, between, dims, opset)
    if before is not None and before == after:
        return _Merged(None)
    first, second = (axes_of(node, dims, opset) if "queeze" in node.op_type else None for node in (inner, outer))
    if first and second and inner.op_type != outer.op_type and sorted(first) == sorted(second):
        return _Merged(None)
    if first and second and inner.op_type == outer.op_type:
        middle = None if between is None else len(between)
        if inner.op_type == "Unsqueeze":
            joined = _joined(second, None if after is None else len(after), first, middle)
        else:
            joined = _joined(first, None if before is None else len(before), second, middle)
        if joined is not None:
            return _Merged(inner.op_type, joined)
    target = None
    if outer.op_type == "Reshape":
        target = _absolute(outer, target_of(outer, dims, opset), before, between)
        if before is not None and target is not None and regrouped(before, target, outer.outputs[0]) == before:
            return _Merged(None)
    if target is None and before is not None and after is not None:
        target = _target(before, after)
    return _Merged("Reshape", target) if target is not None else "its shape is not known as numbers"


def _joined(
    outer: tuple[int, ...], outer_rank: int | None, inner: tuple[int, ...], inner_rank: int | None
) -> tuple[int, ...] | None:
    """Axes of a tensor, some given among those that the others leave; None if any counts from an unknown end.

    Args:
        outer: Axes of the tensor that has them all.
        outer_rank: Its rank.
        inner: Axes of the tensor that has not the outer ones.
        inner_rank: Its rank.
    """
    if (outer_rank is None and min(outer) < 0) or (inner_rank is None and min(inner) < 0):
        return None
    taken = {axis + (outer_rank or 0) if axis < 0 else axis for axis in outer}
    wanted = {axis + (inner_rank or 0) if axis < 0 else axis for axis in inner}
    left = [axis for axis in range(max(wanted) + len(taken) + 1) if axis not in taken]
    joined = {*taken, *(left[axis] for axis in wanted)}
    return tuple(sorted(joined)) if len(joined) == len(outer) + len(inner) else None


def _absolute(
    reshape: ir.Node, target: Dims | None, before: Dims | None, between: Dims | None
) -> tuple[int, ...] | None:
    """The shape a Reshape asks for, such that it means the same behind another input."""
    shape = numbers(target) if target is not None else None
    if shape is None or (0 in shape and reshape.attributes.get_int("allowzero", 0) != 0):
        return None
    result: list[int] = []
    for axis, dim in enumerate(shape):
        if dim == 0:  # copies the dimension of what is in between
            copied = between[axis] if between is not None and axis < len(between) else None
            if isinstance(copied, int) and copied > 0:
                dim = copied
            elif before is None or axis >= len(before) or before[axis] != copied:
                return None
        result.append(dim)
    return tuple(result)


def _target(before: Dims, after: Dims) -> tuple[int, ...] | None:
    """The shape to give to a Reshape, also of empty tensors, for which 0 and -1 do not go together."""
    unknown = [axis for axis, dim in enumerate(after) if not isinstance(dim, int)]
    if 0 in after:
        return None
    if len(unknown) == 1:
        return tuple(dim if isinstance(dim, int) else -1 for dim in after)
    if all(axis < len(before) and before[axis] == after[axis] for axis in unknown):
        return tuple(dim if isinstance(dim, int) else 0 for dim in after)
    return None


def _holds(outer: ir.Node, merged: _Merged) -> bool:
    """Whether the second operator has the shape of the merged one already."""
    if outer.op_type != "Reshape":
        return False
    shape = constant(outer.inputs[1])
    return shape is not None and tuple(shape.tolist()) == merged.values


def _hint(node: ir.Node, merged: _Merged) -> str:
    return f"{node_id(node)}.{'shape' if merged.op_type == 'Reshape' else 'axes'}"


def _grows(inner: ir.Node, outer: ir.Node, merged: _Merged, opset: int) -> bool:
    """Whether the constant to store is larger than both operators are now without what stays of them."""
    if _holds(outer, merged) or (merged.op_type != "Reshape" and opset < 13):
        return False
    stored = stored_bytes(_hint(outer, merged), 1, integer_bytes(merged.values))
    return stored > bytes_in_one(inner, outer)
