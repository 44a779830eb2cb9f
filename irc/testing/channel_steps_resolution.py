"""Blocks that change how many positions there are: pools, Resize, channels traded for positions, reductions."""

from __future__ import annotations

from typing import Any

from irc.testing.channel_steps import Block, ChannelBuilder, Size, Value
from irc.testing.channel_steps_forms import dimension, reduce, reshape, transpose, trimmed
from irc.testing.channel_steps_joining import layer

LARGEST = 8
"""Rows of an image that is still enlarged."""


def _pool(graph: ChannelBuilder, value: Value) -> Value | None:
    """MaxPool or AveragePool that keeps the size, or halves it."""
    op_type = graph.choices.pick(("MaxPool", "AveragePool"))
    spatial = value.sizes(2, 3)
    halve = spatial is not None and min(spatial) >= 4
    if spatial is None and not any("/" in str(size) for size in value.shape[2:]):
        halve = True
    if not halve or graph.chance(2):
        return graph.op(op_type, [value], value.shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    after: list[Size] = [size // 2 if isinstance(size, int) else f"floor({size}/2)" for size in value.shape[2:]]
    shape = (*value.shape[:2], *after)
    return graph.op(op_type, [value], shape, kernel_shape=[2, 2], strides=[2, 2])


def _resized(graph: ChannelBuilder, value: Value) -> Value | None:
    """Resize to twice the size by scales or by sizes, nearest or linear."""
    spatial = value.sizes(2, 3)
    if spatial is None or max(spatial) > LARGEST:
        return None
    attributes: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    attributes["nearest_mode"] = "floor"
    if graph.chance(2):
        attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    after = tuple(2 * size for size in spatial)
    shape = (*value.shape[:2], *after)
    batch = value.shape[0]
    if isinstance(batch, int) and graph.chance(3):
        graph.note("Resize by sizes")
        target = graph.constant([batch, value.width, *after])
        return graph.op("Resize", [value, None, None, target], shape, **attributes)
    if graph.opset >= 18 and graph.chance(3):
        graph.note("Resize by sizes of some axes")
        return graph.op("Resize", [value, None, None, graph.constant(after)], shape, axes=[2, 3], **attributes)
    graph.note("Resize by scales")
    return graph.op("Resize", [value, None, graph.constant([1, 1, 2, 2], "float32")], shape, **attributes)


def _resized_like(graph: ChannelBuilder, value: Value) -> Value | None:
    """Resize to sizes computed at run time: batch and channels of the value, positions of an earlier one."""
    other = graph.earlier(
        lambda known: len(known.shape) == 4 and known.sizes(2, 3) is not None and known.shape[2:] != value.shape[2:]
    )
    # ONNX Runtime infers no shape behind this operator, and refuses sizes that come from what it knows nothing of.
    unknown = any(node.op_type == "GroupNormalization" for node in graph.nodes)
    if other is None or value.sizes(2, 3) is None or unknown:
        return None
    parts = [dimension(graph, source, axis) for axis, source in enumerate((value, value, other, other))]
    target = graph.op("Concat", parts, (4,), dtype="int64", axis=0)
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor", "mode": "nearest"}
    return graph.op("Resize", [value, None, None, target], (*value.shape[:2], *other.shape[2:]), **attributes)


def _depth_to_space(graph: ChannelBuilder, value: Value) -> Value | None:
    """A layer to four times the channels, and DepthToSpace: the operator or its nodes."""
    spatial = value.sizes(2, 3)
    if spatial is None or max(spatial) > LARGEST:
        return None
    width = graph.choices.pick((2, 3, 4, 5))
    wide, (rows, columns) = layer(graph, value, 4 * width), spatial
    shape = (value.shape[0], width, 2 * rows, 2 * columns)
    form = graph.choices.integer(0, 2)
    if form < 2:
        mode = ("DCR", "CRD")[form]
        graph.note(f"DepthToSpace {mode}")
        return graph.op("DepthToSpace", [wide], shape, blocksize=2, mode=mode)
    graph.note("DepthToSpace decomposed")
    sizes, order = graph.choices.pick((((width, 2, 2), (0, 1, 4, 2, 5, 3)), ((2, 2, width), (0, 3, 4, 1, 5, 2))))
    apart = reshape(graph, wide, [0, *sizes, rows, columns], (value.shape[0], *sizes, rows, columns))
    return reshape(graph, transpose(graph, apart, order), [0, width, 2 * rows, 2 * columns], shape)


def _space_to_depth(graph: ChannelBuilder, value: Value) -> Value | None:
    """SpaceToDepth: the operator, or its nodes as in patch merging."""
    spatial = value.sizes(2, 3)
    if spatial is None or any(size % 2 or size < 4 for size in spatial):
        return None
    rows, columns = spatial[0] // 2, spatial[1] // 2
    shape = (value.shape[0], 4 * value.width, rows, columns)
    if graph.chance(2):
        graph.note("SpaceToDepth operator")
        return trimmed(graph, graph.op("SpaceToDepth", [value], shape, blocksize=2))
    graph.note("SpaceToDepth decomposed")
    sizes = (value.shape[0], value.width, rows, 2, columns, 2)
    apart = reshape(graph, value, [0, value.width, rows, 2, columns, 2], sizes)
    order = graph.choices.pick(((0, 1, 3, 5, 2, 4), (0, 3, 5, 1, 2, 4)))
    return trimmed(graph, reshape(graph, transpose(graph, apart, order), [0, -1, rows, columns], shape))


def _spatial_statistic(graph: ChannelBuilder, value: Value) -> Value | None:
    """What is left of each channel, reduced over the positions, scales or shifts the channel."""
    op_type = graph.choices.pick(("ReduceMean", "ReduceMax", "ReduceL2", "ReduceSum", "ReduceMin"))
    left = reduce(graph, op_type, value, [2, 3] if value.layout == "image" else [1])
    left = graph.unary("Tanh", left)
    return graph.binary(graph.choices.pick(("Add", "Mul", "Sub")), value, left)


def _channel_statistic(graph: ChannelBuilder, value: Value) -> Value | None:
    """What is left of each position, reduced over the channels, scales or shifts it; kept as an axis or put back."""
    op_type = graph.choices.pick(("ReduceMean", "ReduceMax", "ReduceL2", "ReduceSum", "ReduceLogSumExp"))
    keep = graph.chance(2)
    graph.note("channels reduced, axis kept" if keep else "channels reduced, axis dropped")
    left = reduce(graph, op_type, value, [value.axis], keepdims=keep)
    if not keep:
        shape = tuple(1 if axis == value.axis else size for axis, size in enumerate(value.shape))
        left = graph.op("Unsqueeze", [left, graph.constant([value.axis])], shape)
    left = graph.unary("Tanh", left)
    return graph.binary(graph.choices.pick(("Add", "Mul")), value, left)


def _mean_of_rows(graph: ChannelBuilder, value: Value) -> Value | None:
    """The maximum over one spatial axis, dropped, and the image times it, put back."""
    left = reduce(graph, graph.choices.pick(("ReduceMax", "ReduceMean")), value, [3], keepdims=False)
    back = graph.op("Unsqueeze", [graph.unary("Sigmoid", left), graph.constant([3])], (*value.shape[:3], 1))
    return graph.binary("Mul", value, back)


def _grouped_mean(graph: ChannelBuilder, value: Value) -> Value | None:
    """Each group of channels without its mean."""
    groups = graph.divisor(value.width, (2, 3, 4))
    if groups is None or groups == value.width:
        return None
    members = value.width // groups
    apart = reshape(graph, value, [0, 0, groups, members], (*value.shape[:2], groups, members))
    centred = graph.binary("Sub", apart, reduce(graph, "ReduceMean", apart, [3]))
    return reshape(graph, centred, [0, 0, value.width], value.shape)


IMAGE: dict[str, Block] = {
    "pool": _pool,
    "Resize": _resized,
    "Resize to computed sizes": _resized_like,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "reduced over positions": _spatial_statistic,
    "reduced over channels": _channel_statistic,
    "reduced over columns": _mean_of_rows,
}
SEQUENCE: dict[str, Block] = {
    "sequence reduced over positions": _spatial_statistic,
    "sequence reduced over channels": _channel_statistic,
    "groups of channels reduced": _grouped_mean,
}
VECTOR: dict[str, Block] = {"vector reduced over channels": _channel_statistic}
