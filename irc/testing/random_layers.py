"""Steps that add what networks are made of: products, convolutions, normalizations, activations, whole or decomposed."""

from __future__ import annotations

import math
from typing import Any

from irc.testing.random_graph import GraphBuilder, Shape, Step, Value, sized


def _product(graph: GraphBuilder) -> None:
    """MatMul, perhaps with a bias after it, or Gemm with its bias optional."""
    value = graph.find(lambda v: v.is_float and len(v.shape) >= 2 and isinstance(v.shape[-1], int) and v.shape[-1] > 0)
    if value is None:
        return
    inner, outer = value.shape[-1], graph.choices.pick((4, 3))
    assert isinstance(inner, int)
    face = (value.dtype, (*value.shape[:-1], outer))
    if len(value.shape) == 2 and graph.chance(2):
        transposed = graph.choices.integer(0, 1)
        weight = graph.weight((outer, inner) if transposed else (inner, outer), dtype=value.dtype)
        bias = graph.choices.pick(((), (outer,), (1, outer), None))
        inputs = [value, weight] + ([graph.weight(bias, dtype=value.dtype)] if bias is not None else [])
        factors: dict[str, Any] = {"alpha": 0.5} if graph.chance(3) else {}
        graph.add("Gemm", inputs, [face], transB=transposed, **factors)
        return
    (product,) = graph.add("MatMul", [value, graph.weight((inner, outer), dtype=value.dtype)], [face])
    if graph.chance(2):
        graph.add("Add", [product, graph.weight((outer,), dtype=value.dtype)], [face])


def _convolution(graph: GraphBuilder) -> None:
    """Conv or ConvTranspose, a Pad before it and a BatchNormalization or an affine map after it, all optional."""
    value = graph.find(lambda v: v.dtype == "float32" and len(v.shape) in (3, 4) and sized(v.shape))
    if value is None:
        return
    channels, spatial = value.shape[1], list(value.shape[2:])
    assert isinstance(channels, int)
    if graph.chance(3):
        pads = [0, 0, *(1 for _ in spatial)] * 2
        spatial = [size + 2 for size in spatial if isinstance(size, int)]
        inputs = [value, graph.constant(pads)] + ([graph.constant(0.0, "float32")] if graph.chance(2) else [])
        (value,) = graph.add("Pad", inputs, [("float32", (value.shape[0], channels, *spatial))], exact=True)
    made, kernel = graph.choices.pick((4, 3)), [3 for _ in spatial]
    bias = [graph.weight((made,), dtype="float32")] if graph.chance(2) else []
    face = ("float32", (value.shape[0], made, *spatial))
    pads = [1] * (2 * len(spatial))
    if graph.chance(4):
        weight = graph.weight((channels, made, *kernel), dtype="float32")
        (value,) = graph.add("ConvTranspose", [value, weight, *bias], [face], pads=pads)
    else:
        group = channels if made == channels and graph.chance(2) else 1
        weight = graph.weight((made, channels // group, *kernel), dtype="float32")
        (value,) = graph.add("Conv", [value, weight, *bias], [face], pads=pads, group=group)
    if graph.chance(2):
        _normalize(graph, value)
    elif graph.chance(2):
        graph.add("Mul", [value, graph.weight((1, made, *(1 for _ in spatial)), dtype="float32")], [face])


def _normalize(graph: GraphBuilder, value: Value) -> None:
    size = value.shape[1]
    assert isinstance(size, int)
    weights = [graph.weight((size,), dtype=value.dtype) for _ in range(3)]
    variance = graph.weight((size,), dtype=value.dtype, kind="positive")
    graph.add("BatchNormalization", [value, *weights, variance], [(value.dtype, value.shape)])


def _batch_normalization(graph: GraphBuilder) -> None:
    value = graph.find(lambda v: v.dtype in ("float32", "float64") and len(v.shape) >= 2 and sized(v.shape))
    if value is not None:
        _normalize(graph, value)


def _pool(graph: GraphBuilder) -> None:
    value = graph.find(lambda v: v.dtype == "float32" and len(v.shape) == 4 and sized(v.shape))
    if value is None:
        return
    if graph.chance(3):
        graph.add("GlobalAveragePool", [value], [(value.dtype, (*value.shape[:2], 1, 1))])
        return
    op_type, pads = graph.choices.pick(("MaxPool", "AveragePool")), [1, 1, 1, 1]
    graph.add(op_type, [value], [(value.dtype, value.shape)], kernel_shape=[3, 3], pads=pads)


def _layer_normalization(graph: GraphBuilder) -> None:
    """As one operator, or as the nodes it is made of."""
    value = graph.find(lambda v: v.dtype in ("float32", "float64") and len(v.shape) >= 2 and sized(v.shape))
    if value is None:
        return
    size = value.shape[-1]
    assert isinstance(size, int)
    face, small = (value.dtype, value.shape), (value.dtype, (*value.shape[:-1], 1))
    if graph.opset >= 17 and graph.chance(2):
        bias = [graph.weight((size,), dtype=value.dtype)] if graph.chance(2) else []
        graph.add("LayerNormalization", [value, graph.weight((size,), dtype=value.dtype), *bias], [face])
        return
    centered = value
    if graph.chance(2):
        (mean,) = _reduce(graph, "ReduceMean", value, small)
        (centered,) = graph.add("Sub", [value, mean], [face])
    (square,) = graph.add("Mul", [centered, centered], [face])
    (variance,) = _reduce(graph, "ReduceMean", square, small)
    (shifted,) = graph.add("Add", [variance, graph.constant(1e-5, value.dtype)], [small])
    (deviation,) = graph.add("Sqrt", [shifted], [small])
    (scaled,) = graph.add("Div", [centered, deviation], [face])
    graph.add("Mul", [scaled, graph.weight((size,), dtype=value.dtype)], [face])


def _reduce(graph: GraphBuilder, op_type: str, value: Value, face: tuple[str, Shape]) -> list[Value]:
    if graph.opset >= 18:
        return graph.add(op_type, [value, graph.constant([-1])], [face])
    return graph.add(op_type, [value], [face], axes=[-1])


def _gelu(graph: GraphBuilder) -> None:
    """As one operator, as a foreign one, or as the nodes it is made of."""
    value = graph.find(lambda v: v.dtype == "float32")
    if value is None:
        return
    face = (value.dtype, value.shape)
    if graph.chance(2):
        graph.add("Gelu", [value], [face], domain="com.microsoft")
    elif graph.chance(2) and graph.opset >= 20:
        graph.add("Gelu", [value], [face])
    else:
        (scaled,) = graph.add("Div", [value, graph.constant(math.sqrt(2), "float32")], [face])
        (error,) = graph.add("Erf", [scaled], [face])
        (shifted,) = graph.add("Add", [error, graph.constant(1.0, "float32")], [face])
        (product,) = graph.add("Mul", [value, shifted], [face])
        graph.add("Mul", [product, graph.constant(0.5, "float32")], [face])


def _softmax(graph: GraphBuilder) -> None:
    if (value := graph.find(lambda v: v.is_float and len(v.shape) > 0)) is not None:
        graph.add("Softmax", [value], [(value.dtype, value.shape)], axis=-1)


LAYERS: tuple[Step, ...] = (
    _product,
    _product,
    _convolution,
    _convolution,
    _batch_normalization,
    _pool,
    _layer_normalization,
    _gelu,
    _gelu,
    _softmax,
)
