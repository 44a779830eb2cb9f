"""Blocks that turn one layout into another: images into sequences and vectors, vectors into images, tokens into sequences."""

from __future__ import annotations

from irc.testing.channel_steps import Block, ChannelBuilder, Value
from irc.testing.channel_steps_forms import (
    computed_reshape,
    concat,
    dimension,
    linear,
    reduce,
    reshape,
    squeeze,
    transpose,
    unsqueeze,
)
from irc.testing.channel_steps_recurrence import last_state

LONGEST_FLAT = 400
"""Features of a flattened image at most."""


def _flattened(graph: ChannelBuilder, value: Value) -> Value | None:
    """Everything of an image or a sequence in one row, by Flatten or Reshape, and a linear layer."""
    sizes = value.sizes(*range(1, len(value.shape)))
    if sizes is None:
        return None
    total = 1
    for size in sizes:
        total *= size
    if total > LONGEST_FLAT:
        return None
    shape = (value.shape[0], total)
    form = graph.choices.integer(0, 2)
    if form == 0:
        flat = graph.op("Flatten", [value], shape, axis=1)
    elif form == 1:
        flat = reshape(graph, value, graph.choices.pick(([-1, total], [0, -1])), shape)
    else:
        flat = computed_reshape(graph, value, [dimension(graph, value, 0), -1], shape)
    return linear(graph, flat, graph.other_width())


def _pooled(graph: ChannelBuilder, value: Value) -> Value | None:
    """A global pool of an image: kept as 1x1 and flattened, or reduced."""
    shape = (value.shape[0], value.width)
    form = graph.choices.integer(0, 3)
    if form == 0:
        return reduce(graph, graph.choices.pick(("ReduceMean", "ReduceMax", "ReduceL2")), value, [2, 3], keepdims=False)
    op_type = graph.choices.pick(("GlobalAveragePool", "GlobalMaxPool"))
    pooled = graph.op(op_type, [value], (*shape, 1, 1))
    if form == 1:
        return graph.op("Flatten", [pooled], shape, axis=1)
    if form == 2:
        return squeeze(graph, pooled, 2, 3)
    return reshape(graph, pooled, graph.choices.pick(([0, -1], [-1, value.width])), shape)


def _patches(graph: ChannelBuilder, value: Value) -> Value | None:
    """Positions of an image as a sequence; a table of positions added and a class token put first, at times."""
    spatial, batch, width = value.sizes(2, 3), value.shape[0], value.width
    length = spatial[0] * spatial[1] if spatial is not None else f"{value.shape[2]}*{value.shape[3]}"
    if isinstance(length, int) and length > 64:
        return None
    if graph.chance(2):
        flat = reshape(graph, value, [0, graph.choices.pick((0, width)), -1], (batch, width, length))
        made = transpose(graph, flat, (0, 2, 1))
    else:
        last = transpose(graph, value, (0, 2, 3, 1))
        made = reshape(graph, last, [0, -1, width], (batch, length, width))
    if isinstance(length, int) and graph.chance(2):
        made = graph.binary("Add", made, graph.weight((1, length, width), "bias"))
    if isinstance(length, int) and graph.chance(3):
        graph.note("class token")
        parts = [dimension(graph, made, 0), graph.constant([1, width])]
        target = graph.op("Concat", parts, (3,), dtype="int64", axis=0)
        token = graph.op("Expand", [graph.weight((1, 1, width), "bias"), target], (batch, 1, width))
        made = concat(graph, [token, made], 1)
    return made


def _rows(graph: ChannelBuilder, value: Value) -> Value | None:
    """Columns of an image as positions, channels and rows as features."""
    spatial = value.sizes(2, 3)
    if spatial is None or value.width * spatial[0] > 2 * LONGEST_FLAT:
        return None
    rows, columns = spatial
    turned = transpose(graph, value, (0, 3, 1, 2))
    size = value.width * rows
    flat = reshape(graph, turned, [0, 0, graph.choices.pick((-1, size))], (value.shape[0], columns, size))
    return linear(graph, flat, graph.other_width())


def _summary(graph: ChannelBuilder, value: Value) -> Value | None:
    """One vector of a sequence: mean, maximum, first or last position, last state of a recurrent layer."""
    form, shape = graph.choices.pick((0, 1, 1, 2, 3, 4)), (value.shape[0], value.width)
    if form == 0:
        return reduce(graph, graph.choices.pick(("ReduceMean", "ReduceMax")), value, [1], keepdims=False)
    if form == 1:
        place = graph.choices.pick((0, -1))
        return graph.op("Gather", [value, graph.constant(place)], shape, axis=1)
    if form == 2:
        bounds = [graph.constant([0]), graph.constant([1]), graph.constant([1])]
        return squeeze(graph, graph.op("Slice", [value, *bounds], (value.shape[0], 1, value.width)), 1)
    if form == 3:
        return last_state(graph, value)
    weights = graph.op("Softmax", [linear(graph, value, 1)], (*value.shape[:2], 1), axis=1)
    turned = transpose(graph, weights, (0, 2, 1))
    return squeeze(graph, graph.op("MatMul", [turned, value], (value.shape[0], 1, value.width)), 1)


def _image_of_sequence(graph: ChannelBuilder, value: Value) -> Value | None:
    """A sequence as an image: of one row, or of the rows its length has."""
    turned = transpose(graph, value, (0, 2, 1))
    batch, width, length = turned.shape
    if isinstance(length, int) and length % 2 == 0 and graph.chance(2):
        return reshape(graph, turned, [0, 0, 2, length // 2], (batch, width, 2, length // 2))
    if isinstance(length, int):
        row = unsqueeze(graph, turned, 2)
        return graph.op("Pad", [row, graph.constant([0, 0, 1, 0, 0, 0, 1, 0])], (batch, width, 3, length))
    return graph.op("Tile", [unsqueeze(graph, turned, 2), graph.constant([1, 1, 4, 1])], (batch, width, 4, length))


def _image_of_vector(graph: ChannelBuilder, value: Value) -> Value | None:
    """A layer, and its features as a small image: the start of a generator."""
    width, (rows, columns) = graph.choices.pick((4, 6, 8)), graph.choices.pick(((4, 4), (4, 6), (2, 3)))
    wide = linear(graph, value, width * rows * columns)
    target = graph.choices.pick(([-1, width, rows, columns], [0, width, rows, columns], [0, -1, rows, columns]))
    return reshape(graph, wide, target, (value.shape[0], width, rows, columns))


def _sequence_of_vector(graph: ChannelBuilder, value: Value) -> Value | None:
    """A vector as a sequence: its features cut into positions, or repeated and a table of positions added."""
    batch = value.shape[0]
    if graph.chance(2):
        length, width = graph.choices.pick((4, 5, 6)), graph.choices.pick((4, 6, 8))
        wide = linear(graph, value, length * width)
        return reshape(
            graph, wide, graph.choices.pick(([0, length, width], [-1, length, width])), (batch, length, width)
        )
    length = graph.choices.pick((4, 5, 6))
    return graph.binary("Add", unsqueeze(graph, value, 1), graph.weight((1, length, value.width), "bias"))


IMAGE: dict[str, Block] = {
    "image flattened": _flattened,
    "image pooled": _pooled,
    "image to positions": _patches,
    "image to columns": _rows,
}
SEQUENCE: dict[str, Block] = {
    "sequence flattened": _flattened,
    "sequence summarized": _summary,
    "sequence to image": _image_of_sequence,
}
VECTOR: dict[str, Block] = {"vector to image": _image_of_vector, "vector to sequence": _sequence_of_vector}
