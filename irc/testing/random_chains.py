"""Steps with two or three operators in a row that one could do, or none: cuts, joins, paddings, selections, shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from irc.testing.random_graph import GraphBuilder, Shape, Step, Value
from irc.testing.random_patterns import MISSES, Pattern, whole

MOVABLE = ("float32", "float16", "float64", "int64", "int32")


def _slices(graph: GraphBuilder) -> None:
    """Two or three, along equal axes or not, from either end, with and without steps."""
    value = graph.find(lambda v: v.dtype in MOVABLE and any(isinstance(s, int) and s > 2 for s in v.shape))
    if value is None:
        return
    pattern, count = Pattern(graph), graph.choices.integer(2, 3)
    for index in range(count):
        fitting = [axis for axis, size in enumerate(value.shape) if isinstance(size, int) and size > 1]
        if not fitting:
            return
        axis = graph.choices.pick(fitting)
        size = value.shape[axis]
        assert isinstance(size, int)
        start = graph.choices.pick((0, 1, -2, -size))
        end = graph.choices.pick((size, -1, 2**62, size + 5))
        step = graph.choices.pick((1, 1, 1, 2))
        if graph.chance(8):
            start, end, step = size, -(2**62), -1
        length = len(range(size)[start:end:step])
        if length == 0:
            return
        shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
        axes = graph.constant([axis - len(value.shape) if graph.chance(2) else axis])
        steps = [graph.constant([step])] if step != 1 or graph.chance(2) else []
        inputs = [value, graph.constant([start]), graph.constant([end]), axes, *steps]
        value = pattern.node("Slice", inputs, shape, exact=True, last=index == count - 1)


def _concats(graph: GraphBuilder) -> None:
    """One of another, along the same axis or nearly."""
    value = graph.find(lambda v: v.dtype in MOVABLE and len(v.shape) > 0 and whole(v.shape[1:]) is not None)
    if value is None:
        return
    pattern, rank = Pattern(graph), len(value.shape)
    axis = rank - 1
    size = value.shape[axis]
    if not isinstance(size, int) or size > 8:
        return
    other = graph.find(lambda v: (v.dtype, v.shape) == (value.dtype, value.shape)) or value
    parts = [value, other] if graph.chance(2) else [other, value, value]
    inner = pattern.node("Concat", parts, (*value.shape[:-1], size * len(parts)), exact=True, axis=axis)
    if pattern.nearly(True, False) or rank < 2 or not isinstance(value.shape[-2], int):
        three = [inner, other] if graph.chance(2) else [other, inner]
        shape: Shape = (*value.shape[:-1], size * (len(parts) + 1))
        pattern.node("Concat", three, shape, exact=True, last=True, axis=pattern.either(-1, axis))
    else:
        shape = (*value.shape[:-2], 2 * value.shape[-2], size * len(parts))
        pattern.node("Concat", [inner, inner], shape, exact=True, last=True, axis=rank - 2)


def _pads(graph: GraphBuilder) -> None:
    """Two or three, with equal values and modes or nearly, seldom negative."""
    value = graph.find(lambda v: v.dtype in ("float32", "float64", "int64", "int32") and whole(v.shape[1:]) is not None)
    if value is None or not value.shape:
        return
    pattern, rank, mode = Pattern(graph), len(value.shape), graph.choices.pick(("constant", "constant", "edge"))
    fill = graph.choices.pick((0, 0, 1))
    last_size = value.shape[-1]
    if not isinstance(last_size, int) or last_size < 1:
        return
    for index in range(2):
        front, back = graph.choices.pick(((1, 0), (0, 2), (1, 1), (-1, 2) if last_size > 1 else (1, 0)))
        pads = np.zeros(2 * rank, int)
        pads[rank - 1], pads[-1] = front, back
        last_size += front + back
        inputs = [value, graph.constant(pads)]
        if (number := pattern.nearly(fill, 2)) or graph.chance(2):
            inputs.append(graph.constant(number, value.dtype))
        shape = (*value.shape[:-1], last_size)
        kind = pattern.nearly(mode, "edge", "constant")
        value = pattern.node("Pad", inputs, shape, exact=True, last=index == 1, mode=kind)


def _taken_apart(graph: GraphBuilder) -> None:
    """Split or Slice, and Concat that undoes it, or the reverse; parts missing, swapped, or of other sizes."""
    value = graph.find(lambda v: v.dtype in MOVABLE and bool(v.shape) and v.shape[-1] in (3, 4, 6))
    if value is None:
        return
    pattern, size = Pattern(graph), value.shape[-1]
    assert isinstance(size, int)
    rank, rows = len(value.shape), value.shape[:-1]
    first = graph.choices.integer(1, size - 1)
    sizes = [first, size - first]
    if graph.chance(2):
        if graph.chance(2):
            parts = _split(graph, value, sizes, rows)
        else:
            limits = [(0, first), (pattern.nearly(first, first - 1), pattern.either(size, 2**62))]
            parts = [_cut(pattern, value, start, end) for start, end in limits]
        axis = rank - 1
        order = pattern.nearly(parts, parts[::-1], [parts[0], parts[0], parts[1]])
        total = sum(part.shape[-1] for part in order if isinstance(part.shape[-1], int))
        pattern.node("Concat", order, (*rows, total), exact=True, last=True, axis=axis)
        return
    other = graph.find(lambda v: (v.dtype, v.shape) == (value.dtype, value.shape)) or value
    joined = pattern.node("Concat", [value, other], (*rows, 2 * size), exact=True, axis=pattern.either(-1, rank - 1))
    if graph.chance(2):
        _split(graph, joined, pattern.nearly([size, size], [size + 1, size - 1]), rows)
    else:
        start = pattern.either(0, size)
        _cut(pattern, joined, start, pattern.nearly(start + size, start + size - 1), last=True)


def _split(graph: GraphBuilder, value: Value, sizes: list[int], rows: Shape) -> list[Value]:
    faces = [(value.dtype, (*rows, size)) for size in sizes]
    return graph.add("Split", [value, graph.constant(sizes)], faces, exact=True, axis=-1)


def _cut(pattern: Pattern, value: Value, start: int, end: int, *, last: bool = False) -> Value:
    size = value.shape[-1]
    assert isinstance(size, int)
    bounds = [pattern.graph.constant([number]) for number in (start, end, -1)]
    shape = (*value.shape[:-1], len(range(size)[start:end]))
    return pattern.node("Slice", [value, *bounds], shape, exact=True, last=last)


def _selection(graph: GraphBuilder) -> None:
    """Where of a known condition or of two equal values, Gather of all there is, or nearly."""
    value = graph.find(lambda v: v.dtype in MOVABLE and bool(v.shape) and whole(v.shape[-1:]) is not None)
    if value is None:
        return
    pattern, size = Pattern(graph), value.shape[-1]
    assert isinstance(size, int)
    other = graph.find(lambda v: (v.dtype, v.shape) == (value.dtype, value.shape)) or value
    how = pattern.either("known", "equal", "gather")
    if how == "gather":
        index: Any = list(range(size))
        index = pattern.nearly(index, index[::-1], [i - size for i in index], [0] * size)
        pattern.node("Gather", [value, graph.constant(index)], exact=True, last=True, axis=len(value.shape) - 1)
    elif how == "known":
        condition = np.full(pattern.either((), (1,), (size,)), pattern.either(True, False))
        if condition.shape == (size,) and graph.chance(4):
            condition[0] = not condition[0]
        inputs = [graph.constant(condition, "bool"), value, other]
        pattern.node("Where", inputs, value.shape, dtype=value.dtype, exact=True, last=True)
    else:
        shape = value.shape
        condition_value = graph.find(lambda v: v.dtype == "bool" and v.shape in ((), shape))
        if condition_value is None:
            return
        inputs = [condition_value, value, pattern.nearly(value, other)]
        pattern.node("Where", inputs, value.shape, dtype=value.dtype, exact=True, last=True)


def _computed_shape(graph: GraphBuilder) -> None:
    """Reshape by arithmetic on dimensions: picked one by one, cut out, multiplied, divided; zeros allowed or not."""
    value = graph.find(lambda v: v.dtype in MOVABLE and len(v.shape) >= 2 and whole(v.shape[1:]) is not None)
    if value is None:
        return
    pattern, rank = Pattern(graph), len(value.shape)
    sizes = whole(value.shape[1:]) or ()
    rest = math.prod(sizes)
    shape = pattern.node("Shape", [value], (rank,), dtype="int64", exact=True)

    def dim(axis: int) -> Value:
        index = graph.constant(axis)
        single = pattern.node("Gather", [shape, index], (), exact=True)
        return pattern.node("Unsqueeze", [single, graph.constant([0])], (1,), exact=True)

    batch = dim(0) if graph.chance(2) else _cut(pattern, shape, 0, 1)
    last = dim(rank - 1)
    half = sizes[-1] % 2 == 0
    how = pattern.either("joined", "split", "product", "same")
    target: list[Value]
    if how == "split" and half:
        two = graph.constant([2])
        by = pattern.either(2, -1)
        target = [batch, *(dim(axis) for axis in range(1, rank - 1))]
        quotient = pattern.node("Div", [last, two], exact=True)
        target += [graph.constant([2]), quotient] if by == 2 else [quotient, graph.constant([-1])]
        tail = (2, sizes[-1] // 2) if by == 2 else (sizes[-1] // 2, 2)
        made: Shape = (*value.shape[:-1], *tail)
    elif how == "product" and rank == 2 and isinstance(value.shape[0], int):
        target = [pattern.joined("Mul", batch, last)]
        made = (value.shape[0] * rest,)
    elif how == "same":
        target = [batch, *(dim(axis) for axis in range(1, rank))]
        made = value.shape
    else:
        target = [batch, pattern.either(graph.constant([-1]), graph.constant([rest]))]
        made = (value.shape[0], rest)
    whole_shape = pattern.node("Concat", target, (len(target),), exact=True, axis=0)
    zeros = {"allowzero": 1} if graph.opset >= 14 and graph.chance(3) else {}
    pattern.node("Reshape", [value, whole_shape], made, dtype=value.dtype, exact=True, last=True, **zeros)


def _reshaped_transpose(graph: GraphBuilder) -> None:
    """Dimensions joined, turned, and split again; or split otherwise than they were joined."""
    value = graph.find(lambda v: v.dtype in MOVABLE and len(v.shape) in (3, 4) and whole(v.shape[1:]) is not None)
    if value is None:
        return
    pattern = Pattern(graph)
    sizes = list(value.shape)
    if len(sizes) == 3:
        batch, a, b = sizes
        joined: Shape = (batch, a * b) if isinstance(a, int) and isinstance(b, int) else ()
        turned: Shape = joined[::-1]
        end: Shape = (a, b, batch)
        first, last, perm = [0, -1], [a, b, -1], [1, 0]
    else:
        batch, a, b, c = sizes
        assert isinstance(a, int) and isinstance(b, int) and isinstance(c, int)
        joined, perm = (batch, a, b * c), [0, 2, 1]
        turned, end = (batch, b * c, a), (batch, b, c, a)
        first, last = [0, a, b * c], [0, b, c, a]
    one = pattern.node("Reshape", [value, graph.constant(first)], joined, exact=True)
    two = pattern.node("Transpose", [one], turned, exact=True, perm=perm)
    swapped = graph.chance(6)
    if swapped:
        i = 1 if len(sizes) == 4 else 0
        last[i], last[i + 1] = last[i + 1], last[i]
        swap = list(end)
        swap[i], swap[i + 1] = swap[i + 1], swap[i]
        end = tuple(swap)
    pattern.node("Reshape", [two, graph.constant(last)], end, exact=True, last=True)


def _double_negation(graph: GraphBuilder) -> None:
    value = graph.find(lambda v: v.is_float or v.dtype in ("bool", "int64", "int32"))
    if value is not None:
        pattern, op_type = Pattern(graph), "Not" if value.dtype == "bool" else "Neg"
        inner = pattern.node(op_type, [value], exact=True)
        pattern.node(pattern.nearly(op_type, "Identity"), [inner], exact=True, last=True)


def _dropout(graph: GraphBuilder) -> None:
    """Of inference: its mask seldom used, its arguments missing or not."""
    value = graph.any_float()
    if value is None:
        return
    ratio = graph.constant(graph.choices.pick((0.5, 0.0)), "float32")
    options: list[list[Value | str]] = [[value], [value, ratio], [value, "", graph.constant(False, "bool")]]
    mask = ("bool", value.shape) if graph.chance(MISSES) else None
    faces = [(value.dtype, value.shape), mask] if mask else [(value.dtype, value.shape)]
    graph.add("Dropout", graph.choices.pick(options), faces, exact=True)


def _cast_like(graph: GraphBuilder) -> None:
    """A number in the type of a value, and their sum."""
    value = graph.any_float()
    if value is None or graph.opset < 15:
        return
    pattern = Pattern(graph)
    number = pattern.node("CastLike", [graph.constant(2.0, "float32"), value], dtype=value.dtype, exact=True)
    pattern.joined("Add", value, number, last=True)


CHAINS: tuple[Step, ...] = (
    _slices,
    _slices,
    _concats,
    _pads,
    _pads,
    _taken_apart,
    _taken_apart,
    _selection,
    _computed_shape,
    _computed_shape,
    _reshaped_transpose,
    _double_negation,
    _dropout,
    _cast_like,
)
