"""What Reshape, Flatten, Squeeze and Unsqueeze make of dimensions: the same elements in the same order, grouped anew.

Unsqueeze(x: [n, 4], axes=[1])      =>  [n, 1, 4]
Flatten(x: [n, 1, 4])               =>  [n, 4]
Reshape(x: [n, 6, 4], [0, 2, -1])   =>  [n, 2, 12]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from irc.passes.simplification.dimensions import Dim, Dimensions, Dims

REGROUPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that keep the elements and their order."""


def reshaped(node: ir.Node, before: Dims | None, dims: Dimensions, opset: int) -> Dims | None:
    """The dimensions of the output of one of `REGROUPING`, in those of its input where they are the same.

    Args:
        node: The operator.
        before: The dimensions of its input, perhaps known from further back.
        dims: What is known of the model.
        opset: The version of the model's operators.
    """
    made = None
    if before is not None:
        match node.op_type:
            case "Reshape":
                target, copies = target_of(node, dims, opset), not node.attributes.get_int("allowzero", 0)
                made = None if target is None else regrouped(before, target, node.outputs[0], copies=copies)
            case "Flatten":
                made = _flatten(node, before)
            case "Squeeze":
                made = _squeeze(before, axes_of(node, dims, opset))
            case "Unsqueeze":
                made = _unsqueeze(before, axes_of(node, dims, opset))
    return made if made is not None else dims.of(node.outputs[0])


def target_of(reshape: ir.Node, dims: Dimensions, opset: int) -> Dims | None:
    """The shape a Reshape asks for, 0 and -1 as they are."""
    return tuple(reshape.attributes.get_ints("shape", ())) if opset < 5 else dims.elements(reshape.inputs[1])


def axes_of(node: ir.Node, dims: Dimensions, opset: int) -> tuple[int, ...] | None:
    """The axes a Squeeze or Unsqueeze names, () for none; None if they are not constant."""
    if opset < 13:
        return tuple(node.attributes.get_ints("axes", ()))
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return ()
    axes = dims.elements(node.inputs[1])
    return None if axes is None else numbers(axes)


def numbers(dims: Dims) -> tuple[int, ...] | None:
    """The dimensions as numbers, or None if not all are known."""
    known = tuple(dim for dim in dims if isinstance(dim, int))
    return known if len(known) == len(dims) else None


def regrouped(before: Dims, target: Dims, output: ir.Value, *, copies: bool = True) -> Dims | None:
    """The dimensions that a Reshape to `target` gives; None if it fails.

    Args:
        before: The dimensions of its input.
        target: Its shape; -1 stands for the rest.
        output: Its output.
        copies: Whether 0 copies the dimension of the input.
    """
    if copies and any(dim == 0 and axis >= len(before) for axis, dim in enumerate(target)):
        return None
    made: list[Dim] = [before[axis] if dim == 0 and copies else dim for axis, dim in enumerate(target)]
    if -1 in made:
        axis = made.index(-1)
        rest = _quotient(before, made[:axis] + made[axis + 1 :])
        made[axis] = rest if rest is not None else (output, axis)
    return tuple(made)


def _quotient(before: Dims, rest: Sequence[Dim]) -> Dim | None:
    """The dimension that makes up the difference between two products, if it is a single one."""
    above, below = [d for d in before if not isinstance(d, int)], [d for d in rest if not isinstance(d, int)]
    for dim in list(below):
        if dim in above:
            above.remove(dim)
            below.remove(dim)
    size, part = (math.prod(d for d in dims if isinstance(d, int)) for dims in (before, rest))
    if below or not part or size % part:
        return None
    if not above:
        return size // part
    return above[0] if len(above) == 1 and size == part else None


def _flatten(node: ir.Node, before: Dims) -> Dims:
    axis = node.attributes.get_int("axis", 1)
    split = axis + len(before) if axis < 0 else axis
    products = [_quotient(part, []) for part in (before[:split], before[split:])]
    return tuple((node.outputs[0], side) if dim is None else dim for side, dim in enumerate(products))


def _squeeze(before: Dims, axes: tuple[int, ...] | None) -> Dims | None:
    if axes is None:
        return None
    if not axes:
        return tuple(dim for dim in before if dim != 1) if numbers(before) is not None else None
    if not before:
        return None
    gone = {axis % len(before) for axis in axes}
    return tuple(dim for axis, dim in enumerate(before) if axis not in gone)


def _unsqueeze(before: Dims, axes: tuple[int, ...] | None) -> Dims | None:
    if axes is None:
        return None
    rank = len(before) + len(axes)
    new, rest = {axis % rank for axis in axes}, iter(before)
    return tuple(1 if axis in new else next(rest) for axis in range(rank)) if len(new) == len(axes) else None
