"""Blocks that work elementwise: activations as operators and written out, weights added and multiplied, n-ary operators."""

from __future__ import annotations

import math

import numpy as np

from irc.testing.channel_steps import ONNX_TYPES, Block, ChannelBuilder, Value

PLAIN = ("Relu", "Sigmoid", "LeakyRelu", "Softplus", "Tanh", "Elu", "HardSigmoid", "Selu", "Celu", "Softsign")


def activation(graph: ChannelBuilder, value: Value) -> Value:
    """One of the activations of one operator."""
    options = [*PLAIN, "Relu", "Relu"]
    if graph.opset >= 14:
        options.append("HardSwish")
    if graph.opset >= 18:
        options.append("Mish")
    if graph.opset >= 20:
        options += ["Gelu", "Gelu"]
    return graph.unary(graph.choices.pick(options), value)


def _simple(graph: ChannelBuilder, value: Value) -> Value | None:
    return activation(graph, value)


def _clip(graph: ChannelBuilder, value: Value) -> Value | None:
    low, high = graph.choices.pick(((-1.0, 1.0), (0.0, 6.0), (-0.5, None), (None, 0.8)))
    bounds = [graph.number(bound) if bound is not None else None for bound in (low, high)]
    return graph.op("Clip", [value, *bounds], value.shape)


def _slope_per_channel(graph: ChannelBuilder, value: Value) -> Value | None:
    return graph.op("PRelu", [value, graph.channel_vector(value, "bias")], value.shape)


def _gelu(graph: ChannelBuilder, value: Value) -> Value | None:
    """By erf or by tanh, written out, or as the operator of ONNX Runtime."""
    form = graph.choices.integer(0, 2)
    if form == 0:
        return graph.unary("Gelu", value, domain="com.microsoft")
    if form == 1:
        error = graph.unary("Erf", graph.binary("Div", value, graph.scalar(math.sqrt(2))))
        product = graph.binary("Mul", value, graph.binary("Add", error, graph.scalar(1.0)))
        return graph.binary("Mul", product, graph.scalar(0.5))
    cube = graph.binary("Mul", graph.binary("Pow", value, graph.scalar(3.0)), graph.scalar(0.044715))
    inner = graph.binary("Mul", graph.binary("Add", value, cube), graph.scalar(math.sqrt(2 / math.pi)))
    half = graph.binary("Mul", value, graph.scalar(0.5))
    return graph.binary("Mul", half, graph.binary("Add", graph.unary("Tanh", inner), graph.scalar(1.0)))


def _silu(graph: ChannelBuilder, value: Value) -> Value | None:
    return graph.binary("Mul", value, graph.unary("Sigmoid", value))


def _where(graph: ChannelBuilder, value: Value) -> Value | None:
    """A leaky relu by Where (continuous, so that rounding decides nothing), or channels chosen by a table."""
    if graph.chance(2):
        condition = graph.binary("Greater", value, graph.number(0.0), dtype="bool")
        graph.note("Where by a comparison")
        other = graph.binary("Mul", value, graph.channel_vector(value, "positive"))
        return graph.op("Where", [condition, value, other], value.shape, dtype="float32")
    table = np.arange(value.width) % 3 != graph.choices.integer(0, 2)
    shape = (value.width, 1, 1) if value.layout == "image" else (value.width,)
    graph.note("Where by a table")
    other = graph.number(-0.4) if graph.chance(2) else graph.channel_vector(value, "bias")
    return graph.op("Where", [graph.constant(table.reshape(shape), "bool"), value, other], value.shape, dtype="float32")


def _root(graph: ChannelBuilder, value: Value) -> Value | None:
    """The root of something positive, which is never close to where its slope has no bound."""
    positive = graph.binary("Add", graph.unary("Abs", value), graph.scalar(0.5))
    if graph.chance(2):
        return graph.unary("Sqrt", positive)
    return graph.binary("Pow", positive, graph.choices.pick((graph.scalar(0.5), graph.scalar(1.5))))


def _cast(graph: ChannelBuilder, value: Value) -> Value | None:
    """To double precision and back, something happening in between at times."""
    wide = graph.op("Cast", [value], value.shape, dtype="float64", to=ONNX_TYPES["float64"])
    if graph.chance(2):
        wide = graph.op("Mul", [wide, graph.constant(0.75, "float64")], value.shape)
    return graph.op("Cast", [wide], value.shape, dtype="float32", to=ONNX_TYPES["float32"])


def _nothing(graph: ChannelBuilder, value: Value) -> Value | None:
    """Identity, or Dropout as inference leaves it."""
    if graph.chance(2):
        return graph.unary("Identity", value)
    inputs = [value, graph.number(0.5)] if graph.chance(2) else [value]
    return graph.op("Dropout", inputs, value.shape)


def _affine(graph: ChannelBuilder, value: Value) -> Value | None:
    """A weight per channel and a bias per channel, or one number for all; the value on either side."""
    kinds = graph.choices.pick((("Mul",), ("Add",), ("Mul", "Add"), ("Sub", "Div")))
    for op_type in kinds:
        kind = {"Mul": "scale", "Div": "positive"}.get(op_type, "bias")
        operand = graph.scalar(0.7) if graph.chance(5) else graph.channel_vector(value, kind)
        swapped = op_type in ("Mul", "Add", "Sub") and graph.chance(3)
        value = graph.binary(op_type, *((operand, value) if swapped else (value, operand)))
    return value


def _shared_parameter(graph: ChannelBuilder, value: Value) -> Value | None:
    """One vector that is added here and multiplied there."""
    vector = graph.channel_vector(value, "scale")
    added = graph.binary("Add", value, vector)
    return graph.binary("Mul", graph.unary("Tanh", added), vector)


def _several(graph: ChannelBuilder, value: Value) -> Value | None:
    """Max, Min, Sum or Mean of the value, of earlier ones like it, of a weight."""
    operands = [value]
    for _ in range(graph.choices.integer(1, 2)):
        other = graph.earlier(lambda known: known.shape == value.shape)
        if other is None or graph.chance(3):
            other = graph.channel_vector(value, "bias")
        operands.append(other)
    return graph.binary(graph.choices.pick(("Max", "Min", "Sum", "Mean")), *operands)


def _twice(graph: ChannelBuilder, value: Value) -> Value | None:
    """A value that two activations read, whose results meet; one node is written twice at times."""
    one = activation(graph, value)
    other = graph.unary("Erf", value)
    if graph.chance(2):
        again = graph.unary("Erf", value)
        other = graph.binary("Add", other, again)
    return graph.binary(graph.choices.pick(("Add", "Mul", "Sub", "Max")), one, other)


EVERYWHERE: dict[str, Block] = {
    "activation": _simple,
    "Clip": _clip,
    "PRelu": _slope_per_channel,
    "Gelu written out": _gelu,
    "SiLU": _silu,
    "Where": _where,
    "root": _root,
    "Cast": _cast,
    "Identity": _nothing,
    "affine": _affine,
    "shared parameter": _shared_parameter,
    "n-ary": _several,
    "read twice": _twice,
}
