"""The parts in which layer normalization and its sibling without a mean are written out.

root        Sqrt(v) | Pow(v, 0.5)
quotient    Div(a, root) | Mul(a, Reciprocal(root)) | Mul(a, Div(1, root)) | Mul(a, Pow(v, -0.5))
power       ReduceMean(Pow(d, 2) | Mul(d, d), last axes) + epsilon
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import onnx_ir as ir

from irc.ir import constant
from irc.passes.fusion.composite import either_way, producer_of, two_inputs
from irc.passes.fusion.scalars import rank_of, scalar

AXES_ARE_INPUTS_SINCE = 18


@dataclasses.dataclass(frozen=True, eq=False)
class Quotient:
    """Something divided by the root of its own power.

    Attributes:
        numerator: What is divided.
        squared: What the power is of.
        epsilon: What is added to the power.
        axes: How many of the last axes the power is taken over.
        nodes: The nodes it is made by.
    """

    numerator: ir.Value
    squared: ir.Value
    epsilon: float
    axes: int
    nodes: tuple[ir.Node, ...]


def quotients(value: ir.Value, opset: int) -> Iterator[Quotient]:
    """The ways in which a value is something over the root of a power; one at most, but for contrived graphs."""
    for numerator, power, nodes in _over_root(value):
        added = producer_of(power, "Add")
        for mean, epsilon in either_way(added) if added is not None else ():
            number = scalar(epsilon, rank_of(mean))
            reduced = producer_of(mean, "ReduceMean")
            squared = square(reduced.inputs[0]) if reduced is not None else None
            axes = reduced_axes(reduced, opset) if reduced is not None else None
            if number is None or number < 0 or reduced is None or squared is None or axes is None or added is None:
                continue
            yield Quotient(numerator, squared[0], number, axes, (*nodes, added, reduced, squared[1]))


def _over_root(value: ir.Value) -> Iterator[tuple[ir.Value, ir.Value, tuple[ir.Node, ...]]]:
    """What is divided, what the root is taken of, and the nodes."""
    node = producer_of(value, "Div", "Mul")
    for a, b in () if node is None else either_way(node)[:1] if node.op_type == "Div" else either_way(node):
        assert node is not None
        found = _root(b) if node.op_type == "Div" else _inverse_root(b)
        if found is not None:
            yield a, found[0], (node, *found[1])


def _root(value: ir.Value | None) -> tuple[ir.Value, tuple[ir.Node, ...]] | None:
    node = producer_of(value, "Sqrt", "Pow")
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Pow" and scalar(node.inputs[1], rank_of(node.inputs[0])) != 0.5:
        return None
    return node.inputs[0], (node,)


def _inverse_root(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]] | None:
    node = producer_of(value, "Reciprocal", "Div", "Pow")
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Pow":
        exponent = scalar(node.inputs[1], rank_of(node.inputs[0]))
        return (node.inputs[0], (node,)) if exponent == -0.5 else None
    root = _root(node.inputs[-1])
    if root is None or (node.op_type == "Div" and scalar(node.inputs[0], rank_of(root[0])) != 1.0):
        return None
    return root[0], (node, *root[1])


def square(value: ir.Value | None) -> tuple[ir.Value, ir.Node] | None:
    """What a value is the square of, and the node that squares."""
    node = producer_of(value, "Pow", "Mul")
    pair = two_inputs(node) if node is not None else None
    if node is None or pair is None:
        return None
    squares = pair[0] is pair[1] if node.op_type == "Mul" else scalar(pair[1], rank_of(pair[0])) == 2.0
    return (pair[0], node) if squares else None


def reduced_axes(node: ir.Node, opset: int) -> int | None:
    """How many of the last axes a reduction that keeps them takes; None if it takes others or they are not known."""
    rank = _rank_behind(node.inputs[0])
    if rank is None or node.attributes.get_int("keepdims", 1) != 1:
        return None
    axes: tuple[int, ...] | None
    if opset < AXES_ARE_INPUTS_SINCE:
        axes = tuple(node.attributes.get_ints("axes", ()))
    elif len(node.inputs) < 2 or node.inputs[1] is None:
        axes = ()
    else:
        array = constant(node.inputs[1])
        axes = None if array is None else tuple(int(axis) for axis in array.reshape(-1))
    if axes is None or (not axes and node.attributes.get_int("noop_with_empty_axes", 0) != 0):
        return None
    taken = sorted({axis % rank for axis in axes}) if rank and axes else list(range(rank))
    return len(taken) if taken and taken == list(range(rank - len(taken), rank)) else None


def _rank_behind(value: ir.Value | None) -> int | None:
    """The rank of a value, or of what it is made from elementwise: in bodies, inference may not get further."""
    for _ in range(3):
        if (rank := rank_of(value)) is not None:
            return rank
        node = producer_of(value, "Pow", "Mul", "Sub", "Cast")
        value = node.inputs[0] if node is not None else None
    return None


def same_tensor(a: ir.Value, b: ir.Value) -> bool:
    """Whether two values are one, or two equal Casts of one."""
    if a is b:
        return True
    first, second = producer_of(a, "Cast"), producer_of(b, "Cast")
    return (
        first is not None
        and second is not None
        and first.inputs[0] is second.inputs[0]
        and a.dtype == b.dtype is not None
    )


def centered(value: ir.Value, opset: int) -> tuple[ir.Value, int, tuple[ir.Node, ...]] | None:
    """What a value is without its mean, over how many axes, and the nodes."""
    difference = producer_of(value, "Sub")
    pair = two_inputs(difference) if difference is not None else None
    mean = producer_of(pair[1], "ReduceMean") if pair is not None else None
    if difference is None or pair is None or mean is None or mean.inputs[0] is None:
        return None
    axes = reduced_axes(mean, opset)
    if axes is None or not same_tensor(mean.inputs[0], pair[0]):
        return None
    return pair[0], axes, (difference, mean)
