"""Blocks in which channels multiply channels: squeeze and excite, gated units, attention over channels and over positions."""

from __future__ import annotations

from irc.testing.channel_steps import Block, ChannelBuilder, Value
from irc.testing.channel_steps_activation import activation
from irc.testing.channel_steps_convolution import convolution
from irc.testing.channel_steps_forms import concat, cut, linear, reduce, reshape, split, squeeze, unsqueeze


def _excite(graph: ChannelBuilder, value: Value) -> Value | None:
    """Squeeze and excite: by 1x1 convolutions, or by linear layers on what is flattened before and unflattened after."""
    pooled = _pooled(graph, value)
    narrow = max(2, value.width // 2)
    gate = graph.choices.pick(("Sigmoid", "HardSigmoid"))
    if graph.chance(2):
        graph.note("excite by convolutions")
        hidden = convolution(graph, pooled, narrow, kernel=1)
        assert hidden is not None
        made = convolution(graph, graph.unary("Relu", hidden), value.width, kernel=1)
        assert made is not None
        return graph.binary("Mul", value, graph.unary(gate, made))
    graph.note("excite by linear layers")
    width = value.width
    flat = (
        squeeze(graph, pooled, 2, 3)
        if graph.chance(2)
        else reshape(graph, pooled, [-1, width], (value.shape[0], width))
    )
    hidden = graph.unary("Relu", linear(graph, flat, narrow))
    factor = graph.unary(gate, linear(graph, hidden, width))
    shape = (value.shape[0], width, 1, 1)
    if graph.chance(2):
        factor = reshape(graph, factor, [-1, width, 1, 1], shape)
    else:
        factor = unsqueeze(graph, unsqueeze(graph, factor, 2), 3)
    return graph.binary("Mul", *((value, factor) if graph.chance(2) else (factor, value)))


def _pooled(graph: ChannelBuilder, value: Value) -> Value:
    if graph.chance(2):
        return graph.op("GlobalAveragePool", [value], (value.shape[0], value.width, 1, 1))
    return reduce(graph, "ReduceMean", value, graph.choices.pick(([2, 3], [-1, -2])))


def _gated_image(graph: ChannelBuilder, value: Value) -> Value | None:
    """Twice the channels, split; one half gates the other."""
    wide = convolution(graph, value, 2 * graph.other_width(), kernel=graph.choices.pick((1, 3)))
    assert wide is not None
    return _gate(graph, wide, 1)


def _gated(graph: ChannelBuilder, value: Value) -> Value | None:
    """A gated linear unit of one wide layer, and a layer after it."""
    wide = linear(graph, value, 2 * graph.other_width())
    result = _gate(graph, wide, len(wide.shape) - 1)
    return linear(graph, result, value.width) if graph.chance(2) else result


def _gate(graph: ChannelBuilder, wide: Value, axis: int) -> Value:
    half = wide.known(axis) // 2
    written = graph.choices.pick((axis, axis - len(wide.shape)))
    if graph.chance(2):
        graph.note("gate by Split")
        one, other = split(graph, wide, [half, half], written)
    else:
        graph.note("gate by Slices")
        one = cut(graph, wide, 0, half, written)
        other = cut(graph, wide, half, graph.choices.pick((2 * half, 2**31 - 1)), written)
    return graph.binary("Mul", one, graph.unary(graph.choices.pick(("Sigmoid", "Tanh")), other))


def _gated_by_two(graph: ChannelBuilder, value: Value) -> Value | None:
    """SwiGLU of two layers, and a layer back; the residual added at times."""
    width = graph.other_width()
    gate, up = linear(graph, value, width, bias=False), linear(graph, value, width, bias=False)
    active = graph.binary("Mul", gate, graph.unary("Sigmoid", gate)) if graph.chance(2) else activation(graph, gate)
    down = linear(graph, graph.binary("Mul", active, up), value.width)
    return graph.binary("Add", value, down) if graph.chance(2) else down


def _positions(graph: ChannelBuilder, value: Value) -> Value | None:
    """The spatial half of CBAM: largest and mean channel, concatenated, convolved, a gate for each position."""
    both = [reduce(graph, "ReduceMax", value, [1]), reduce(graph, "ReduceMean", value, [1])]
    made = convolution(graph, concat(graph, both, 1), 1)
    assert made is not None
    return graph.binary("Mul", value, graph.unary("Sigmoid", made))


def _both_pools(graph: ChannelBuilder, value: Value) -> Value | None:
    """The channel half of CBAM: one small network on the mean and on the maximum, its weights shared."""
    narrow, width = max(2, value.width // 2), value.width
    first, second = graph.matrix((narrow, width, 1, 1), width), graph.matrix((width, narrow, 1, 1), narrow)
    made = []
    for op_type in ("GlobalAveragePool", "GlobalMaxPool"):
        pooled = graph.op(op_type, [value], (value.shape[0], width, 1, 1))
        hidden = graph.unary("Relu", graph.op("Conv", [pooled, first], (value.shape[0], narrow, 1, 1)))
        made.append(graph.op("Conv", [hidden, second], pooled.shape))
    return graph.binary("Mul", value, graph.unary("Sigmoid", graph.binary("Add", *made)))


def _conditioned(graph: ChannelBuilder, value: Value) -> Value | None:
    """Scale and shift of each channel computed from an earlier vector, or from the mean of the value."""
    condition = graph.earlier(lambda known: len(known.shape) == 2 and known.shape[0] == value.shape[0])
    if condition is None:
        axes = [2, 3] if value.layout == "image" else [1]
        condition = reduce(graph, "ReduceMean", value, axes, keepdims=False)
    both = linear(graph, condition, 2 * value.width)
    scale, shift = split(graph, both, [value.width] * 2, 1)
    if value.layout == "image":
        target, shape = [-1, value.width, 1, 1], (value.shape[0], value.width, 1, 1)
        scale, shift = (reshape(graph, part, target, shape) for part in (scale, shift))
    else:
        scale, shift = (unsqueeze(graph, part, 1) for part in (scale, shift))
    product = graph.binary("Mul", value, graph.binary("Add", graph.unary("Tanh", scale), graph.scalar(1.0)))
    return graph.binary("Add", product, shift)


IMAGE: dict[str, Block] = {
    "FiLM of an image": _conditioned,
    "squeeze-excite": _excite,
    "GLU of an image": _gated_image,
    "CBAM positions": _positions,
    "CBAM channels": _both_pools,
}
SEQUENCE: dict[str, Block] = {"GLU": _gated, "SwiGLU": _gated_by_two, "FiLM": _conditioned}
VECTOR: dict[str, Block] = {"GLU of a vector": _gated, "SwiGLU of a vector": _gated_by_two}
