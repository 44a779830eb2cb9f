"""The parts of attention: values split into heads and merged, packed projections, repeated keys, rotary positions, masks."""

from __future__ import annotations

import numpy as np

from irc.testing.channel_steps import ONNX_TYPES, ChannelBuilder, Size, Value
from irc.testing.channel_steps_forms import (
    computed_reshape,
    concat,
    cut,
    dimension,
    linear,
    reshape,
    split,
    squeeze,
    transpose,
    unsqueeze,
)

LONGEST = 128
"""Positions in tables that are cut to the length at hand."""


def to_heads(graph: ChannelBuilder, value: Value, heads: int) -> Value:
    """[N, T, h*d] as [N, h, T, d], the shape static, with an open size, or computed."""
    turned = split_heads(graph, value, heads)
    return transpose(graph, turned, (0, 2, 1, 3))


def split_heads(graph: ChannelBuilder, value: Value, heads: int) -> Value:
    """[N, T, h*d] as [N, T, h, d]."""
    depth = value.width // heads
    shape = (*value.shape[:2], heads, depth)
    length = value.sizes(1)
    form = graph.choices.integer(0, 4)
    if form == 0:
        return reshape(graph, value, [0, 0, heads, depth], shape)
    if form == 1:
        return reshape(graph, value, [0, 0, -1, depth] if graph.chance(2) else [0, 0, heads, -1], shape)
    if form == 2 and length is not None:
        return reshape(graph, value, [-1, *length, heads, depth], shape)
    if form == 3:
        return reshape(graph, value, [0, -1, heads, depth], shape)
    parts: list[int | Value] = [dimension(graph, value, 0), dimension(graph, value, 1), heads, depth]
    if graph.chance(3):
        parts[graph.choices.integer(1, 3)] = -1
    return computed_reshape(graph, value, parts, shape)


def from_heads(graph: ChannelBuilder, value: Value) -> Value:
    """[N, h, T, d] as [N, T, h*d]."""
    return merge_heads(graph, transpose(graph, value, (0, 2, 1, 3)))


def merge_heads(graph: ChannelBuilder, value: Value) -> Value:
    """[N, T, h, d] as [N, T, h*d]."""
    width = value.known(2) * value.known(3)
    shape, form = (*value.shape[:2], width), graph.choices.integer(0, 2)
    if form == 0:
        return reshape(graph, value, [0, 0, width] if graph.chance(2) else [0, 0, -1], shape)
    length = value.sizes(1)
    if form == 1 and length is not None:
        return reshape(graph, value, [-1, *length, width], shape)
    last = graph.choices.pick((width, -1))
    parts: list[int | Value] = [dimension(graph, value, 0), dimension(graph, value, 1), last]
    return computed_reshape(graph, value, parts, shape)


def packed(graph: ChannelBuilder, value: Value, heads: int, depth: int) -> list[Value]:
    """Queries, keys and values of one layer, each [N, h, T, d]."""
    made = linear(graph, value, 3 * heads * depth)
    form = graph.choices.integer(0, 3)
    if form == 0:
        graph.note("packed, Split")
        parts = split(graph, made, [heads * depth] * 3, graph.choices.pick((2, -1)))
        return [to_heads(graph, part, heads) for part in parts]
    if form == 1:
        graph.note("packed within each head")
        turned = to_heads(graph, made, heads)
        return split(graph, turned, [depth] * 3, 3)
    graph.note("packed, Reshape to three")
    shape: tuple[Size, ...] = (*value.shape[:2], 3, heads, depth)
    apart = reshape(graph, made, [0, 0, 3, heads, depth], shape)
    turned = transpose(graph, apart, (2, 0, 3, 1, 4))
    if form == 2:
        indices = [graph.constant(index) for index in range(3)]
        return [graph.op("Gather", [turned, index], turned.shape[1:], axis=0) for index in indices]
    return [squeeze(graph, part, 0) for part in split(graph, turned, [1, 1, 1], 0)]


