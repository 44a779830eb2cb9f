"""Operators whose arguments changed place between opsets, and the small forms most blocks use: reduce, split, reshape, linear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc.testing.channel_steps import ChannelBuilder, Shape, Size, Value

SUMS_BY_INPUT = 13
REDUCTIONS_BY_INPUT = 18
FEWEST = 3
"""Channels that blocks go on with."""


def reduce(graph: ChannelBuilder, op_type: str, value: Value, axes: Sequence[int], *, keepdims: bool = True) -> Value:
    """A reduction over some axes, which may be negative."""
    rank = len(value.shape)
    gone = {axis % rank for axis in axes}
    shape: Shape = tuple(1 if i in gone else s for i, s in enumerate(value.shape) if keepdims or i not in gone)
    options: dict[str, Any] = {} if keepdims and graph.chance(2) else {"keepdims": int(keepdims)}
    if graph.opset >= (SUMS_BY_INPUT if op_type == "ReduceSum" else REDUCTIONS_BY_INPUT):
        return graph.op(op_type, [value, graph.constant(list(axes))], shape, **options)
    return graph.op(op_type, [value], shape, axes=list(axes), **options)


def split(graph: ChannelBuilder, value: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    """Split into given sizes; equal ones may be left to the operator."""
    shapes = [replaced(value.shape, axis, size) for size in sizes]
    if len(set(sizes)) == 1 and graph.chance(2):
        extra: dict[str, Any] = {"num_outputs": len(sizes)} if graph.opset >= 18 else {}
        return graph.node("Split", [value], shapes, axis=axis, **extra)
    return graph.node("Split", [value, graph.constant(list(sizes))], shapes, axis=axis)


def replaced(shape: Shape, axis: int, size: Size) -> Shape:
    """The shape with another size on one axis."""
    sizes = list(shape)
    sizes[axis] = size
    return tuple(sizes)


def cut(graph: ChannelBuilder, value: Value, start: int, end: int, axis: int, *, step: int = 1) -> Value:
    """Slice of one axis of a known size; bounds may be negative, or beyond the end."""
    size = len(range(value.known(axis))[slice(start, end, step)])
    arguments = [graph.constant([start]), graph.constant([end]), graph.constant([axis])]
    if step != 1 or graph.chance(3):
        arguments.append(graph.constant([step]))
    return graph.op("Slice", [value, *arguments], replaced(value.shape, axis, size))


def reshape(graph: ChannelBuilder, value: Value, target: Sequence[int], shape: Shape) -> Value:
    """Reshape by constants, among them 0 and -1.

    Args:
        graph: Where.
        value: What.
        target: The argument of the operator.
        shape: What comes out.
    """
    return graph.op("Reshape", [value, graph.constant(list(target))], shape)


def dimension(graph: ChannelBuilder, value: Value, axis: int) -> Value:
    """The size of an axis as an int64 tensor of shape [1], computed at run time."""
    if graph.opset >= 15 and graph.chance(3):
        return graph.op("Shape", [value], (1,), dtype="int64", start=axis, end=axis + 1)
    shape = graph.op("Shape", [value], (len(value.shape),), dtype="int64")
    if graph.chance(2):
        return graph.op("Gather", [shape, graph.constant([axis])], (1,), dtype="int64", axis=0)
    if graph.chance(2):
        bounds = [graph.constant([axis]), graph.constant([axis + 1]), graph.constant([0])]
        return graph.op("Slice", [shape, *bounds], (1,), dtype="int64")
    one = graph.op("Gather", [shape, graph.constant(axis)], (), dtype="int64", axis=0)
    return graph.op("Unsqueeze", [one, graph.constant([0])], (1,), dtype="int64")


def computed_reshape(graph: ChannelBuilder, value: Value, parts: Sequence[int | Value], shape: Shape) -> Value:
    """Reshape by a vector that is put together at run time of constants and of dimensions."""
    pieces = [part if isinstance(part, Value) else graph.constant([part]) for part in parts]
    target = graph.op("Concat", pieces, (len(pieces),), dtype="int64", axis=0)
    graph.note("computed shape")
    return graph.op("Reshape", [value, target], shape)


def transpose(graph: ChannelBuilder, value: Value, order: Sequence[int]) -> Value:
    """Transpose."""
    return graph.op("Transpose", [value], tuple(value.shape[axis] for axis in order), perm=list(order))


def unsqueeze(graph: ChannelBuilder, value: Value, axis: int) -> Value:
    """One more axis of size 1, at a place that is not negative."""
    shape = (*value.shape[:axis], 1, *value.shape[axis:])
    return graph.op("Unsqueeze", [value, graph.constant([axis])], shape)


def squeeze(graph: ChannelBuilder, value: Value, *axes: int) -> Value:
    """Without axes of size 1, given as not negative."""
    shape = tuple(size for axis, size in enumerate(value.shape) if axis not in axes)
    return graph.op("Squeeze", [value, graph.constant(list(axes))], shape)


def concat(graph: ChannelBuilder, values: Sequence[Value], axis: int) -> Value:
    """Concat on an axis of known sizes."""
    total = sum(value.known(axis) for value in values)
    return graph.op("Concat", list(values), replaced(values[0].shape, axis, total), axis=axis)


def linear(graph: ChannelBuilder, value: Value, width: int, *, bias: bool | None = None) -> Value:
    """A linear layer on the last axis: MatMul and Add, Gemm, or Gemm between two Reshapes."""
    inner = value.known(-1)
    with_bias = bias if bias is not None else not graph.chance(3)
    if len(value.shape) == 2 and graph.chance(2):
        graph.note("linear as Gemm")
        return gemm(graph, value, width, bias=with_bias)
    if len(value.shape) == 3 and value.sizes(1) is not None and graph.chance(4):
        graph.note("linear as Reshape, Gemm, Reshape")
        flat = reshape(graph, value, [-1, inner], ("rows", inner))
        product = gemm(graph, flat, width, bias=with_bias)
        return reshape(graph, product, [-1, value.known(1), width], (*value.shape[:-1], width))
    graph.note("linear as MatMul")
    product = graph.op("MatMul", [value, graph.matrix((inner, width), inner)], (*value.shape[:-1], width))
    if not with_bias:
        return product
    addend = graph.weight((width,), "bias")
    return graph.binary("Add", *((product, addend) if graph.chance(2) else (addend, product)))


def gemm(graph: ChannelBuilder, value: Value, width: int, *, bias: bool) -> Value:
    """Gemm on a matrix, its weight as it is or transposed, with factors at times."""
    inner, transposed = value.known(-1), graph.choices.integer(0, 1)
    weight = graph.matrix((width, inner) if transposed else (inner, width), inner)
    attributes: dict[str, Any] = {"transB": 1} if transposed else {}
    if graph.chance(3):
        attributes["alpha"] = graph.choices.pick((0.5, 1.5))
    addend = None
    if bias:
        addend = graph.weight(graph.choices.pick(((width,), (1, width))), "bias")
        if graph.chance(4):
            attributes["beta"] = 0.5
    return graph.op("Gemm", [value, weight, addend], (value.shape[0], width), **attributes)


def trimmed(graph: ChannelBuilder, value: Value) -> Value:
    """The value, projected if it has more channels than networks here go on with, or hardly any."""
    if FEWEST <= value.width <= graph.limits.width:
        return value
    width = graph.other_width()
    if value.layout != "image":
        return linear(graph, value, width)
    weight = graph.matrix((width, value.width, 1, 1), value.width)
    return graph.op("Conv", [value, weight, graph.optional_bias(width)], (value.shape[0], width, *value.shape[2:]))
