"""Blocks that move channels: cut, reordered, shuffled, padded, repeated, traded for positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.testing.channel_steps import Block, ChannelBuilder, Value
from irc.testing.channel_steps_activation import activation
from irc.testing.channel_steps_forms import (
    computed_reshape,
    concat,
    cut,
    dimension,
    reduce,
    replaced,
    reshape,
    split,
    transpose,
    trimmed,
    unsqueeze,
)
from irc.testing.channel_steps_joining import layer


def _split(graph: ChannelBuilder, value: Value) -> Value | None:
    """Unequal parts, each activated, put together in another order."""
    if value.width < 6:
        return None
    first = graph.choices.integer(1, value.width // 2 - 1)
    sizes = [first, value.width - 2 * first, first]
    axis = graph.choices.pick((value.axis, value.axis - len(value.shape)))
    one, other, third = split(graph, value, sizes, axis)
    return concat(graph, [activation(graph, third), one, graph.unary("Tanh", other)], axis)


def _slice(graph: ChannelBuilder, value: Value) -> Value | None:
    """A range of channels: bounds from the front or from the back."""
    width = value.width
    low, high = graph.choices.pick(((0, width - 2), (1, width), (1, width - 1), (width // 2, width)))
    start = graph.choices.pick((low, low - width if low else 0))
    end = graph.choices.pick((high, high - width if high < width else 2**31 - 1))
    return cut(graph, value, start, end, value.axis)


def _strided_slice(graph: ChannelBuilder, value: Value) -> Value | None:
    """Every second channel, or the channels backwards."""
    form = graph.choices.pick((2, 3, 0, 1, 0))
    if form == 0:
        graph.note("Slice backwards")
        return cut(graph, value, -1, -(2**31), value.axis, step=-1)
    if form == 1:
        even = cut(graph, value, 0, value.width, value.axis, step=2)
        odd = cut(graph, value, 1, value.width, value.axis, step=2)
        graph.note("Slice of even and odd")
        return concat(graph, [odd, even], value.axis)
    step = graph.choices.pick((2, 3) if value.width >= 8 else (2,))
    return trimmed(graph, layer(graph, cut(graph, value, form - 2, value.width, value.axis, step=step), 8))


def _gather(graph: ChannelBuilder, value: Value) -> Value | None:
    """Channels by constant indices: reordered, dropped, or some of them twice."""
    width, generator = value.width, np.random.default_rng(graph.choices.integer(0, 2**16))
    form = graph.choices.integer(0, 2)
    if form == 0:
        indices = generator.permutation(width)
    elif form == 1:
        indices = generator.permutation(width)[: max(2, width - 2)]
    else:
        indices = generator.integers(0, width, width)
    if graph.chance(4):
        indices = indices - width
    axis = graph.choices.pick((value.axis, value.axis - len(value.shape)))
    shape = replaced(value.shape, value.axis, len(indices))
    return graph.op("Gather", [value, graph.constant(indices)], shape, axis=axis)


def _padded_channels(graph: ChannelBuilder, value: Value) -> Value | None:
    """Zero channels before or after, as in shortcuts without weights."""
    before, after = graph.choices.pick(((0, 3), (2, 0), (1, 2)))
    return trimmed(graph, _pad(graph, value, {value.axis: (before, after)}, value.width + before + after))


def _pad(graph: ChannelBuilder, value: Value, amounts: dict[int, tuple[int, int]], width: int, **extra: Any) -> Value:
    rank = len(value.shape)
    arguments = [graph.constant([amounts.get(axis, (0, 0))[end] for end in (0, 1) for axis in range(rank)])]
    if graph.chance(3) and not extra:
        arguments.append(graph.number(0.0))
    sizes = []
    for axis, size in enumerate(value.shape):
        more = sum(amounts.get(axis, (0, 0)))
        sizes.append(size + more if isinstance(size, int) else size)
    return graph.op("Pad", [value, *arguments], replaced(tuple(sizes), value.axis, width), **extra)


def _padded_positions(graph: ChannelBuilder, value: Value) -> Value | None:
    """Rows and columns around the image, and a convolution that takes them away."""
    spatial = value.sizes(2, 3)
    mode = graph.choices.pick(("constant", "reflect", "edge") if spatial is None or min(spatial) > 2 else ("constant",))
    extra = {} if mode == "constant" and graph.chance(2) else {"mode": mode}
    padded = _pad(graph, value, {2: (1, 1), 3: (1, 1)}, value.width, **extra)
    width = graph.other_width()
    weight = graph.matrix((width, value.width, 3, 3), 9 * value.width)
    return graph.op("Conv", [padded, weight, graph.optional_bias(width)], (value.shape[0], width, *value.shape[2:]))


def _repeated(graph: ChannelBuilder, value: Value) -> Value | None:
    """One channel, the mean of all or made by a layer, repeated as often as an affine map asks for."""
    one = reduce(graph, "ReduceMean", value, [value.axis]) if graph.chance(2) else layer(graph, value, 1)
    width = graph.other_width()
    factors = [1] * len(value.shape)
    factors[value.axis] = width
    shape = replaced(value.shape, value.axis, width)
    op_type = graph.choices.pick(("Tile", "Expand"))
    graph.note(f"one channel by {op_type}")
    wide = graph.op(op_type, [one, graph.constant(factors)], shape)
    return graph.binary("Mul", wide, graph.channel_vector(wide, "scale"))


def _tiled(graph: ChannelBuilder, value: Value) -> Value | None:
    """All channels twice."""
    factors = [1] * len(value.shape)
    factors[value.axis] = 2
    wide = graph.op("Tile", [value, graph.constant(factors)], replaced(value.shape, value.axis, 2 * value.width))
    return trimmed(graph, graph.binary("Add", wide, graph.channel_vector(wide, "bias")))


def _repeat_interleaved(graph: ChannelBuilder, value: Value) -> Value | None:
    """Each channel twice in a row: Unsqueeze, Expand, Reshape."""
    axis, rank = value.axis, len(value.shape)
    inner = unsqueeze(graph, value, axis + 1)
    factors = [1] * (rank + 1)
    factors[axis + 1] = 2
    wide = graph.op("Expand", [inner, graph.constant(factors)], replaced(inner.shape, axis + 1, 2))
    target = [0] * rank
    target[axis] = 2 * value.width
    sizes = value.shape[axis + 1 :]
    if sizes:
        known = value.sizes(*range(axis + 1, rank))
        if known is None:
            return _unless_known(graph, value, wide)
        target[axis + 1 :] = known
    return trimmed(graph, reshape(graph, wide, target, replaced(value.shape, axis, 2 * value.width)))


def _unless_known(graph: ChannelBuilder, value: Value, wide: Value) -> Value:
    parts = [
        dimension(graph, value, axis) if axis != value.axis else 2 * value.width for axis in range(len(value.shape))
    ]
    shape = replaced(value.shape, value.axis, 2 * value.width)
    return trimmed(graph, computed_reshape(graph, wide, parts, shape))


def _shuffled(graph: ChannelBuilder, value: Value) -> Value | None:
    """Channel shuffle of an image of known size."""
    groups, spatial = graph.divisor(value.width, (2, 3, 4)), value.sizes(2, 3)
    if groups is None or spatial is None or groups == value.width:
        return None
    members = value.width // groups
    apart = reshape(graph, value, [0, groups, members, *spatial], (value.shape[0], groups, members, *spatial))
    turned = transpose(graph, apart, (0, 2, 1, 3, 4))
    return reshape(graph, turned, [0, graph.choices.pick((-1, value.width)), *spatial], value.shape)


def _shuffled_sequence(graph: ChannelBuilder, value: Value) -> Value | None:
    """Channel shuffle on the last axis."""
    groups = graph.divisor(value.width, (2, 3, 4))
    if groups is None or groups == value.width:
        return None
    members = value.width // groups
    apart = reshape(graph, value, [0, 0, groups, members], (*value.shape[:2], groups, members))
    turned = transpose(graph, apart, (0, 1, 3, 2))
    return reshape(graph, turned, [0, 0, value.width], value.shape)


EVERYWHERE: dict[str, Block] = {
    "Split, unequal": _split,
    "Slice": _slice,
    "Slice with steps": _strided_slice,
    "Gather of channels": _gather,
    "Pad of channels": _padded_channels,
    "one channel repeated": _repeated,
    "channels tiled": _tiled,
    "channels interleaved": _repeat_interleaved,
}
IMAGE: dict[str, Block] = {"Pad of positions": _padded_positions, "shuffle": _shuffled}
SEQUENCE: dict[str, Block] = {"shuffle on a sequence": _shuffled_sequence}