def repeated(graph: ChannelBuilder, value: Value, times: int) -> Value:
    """Keys or values [N, h, T, d] for `times` as many heads of queries."""
    heads, depth = value.known(1), value.known(3)
    shape = (value.shape[0], heads, times, *value.shape[2:])
    inner = unsqueeze(graph, value, 2)
    if graph.chance(3):
        graph.note("heads repeated by Tile")
        inner = graph.op("Tile", [inner, graph.constant([1, 1, times, 1, 1])], shape)
    else:
        graph.note("heads repeated by Expand")
        target = graph.constant([1, 1, times, 1, 1])
        if graph.chance(3):
            parts = [dimension(graph, value, 0), graph.constant([heads, times]), dimension(graph, value, 2)]
            target = graph.op("Concat", [*parts, graph.constant([depth])], (5,), dtype="int64", axis=0)
        inner = graph.op("Expand", [inner, target], shape)
    after = (value.shape[0], heads * times, *value.shape[2:])
    length = value.sizes(2)
    if length is not None and graph.chance(3):
        return reshape(graph, inner, [-1, heads * times, *length, depth], after)
    return reshape(graph, inner, [0, heads * times, -1, depth], after)


def rotary_tables(graph: ChannelBuilder, value: Value) -> list[Value]:
    """Cosines and sines [T, d] or [1, 1, T, d] for a value [N, h, T, d]."""
    depth, length = value.known(3), value.sizes(2)
    size = length[0] if length is not None else LONGEST
    frequencies = 1.0 / 100.0 ** (np.arange(0, depth, 2) / depth)
    angles = np.concatenate([np.outer(np.arange(size), frequencies)] * 2, axis=1)
    if length is not None:
        tables = [graph.constant(table, "float32") for table in (np.cos(angles), np.sin(angles))]
    else:
        shape, end = (value.shape[2], depth), dimension(graph, value, 2)
        tables = []
        for table in (np.cos(angles), np.sin(angles)):
            bounds = [graph.constant([0]), end, graph.constant([0])]
            tables.append(graph.op("Slice", [graph.constant(table, "float32"), *bounds], shape))
    if graph.chance(2):
        tables = [unsqueeze(graph, unsqueeze(graph, table, 0), 1) for table in tables]
    return tables


def rotated(graph: ChannelBuilder, value: Value, tables: list[Value]) -> Value:
    """Rotary positions: x cos + rotate_half(x) sin."""
    depth = value.known(3)
    half = depth // 2
    if graph.chance(2):
        one, other = cut(graph, value, 0, half, 3), cut(graph, value, half, 2**31 - 1, 3)
    else:
        one, other = split(graph, value, [half, half], -1)
    turned = concat(graph, [graph.unary("Neg", other), one], -1)
    return graph.binary("Add", graph.binary("Mul", value, tables[0]), graph.binary("Mul", turned, tables[1]))


def causal(graph: ChannelBuilder, scores: Value) -> Value:
    """A bool [T, T], true where a query may look: a table, or computed from the length."""
    length = scores.shape[2]
    if isinstance(length, int) and graph.chance(2):
        return graph.constant(np.tril(np.ones((length, length), bool)), "bool")
    steps = graph.op("Squeeze", [dimension(graph, scores, 2), graph.constant([0])], (), dtype="int64")
    if graph.chance(2) and graph.opset >= 14:
        size = dimension(graph, scores, 2)
        both = graph.op("Concat", [size, size], (2,), dtype="int64", axis=0)
        one = graph.op("Expand", [graph.constant([[1]]), both], (length, length), dtype="int64")
        lower = graph.op("Trilu", [one], (length, length), upper=0)
        return graph.op("Cast", [lower], lower.shape, dtype="bool", to=ONNX_TYPES["bool"])
    limits = [graph.constant(0), steps, graph.constant(1)]
    positions = graph.op("Range", limits, (length,), dtype="int64")
    rows, columns = unsqueeze(graph, positions, 1), unsqueeze(graph, positions, 0)
    if graph.opset >= 16 and graph.chance(2):
        return graph.op("LessOrEqual", [columns, rows], (length, length), dtype="bool")
    later = graph.op("Greater", [columns, rows], (length, length), dtype="bool")
    return graph.unary("Not", later)
