"""Blocks of convolutions: plain, depthwise, grouped, transposed, on images and on sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irc.testing.channel_steps import Block, ChannelBuilder, Size, Value
from irc.testing.channel_steps_forms import transpose


def _halved(size: Size) -> Size | None:
    """The size after a stride of 2 with a kernel of 3 and a padding of 1; None if that is too little."""
    if isinstance(size, int):
        return (size + 1) // 2 if size >= 4 else None
    return f"ceil({size}/2)" if "/" not in size else None


def convolution(
    graph: ChannelBuilder,
    value: Value,
    width: int,
    *,
    kernel: int = 3,
    group: int = 1,
    strided: bool = False,
    bias: bool | None = None,
) -> Value | None:
    """Conv that keeps the spatial sizes, or halves them.

    Args:
        graph: Where.
        value: [N, C, ...].
        width: Channels that come out.
        kernel: 1, 3 or 5 on every axis.
        group: Divides both numbers of channels.
        strided: Stride of 2 with a kernel of 3.
        bias: Whether there is one; by default at random.
    """
    channels, spatial = value.known(1), value.shape[2:]
    after = [_halved(size) if strided else size for size in spatial]
    if any(size is None for size in after):
        return None
    axes = len(spatial)
    attributes: dict[str, Any] = {}
    if kernel > 1 and not strided and graph.chance(6):
        attributes["auto_pad"] = "SAME_UPPER"
    elif kernel > 1:
        attributes["pads"] = [kernel // 2] * (2 * axes)
    if strided:
        attributes["strides"] = [2] * axes
    if group > 1 or graph.chance(3):
        attributes["group"] = group
    if graph.chance(2):
        attributes["kernel_shape"] = [kernel] * axes
    per_group = channels // group
    weight = graph.matrix((width, per_group, *(kernel for _ in spatial)), per_group * kernel**axes)
    with_bias = bias if bias is not None else not graph.chance(3)
    addend = graph.weight((width,), "bias") if with_bias else None
    return graph.op("Conv", [value, weight, addend], (value.shape[0], width, *_known(after)), **attributes)


def _known(sizes: Sequence[Size | None]) -> list[Size]:
    return [size for size in sizes if size is not None]


def _plain(graph: ChannelBuilder, value: Value) -> Value | None:
    return convolution(graph, value, graph.other_width(), kernel=graph.choices.pick((3, 3, 5)))


def _pointwise(graph: ChannelBuilder, value: Value) -> Value | None:
    return convolution(graph, value, graph.other_width(), kernel=1)


def _strided(graph: ChannelBuilder, value: Value) -> Value | None:
    return convolution(graph, value, graph.other_width(), strided=True)


def _depthwise(graph: ChannelBuilder, value: Value) -> Value | None:
    """One filter per channel, or two."""
    multiplier = graph.choices.pick((1, 2, 2)) if value.width <= graph.limits.width else 1
    graph.note(f"depthwise, multiplier {multiplier}")
    strided = graph.chance(4)
    return convolution(graph, value, value.width * multiplier, group=value.width, strided=strided)


def _grouped(graph: ChannelBuilder, value: Value) -> Value | None:
    group = graph.divisor(value.width, (2, 3, 4))
    if group is None or group == value.width:
        return None
    width = group * graph.choices.integer(1, max(1, graph.limits.width // group))
    return convolution(graph, value, width, kernel=graph.choices.pick((3, 1)), group=group)


def _transposed(graph: ChannelBuilder, value: Value) -> Value | None:
    """ConvTranspose that keeps the spatial sizes or doubles them, in groups at times."""
    channels, spatial = value.width, value.sizes(2, 3)
    group = 1 if graph.chance(2) else graph.divisor(channels, (2, 3, 4)) or 1
    if graph.chance(8):
        group = channels
    width = group * graph.choices.integer(1, max(1, graph.limits.width // group))
    graph.note("transposed, grouped" if group > 1 else "transposed, plain")
    doubled = spatial is not None and max(spatial) <= 5 and graph.chance(2)
    kernel = 2 if doubled else 3
    weight = graph.matrix((channels, width // group, kernel, kernel), channels // group * (4 if doubled else 9))
    attributes: dict[str, Any] = {"strides": [2, 2]} if doubled else {"pads": [1, 1, 1, 1]}
    if group > 1 or graph.chance(3):
        attributes["group"] = group
    after = tuple(2 * size for size in spatial) if spatial is not None and doubled else value.shape[2:]
    shape = (value.shape[0], width, *after)
    return graph.op("ConvTranspose", [value, weight, graph.optional_bias(width)], shape, **attributes)


def _separable(graph: ChannelBuilder, value: Value) -> Value | None:
    """An inverted residual: expanded, depthwise, projected, and the input added."""
    wide = min(2 * value.width, 2 * graph.limits.width)
    expanded = convolution(graph, value, wide, kernel=1)
    assert expanded is not None
    expanded = graph.op("Clip", [expanded, graph.number(0.0), graph.number(6.0)], expanded.shape)
    deep = convolution(graph, expanded, wide, group=wide)
    assert deep is not None
    deep = graph.unary("Relu", deep)
    projected = convolution(graph, deep, value.width, kernel=1)
    assert projected is not None
    return graph.binary("Add", value, projected)


def _same_weight(graph: ChannelBuilder, value: Value) -> Value | None:
    """One convolution applied twice, as by a shared head or an unrolled recurrence."""
    width = value.width
    weight, bias = graph.matrix((width, width, 3, 3), 9 * width), graph.optional_bias(width)
    first = graph.op("Conv", [value, weight, bias], value.shape, pads=[1, 1, 1, 1])
    first = graph.unary("Relu", first)
    return graph.op("Conv", [first, weight, bias], value.shape, pads=[1, 1, 1, 1])


def _sequence(graph: ChannelBuilder, value: Value) -> Value | None:
    """Conv on [N, C, T] between two Transposes; grouped, depthwise or transposed at times."""
    turned = transpose(graph, value, (0, 2, 1))
    width, kind = graph.other_width(), graph.choices.integer(0, 3)
    channels = turned.known(1)
    if kind == 0:
        made = graph.op(
            "ConvTranspose",
            [turned, graph.matrix((channels, width, 3), 3 * channels), graph.optional_bias(width)],
            (turned.shape[0], width, turned.shape[2]),
            pads=[1, 1],
        )
        return transpose(graph, made, (0, 2, 1))
    group = 1 if kind == 1 else channels if kind == 2 else graph.divisor(channels, (2, 3, 4)) or 1
    width = width if group == 1 else channels
    result = convolution(graph, turned, width, group=group, strided=group == 1 and graph.chance(4))
    if result is None:
        result = convolution(graph, turned, width, group=group)
    assert result is not None
    if graph.chance(2):
        result = graph.unary("Relu", result)
    return transpose(graph, result, (0, 2, 1))


IMAGE: dict[str, Block] = {
    "conv": _plain,
    "conv 1x1": _pointwise,
    "conv strided": _strided,
    "conv depthwise": _depthwise,
    "conv grouped": _grouped,
    "conv transposed": _transposed,
    "conv separable": _separable,
    "conv shared": _same_weight,
}
SEQUENCE: dict[str, Block] = {"conv on a sequence": _sequence}
