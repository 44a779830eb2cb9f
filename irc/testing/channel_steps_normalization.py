"""Blocks that normalize: the operators, and the nodes that exporters write in their place."""

from __future__ import annotations

from typing import Any

from irc.testing.channel_steps import Block, ChannelBuilder, Value
from irc.testing.channel_steps_forms import computed_reshape, dimension, reduce, reshape, transpose

GROUPS = (2, 3, 4, 5)


def _batch(graph: ChannelBuilder, value: Value) -> Value | None:
    """BatchNormalization; that of a sequence between two Transposes."""
    turned = transpose(graph, value, (0, 2, 1)) if value.layout == "sequence" else value
    width = turned.known(1)
    parameters = [graph.weight((width,), kind) for kind in ("scale", "bias", "bias", "positive")]
    result = graph.op("BatchNormalization", [turned, *parameters], turned.shape, epsilon=1e-3)
    return transpose(graph, result, (0, 2, 1)) if value.layout == "sequence" else result


def _roomy(value: Value) -> bool:
    """Whether there are enough positions that their variance is no rounding error."""
    sizes = value.sizes(2, 3)
    return sizes is None or sizes[0] * sizes[1] >= 4


def _instance(graph: ChannelBuilder, value: Value) -> Value | None:
    if not _roomy(value):
        return None
    parameters = [graph.weight((value.width,), kind) for kind in ("scale", "bias")]
    return graph.op("InstanceNormalization", [value, *parameters], value.shape, epsilon=1e-2)


def _group_operator(graph: ChannelBuilder, value: Value) -> Value | None:
    groups = graph.divisor(value.width, GROUPS)
    if graph.opset < 21 or groups is None or not _roomy(value):
        return None
    parameters = [graph.weight((value.width,), kind) for kind in ("scale", "bias")]
    return graph.op("GroupNormalization", [value, *parameters], value.shape, num_groups=groups, epsilon=1e-2)


def _group_decomposed(graph: ChannelBuilder, value: Value) -> Value | None:
    """Reshape to groups, InstanceNormalization, Reshape back to static or to computed sizes, Mul, Add."""
    groups = graph.divisor(value.width, GROUPS)
    if groups is None or not _roomy(value):
        return None
    grouped = reshape(graph, value, [0, groups, -1], (value.shape[0], groups, "members"))
    plain = graph.chance(2)
    ones = [graph.constant([number] * groups, "float32") for number in (1.0, 0.0)] if plain else []
    parameters = ones or [graph.weight((groups,), kind) for kind in ("scale", "bias")]
    normal = graph.op("InstanceNormalization", [grouped, *parameters], grouped.shape, epsilon=1e-2)
    spatial = value.sizes(2, 3)
    if spatial is not None and graph.chance(2):
        back = reshape(graph, normal, [-1, value.width, *spatial], value.shape)
    elif spatial is None and graph.chance(2):
        rows, columns = dimension(graph, value, 2), dimension(graph, value, 3)
        parts: list[int | Value] = [dimension(graph, value, 0), value.width, rows, columns]
        back = computed_reshape(graph, normal, parts, value.shape)
    else:
        back = graph.op("Reshape", [normal, graph.op("Shape", [value], (4,), dtype="int64")], value.shape)
    scaled = graph.binary("Mul", back, graph.channel_vector(value, "scale"))
    return graph.binary("Add", scaled, graph.channel_vector(value, "bias"))


def layer_normalization(graph: ChannelBuilder, value: Value) -> Value:
    """LayerNormalization over the last axis: the operator, or its nodes."""
    width = value.known(-1)
    scale, bias = graph.weight((width,), "scale"), None if graph.chance(3) else graph.weight((width,), "bias")
    if graph.opset >= 17 and not graph.chance(3):
        graph.note("LayerNorm operator")
        attributes: dict[str, Any] = {} if graph.chance(3) else {"epsilon": 1e-3}
        axis = graph.choices.pick((-1, len(value.shape) - 1))
        return graph.op("LayerNormalization", [value, scale, bias], value.shape, axis=axis, **attributes)
    graph.note("LayerNorm decomposed")
    centred = graph.binary("Sub", value, reduce(graph, "ReduceMean", value, [-1]))
    power = (
        graph.binary("Pow", centred, graph.scalar(2.0)) if graph.chance(2) else graph.binary("Mul", centred, centred)
    )
    variance = reduce(graph, "ReduceMean", power, [-1])
    deviation = graph.unary("Sqrt", graph.binary("Add", variance, graph.scalar(1e-3)))
    normal = graph.binary("Div", centred, deviation)
    scaled = graph.binary("Mul", normal, scale)
    return scaled if bias is None else graph.binary("Add", scaled, bias)


