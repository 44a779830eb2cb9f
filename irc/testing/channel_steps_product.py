"""Blocks of matrix products: linear layers in every spelling, products of two computed values, Einsum, tied embeddings."""

from __future__ import annotations

from irc.testing.channel_steps import Block, ChannelBuilder, Value
from irc.testing.channel_steps_activation import activation
from irc.testing.channel_steps_forms import linear, transpose, trimmed


def _linear(graph: ChannelBuilder, value: Value) -> Value | None:
    return linear(graph, value, graph.other_width())


def _feed_forward(graph: ChannelBuilder, value: Value) -> Value | None:
    """Two linear layers, something between them, the input added."""
    hidden = activation(graph, linear(graph, value, graph.other_width()))
    return graph.binary("Add", value, linear(graph, hidden, value.width))


def _by_weight_on_the_left(graph: ChannelBuilder, value: Value) -> Value | None:
    """A constant as first operand: W x for channels that come before positions."""
    width = graph.other_width()
    turned = transpose(graph, value, (0, 2, 1))
    weight = graph.matrix((width, value.width), value.width)
    made = graph.op("MatMul", [weight, turned], (value.shape[0], width, value.shape[1]))
    return transpose(graph, made, (0, 2, 1))


def _transposed_weight(graph: ChannelBuilder, value: Value) -> Value | None:
    """A weight [out, in], turned by a Transpose node."""
    width = graph.other_width()
    weight = transpose(graph, graph.matrix((width, value.width), value.width), (1, 0))
    return graph.op("MatMul", [value, weight], (*value.shape[:-1], width))


def _transposed_operand(graph: ChannelBuilder, value: Value) -> Value | None:
    """Gemm with transA on a transposed value; both weights layouts."""
    width, turned = graph.other_width(), transpose(graph, value, (1, 0))
    flag = graph.choices.integer(0, 1)
    weight = graph.matrix((width, value.width) if flag else (value.width, width), value.width)
    inputs = [turned, weight, graph.optional_bias(width)]
    return graph.op("Gemm", inputs, (value.shape[0], width), transA=1, transB=flag)


def _tied(graph: ChannelBuilder, value: Value) -> Value | None:
    """One weight used as it is and transposed: a tied autoencoder."""
    width = graph.other_width()
    weight = graph.matrix((value.width, width), value.width)
    hidden = activation(graph, graph.op("MatMul", [value, weight], (*value.shape[:-1], width)))
    if len(value.shape) == 2 and graph.chance(2):
        return graph.op("Gemm", [hidden, weight], value.shape, transB=1)
    return graph.op("MatMul", [hidden, transpose(graph, weight, (1, 0))], value.shape)


def _similarity(graph: ChannelBuilder, value: Value) -> Value | None:
    """Two projections multiplied with each other over the channels, then applied to a third."""
    width = graph.other_width()
    one, other = linear(graph, value, width), linear(graph, value, width)
    scores = graph.op(
        "MatMul", [one, transpose(graph, other, (0, 2, 1))], (value.shape[0], value.shape[1], value.shape[1])
    )
    scores = graph.unary("Tanh", graph.binary("Mul", scores, graph.scalar(1 / width)))
    third = linear(graph, value, graph.other_width())
    return graph.op("MatMul", [scores, third], third.shape)


def _covariance(graph: ChannelBuilder, value: Value) -> Value | None:
    """Channels against channels: x^T y over the positions, as in linear attention, times a third value."""
    width, other_width = graph.other_width(), graph.other_width()
    one, other = linear(graph, value, width), linear(graph, value, other_width)
    kernel = graph.op("MatMul", [transpose(graph, one, (0, 2, 1)), other], (value.shape[0], width, other_width))
    third = graph.unary("Tanh", linear(graph, value, width))
    made = graph.op("MatMul", [third, kernel], (*value.shape[:2], other_width))
    return graph.binary("Mul", made, graph.scalar(0.1))


def _product_of_images(graph: ChannelBuilder, value: Value) -> Value | None:
    """MatMul of two images over the width, channel by channel."""
    turned = transpose(graph, value, (0, 1, 3, 2))
    made = graph.op("MatMul", [value, turned], (*value.shape[:3], value.shape[2]))
    made = graph.unary("Tanh", graph.binary("Mul", made, graph.scalar(0.2)))
    return graph.op("MatMul", [made, value], value.shape)


def _einsum_linear(graph: ChannelBuilder, value: Value) -> Value | None:
    """A linear layer as Einsum, the weight in either layout and on either side."""
    width, inner = graph.other_width(), value.width
    shape = (*value.shape[:-1], width)
    letters = "bt" if value.layout == "sequence" else "b"
    if graph.chance(2):
        weight = graph.matrix((inner, width), inner)
        equation = graph.choices.pick((f"{letters}c,co->{letters}o", "...c,co->...o"))
        return graph.op("Einsum", [value, weight], shape, equation=equation)
    weight = graph.matrix((width, inner), inner)
    if graph.chance(2):
        return graph.op("Einsum", [value, weight], shape, equation=f"{letters}c,oc->{letters}o")
    return graph.op("Einsum", [weight, value], shape, equation=f"oc,{letters}c->{letters}o")


def _einsum_image(graph: ChannelBuilder, value: Value) -> Value | None:
    """A 1x1 convolution as Einsum, or a factor per channel."""
    shape = value.shape
    if graph.chance(2):
        width = graph.other_width()
        weight = graph.matrix((width, value.width), value.width)
        equation = graph.choices.pick(("nchw,oc->nohw", "bcij,kc->bkij"))
        return graph.op("Einsum", [value, weight], (shape[0], width, *shape[2:]), equation=equation)
    return graph.op("Einsum", [value, graph.weight((value.width,), "scale")], shape, equation="nchw,c->nchw")


def _bilinear(graph: ChannelBuilder, value: Value) -> Value | None:
    """Two projections of a vector, their outer product, flattened into a layer."""
    one, other = linear(graph, value, 4), linear(graph, value, graph.choices.pick((3, 5)))
    size = other.width
    shape = (value.shape[0], 4, size)
    outer = graph.op("Einsum", [one, other], shape, equation="bi,bj->bij")
    flat = graph.op("Reshape", [outer, graph.constant([-1, 4 * size])], (value.shape[0], 4 * size))
    return trimmed(graph, linear(graph, flat, graph.other_width()))


SEQUENCE: dict[str, Block] = {
    "linear": _linear,
    "feed forward": _feed_forward,
    "MatMul from the left": _by_weight_on_the_left,
    "MatMul by a transposed weight": _transposed_weight,
    "tied weights": _tied,
    "MatMul of two values": _similarity,
    "MatMul over positions": _covariance,
    "Einsum": _einsum_linear,
}
VECTOR: dict[str, Block] = {
    "linear on a vector": _linear,
    "feed forward on a vector": _feed_forward,
    "Gemm with transA": _transposed_operand,
    "tied weights of a vector": _tied,
    "Einsum of a vector": _einsum_linear,
    "bilinear": _bilinear,
}
IMAGE: dict[str, Block] = {"MatMul of images": _product_of_images, "Einsum of an image": _einsum_image}
