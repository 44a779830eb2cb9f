"""Blocks of quantized and of computed weights: Q/DQ pairs, integer weights per tensor and per channel, weight norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.testing.channel_steps import Block, ChannelBuilder, Value
from irc.testing.channel_steps_forms import reduce, transpose


def _pair(graph: ChannelBuilder, value: Value) -> Value | None:
    """An activation rounded to 8 bits."""
    return quantized(graph, value)


def quantized(graph: ChannelBuilder, value: Value) -> Value:
    """QuantizeLinear and DequantizeLinear with one scale."""
    dtype = graph.choices.pick(("int8", "uint8"))
    scale = graph.constant(graph.choices.pick((0.05, 0.083, 0.031)), "float32")
    zero = graph.constant(graph.choices.pick((0, 3)) if dtype == "int8" else 120, dtype)
    whole = graph.op("QuantizeLinear", [value, scale, zero], value.shape, dtype=dtype)
    return graph.op("DequantizeLinear", [whole, scale, zero], value.shape, dtype="float32")


def integer_weight(graph: ChannelBuilder, shape: tuple[int, ...], fan: int, axis: int) -> Value:
    """An int8 weight and its DequantizeLinear, one scale for all or one for each index of an axis."""
    generator = np.random.default_rng(graph.choices.integer(0, 2**31 - 1))
    weight = graph.constant(generator.integers(-127, 128, shape), "int8")
    size = 1 / (64 * np.sqrt(fan))
    if graph.chance(2):
        graph.note("integer weight per tensor")
        zero = [graph.constant(0, "int8")] if graph.chance(2) else []
        return graph.op("DequantizeLinear", [weight, graph.constant(size, "float32"), *zero], shape, dtype="float32")
    graph.note("integer weight per channel")
    scales = graph.constant(size * generator.uniform(0.5, 1.5, shape[axis]), "float32")
    zeros = [graph.constant(np.zeros(shape[axis]), "int8")] if graph.chance(2) else []
    return graph.op("DequantizeLinear", [weight, scales, *zeros], shape, dtype="float32", axis=axis)


def _convolution(graph: ChannelBuilder, value: Value) -> Value | None:
    """A convolution of an integer weight, its input rounded at times; depthwise at times."""
    source = quantized(graph, value) if graph.chance(3) else value
    if graph.chance(3):
        weight = integer_weight(graph, (value.width, 1, 3, 3), 9, 0)
        bias = graph.optional_bias(value.width)
        return graph.op("Conv", [source, weight, bias], value.shape, pads=[1, 1, 1, 1], group=value.width)
    width = graph.other_width()
    weight = integer_weight(graph, (width, value.width, 3, 3), 9 * value.width, 0)
    shape = (value.shape[0], width, *value.shape[2:])
    return graph.op("Conv", [source, weight, graph.optional_bias(width)], shape, pads=[1, 1, 1, 1])


def _linear(graph: ChannelBuilder, value: Value) -> Value | None:
    """A linear layer of an integer weight."""
    source = quantized(graph, value) if graph.chance(3) else value
    width, inner = graph.other_width(), value.width
    shape = (*value.shape[:-1], width)
    if graph.chance(2):
        weight = integer_weight(graph, (inner, width), inner, 1)
    else:
        weight = transpose(graph, integer_weight(graph, (width, inner), inner, 0), (1, 0))
    made = graph.op("MatMul", [source, weight], shape)
    return made if graph.chance(2) else graph.binary("Add", made, graph.weight((width,), "bias"))


def _weight_norm(graph: ChannelBuilder, value: Value) -> Value | None:
    """A convolution whose weight is computed: v g / ||v||, per output or, at times, per tap as wav2vec2 has it."""
    width = graph.other_width()
    direction = graph.matrix((width, value.width, 3, 3), 9 * value.width)
    axes, length = ([1, 2, 3], (width, 1, 1, 1)) if not graph.chance(4) else ([0, 1], (1, 1, 3, 3))
    norm = reduce(graph, "ReduceL2", direction, axes)
    gain = graph.weight(length, "positive")
    if graph.chance(2):
        weight = graph.binary("Mul", direction, graph.binary("Div", gain, norm))
    else:
        weight = graph.binary("Mul", graph.binary("Div", direction, norm), gain)
    shape = (value.shape[0], width, *value.shape[2:])
    made = graph.op("Conv", [value, weight, graph.optional_bias(width)], shape, pads=[1, 1, 1, 1])
    return graph.binary("Mul", made, graph.scalar(0.5))


def _weight_norm_of_a_layer(graph: ChannelBuilder, value: Value) -> Value | None:
    """A linear layer whose weight [out, in] is computed, then transposed."""
    width = graph.other_width()
    direction = graph.matrix((width, value.width), value.width)
    norm = reduce(graph, "ReduceL2", direction, [1])
    weight = graph.binary("Div", graph.binary("Mul", direction, graph.weight((width, 1), "positive")), norm)
    if len(value.shape) == 2 and graph.chance(2):
        inputs = [value, weight, graph.optional_bias(width)]
        return graph.op("Gemm", inputs, (value.shape[0], width), transB=1)
    return graph.op("MatMul", [value, transpose(graph, weight, (1, 0))], (*value.shape[:-1], width))


def _standardized(graph: ChannelBuilder, value: Value) -> Value | None:
    """Weight standardization: each filter without its mean, divided by its deviation."""
    width, fan = graph.other_width(), 9 * value.width
    weight = graph.matrix((width, value.width, 3, 3), 1)
    centred = graph.binary("Sub", weight, reduce(graph, "ReduceMean", weight, [1, 2, 3]))
    variance = reduce(graph, "ReduceMean", graph.binary("Mul", centred, centred), [1, 2, 3])
    deviation = graph.unary("Sqrt", graph.binary("Add", variance, graph.scalar(1e-3)))
    final = graph.binary("Mul", graph.binary("Div", centred, deviation), graph.constant(fan**-0.5, "float32"))
    shape = (value.shape[0], width, *value.shape[2:])
    return graph.op("Conv", [value, final, graph.optional_bias(width)], shape, pads=[1, 1, 1, 1])


def _low_rank(graph: ChannelBuilder, value: Value) -> Value | None:
    """A weight and the product of two narrow ones added to it, as of an adapter that is not merged."""
    width, inner, rank = graph.other_width(), value.width, graph.choices.pick((2, 3))
    main = graph.matrix((inner, width), inner)
    update = graph.op("MatMul", [graph.matrix((inner, rank), inner), graph.matrix((rank, width), rank)], (inner, width))
    weight = graph.binary("Add", main, update)
    return graph.op("MatMul", [value, weight], (*value.shape[:-1], width))


def _generated(graph: ChannelBuilder, value: Value) -> Value | None:
    """A scale per channel that a small network computes from a constant code."""
    width, size = value.width, 3
    code: Any = graph.weight((1, size), "bias")
    made = graph.op("MatMul", [code, graph.matrix((size, width), size)], (1, width))
    factor = graph.binary("Add", graph.unary("Tanh", made), graph.scalar(1.0))
    if value.layout == "image":
        factor = graph.op("Reshape", [factor, graph.constant([1, width, 1, 1])], (1, width, 1, 1))
    return graph.binary("Mul", value, factor)


EVERYWHERE: dict[str, Block] = {"Q/DQ": _pair, "computed scale": _generated}
IMAGE: dict[str, Block] = {
    "integer convolution": _convolution,
    "weight norm": _weight_norm,
    "weight standardization": _standardized,
}
SEQUENCE: dict[str, Block] = {
    "integer linear": _linear,
    "weight norm of a layer": _weight_norm_of_a_layer,
    "low-rank update": _low_rank,
}
VECTOR: dict[str, Block] = {
    "integer linear on a vector": _linear,
    "weight norm on a vector": _weight_norm_of_a_layer,
    "low-rank update on a vector": _low_rank,
}