def rms_normalization(graph: ChannelBuilder, value: Value) -> Value:
    """RMSNormalization over the last axis: the operator, or its nodes."""
    scale = graph.weight((value.known(-1),), "scale")
    if graph.opset >= 23 and not graph.chance(3):
        graph.note("RMSNorm operator")
        return graph.op("RMSNormalization", [value, scale], value.shape, axis=-1, epsilon=1e-3)
    graph.note("RMSNorm decomposed")
    power = graph.binary("Pow", value, graph.scalar(2.0)) if graph.chance(2) else graph.binary("Mul", value, value)
    mean = graph.binary("Add", reduce(graph, "ReduceMean", power, [-1]), graph.scalar(1e-3))
    root = graph.unary("Sqrt", mean)
    if graph.chance(2):
        normal = graph.binary("Mul", value, graph.unary("Reciprocal", root))
    else:
        normal = graph.binary("Div", value, root)
    return graph.binary("Mul", *((normal, scale) if graph.chance(2) else (scale, normal)))


def _layer(graph: ChannelBuilder, value: Value) -> Value | None:
    return layer_normalization(graph, value)


def _root_mean_square(graph: ChannelBuilder, value: Value) -> Value | None:
    return rms_normalization(graph, value)


def _channels_last(graph: ChannelBuilder, value: Value) -> Value | None:
    """A layer norm over the channels of an image, which is transposed before and after."""
    last = transpose(graph, value, (0, 2, 3, 1))
    made = (layer_normalization if graph.chance(2) else rms_normalization)(graph, last)
    return transpose(graph, made, (0, 3, 1, 2))


def _channels_first(graph: ChannelBuilder, value: Value) -> Value | None:
    """A layer norm over the channel axis of an image, written out, without any Transpose."""
    centred = graph.binary("Sub", value, reduce(graph, "ReduceMean", value, [1]))
    variance = reduce(graph, "ReduceMean", graph.binary("Mul", centred, centred), [1])
    deviation = graph.unary("Sqrt", graph.binary("Add", variance, graph.scalar(1e-3)))
    scaled = graph.binary("Mul", graph.binary("Div", centred, deviation), graph.channel_vector(value, "scale"))
    return graph.binary("Add", scaled, graph.channel_vector(value, "bias"))


def _norm_of_length_one(graph: ChannelBuilder, value: Value) -> Value | None:
    """LpNormalization over the channels of something that is nowhere zero."""
    shifted = graph.binary("Add", value, graph.channel_vector(value, "positive"))
    return graph.op("LpNormalization", [shifted], value.shape, axis=value.axis, p=2)


def _local_response(graph: ChannelBuilder, value: Value) -> Value | None:
    return graph.op("LRN", [value], value.shape, size=3, alpha=0.1)


EVERYWHERE: dict[str, Block] = {"LpNorm": _norm_of_length_one}
IMAGE: dict[str, Block] = {
    "BatchNorm": _batch,
    "InstanceNorm": _instance,
    "GroupNorm operator": _group_operator,
    "GroupNorm decomposed": _group_decomposed,
    "LayerNorm of channels-last": _channels_last,
    "LayerNorm of channels-first": _channels_first,
    "LRN": _local_response,
}
SEQUENCE: dict[str, Block] = {
    "BatchNorm of a sequence": _batch,
    "LayerNorm": _layer,
    "RMSNorm": _root_mean_square,
}
VECTOR: dict[str, Block] = {
    "BatchNorm of a vector": _batch,
    "LayerNorm of a vector": _layer,
    "RMSNorm of a vector": _root_mean_square,
}
