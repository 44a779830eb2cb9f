"""Give Reshape a constant shape where all but one of the dimensions are known, or can be copied from its input.

    Reshape(x: [n, 196, 24], Concat(Gather(Shape(x), 0), [14, 14, 24]))   =>   Reshape(x, [0, 14, 14, 24])
    Reshape(x: [?, 49, 24], Concat(k, [49, 2, 12]))                       =>   Reshape(x, [-1, 49, 2, 12])

Every Reshape keeps the number of elements, so that one unknown dimension follows from the rest: -1 stands for it. A 0 copies
the dimension of the input at the same position, which is exact where both are equal whenever the model runs. The nodes
that computed the shape are left to dead code elimination; what is known of shapes behind the Reshape may become more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant_tensor
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.simplification.dimensions import MAX_DEPTH, MAX_ELEMENTS, Dim, Dimensions
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.unused import remove_unused

SHAPE_IS_AN_INPUT_SINCE = 5
LARGEST = 2**31 - 1
"""No dimension is larger; a number that is may have been cast to int32 since, which makes another one of it."""
_Element = Dim | None


@dataclasses.dataclass(frozen=True)
class FoldReshapeShape(Pass):
    """Replaces computed shapes of Reshape nodes by constants, dynamic dimensions included."""

    name: ClassVar[str] = "fold-reshape-shape"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Reshape whose computed shape can be a constant, and those with one unknown dimension too many."""
        if model.graph.opset_imports.get("", 0) < SHAPE_IS_AN_INPUT_SINCE:
            return
        dims = Dimensions(model)
        for node in model.graph.all_nodes():
            if node.op_type != "Reshape" or node.domain not in STANDARD_DOMAINS:
                continue
            shape = node.inputs[1]
            if shape is None or constant_tensor(shape) is not None or shape.is_graph_input():
                continue
            elements = elements_of(shape, dims)
            if elements is None:
                continue
            target = _target(elements, node, dims)
            if target is None:
                yield Skip(node, "more than one dimension of its shape is unknown")
            elif reason := _why_no_gain(shape):
                yield Skip(node, reason)
            else:
                yield Site(node, match=(target, 0 not in elements))

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Gives the Reshape its constant shape, and lets go of the nodes that computed it."""
        node = site.node
        assert node is not None and isinstance(node.graph, ir.Graph)
        computed = node.inputs[1]
        assert computed is not None
        elements, copies = site.match
        target = add_initializer(node.graph, f"{node_id(node)}.shape", np.array(elements, np.int64))
        node.replace_input_with(1, target)
        if copies:
            node.attributes.pop("allowzero", None)
        remove_unused([computed])
        return None


def elements_of(value: ir.Value, dims: Dimensions, depth: int = MAX_DEPTH) -> tuple[_Element, ...] | None:
    """The elements of an integer vector, None for those that are unknown; None if not even their number is known.

    Args:
        value: The vector.
        dims: What is known of the model.
        depth: How many nodes back to follow it.
    """
    length = value.shape[0] if value.shape is not None and len(value.shape) == 1 else None
    # One that is joined with itself over and over would be looked at as often as it has elements, or would have.
    if isinstance(length, int) and not 0 < length <= MAX_ELEMENTS:
        return () if length == 0 else None
    if (known := dims.elements(value)) is not None:
        return known
    node = value.producer()
    if node is not None and node.domain in STANDARD_DOMAINS and depth > 0:
        if node.op_type == "Concat" and (joined := _joined(node.inputs, dims, depth - 1)) is not None:
            return joined
        if node.op_type in ("Cast", "Identity"):
            source = node.inputs[0]
            if source is not None and source.dtype in (ir.DataType.INT32, ir.DataType.INT64):
                return elements_of(source, dims, depth - 1)
    return (None,) * length if isinstance(length, int) else None


def _joined(parts: Sequence[ir.Value | None], dims: Dimensions, depth: int) -> tuple[_Element, ...] | None:
    """The elements of vectors one after the other; None as soon as there is one of unknown length."""
    joined: list[_Element] = []
    for part in parts:
        elements = None if part is None else elements_of(part, dims, depth)
        if elements is None:
            return None
        joined.extend(elements)
    return tuple(joined)


def _target(elements: Sequence[_Element], node: ir.Node, dims: Dimensions) -> list[int] | None:
    """A constant shape that asks for the same, or None."""
    before = dims.of(node.inputs[0])
    # With allowzero, a 0 is a 0: as long as there is none, it makes no difference, and a copied 0 is what was asked for.
    copies = not node.attributes.get_int("allowzero", 0) or 0 not in elements
    target: list[int] = []
    invented = False
    for axis, element in enumerate(elements):
        if isinstance(element, int):
            target.append(element)
        elif copies and before is not None and axis < len(before) and before[axis] == element:
            target.append(0)
        else:
            target.append(-1)
            invented = True
    if target.count(-1) > 1 or not all(-1 <= number <= LARGEST for number in target):
        return None
    # Where a copied dimension is 0 when the model runs, runtimes refuse to say what -1 stands for.
    return None if invented and 0 in target else target


def _why_no_gain(shape: ir.Value) -> str | None:
    """Why what computes the shape would stay whatever becomes of the Reshape, or None."""
    if shape.is_graph_output() or any(use.node.op_type != "Reshape" or use.idx != 1 for use in shape.uses()):
        return "the nodes that compute its shape have other users"
    return None
