"""Steps that write out what the standard has an operator for: normalizations, activations, attention, affine products."""

from __future__ import annotations

import math

import numpy as np

from irc.testing.random_graph import GraphBuilder, Step, Value
from irc.testing.random_patterns import Pattern, whole


def _normalization(graph: GraphBuilder) -> None:
    """Layer normalization or its sibling without a mean, over the last axis or two, perhaps in a wider type."""
    value = graph.find(lambda v: v.is_float and len(v.shape) >= 2 and whole(v.shape[1:]) is not None)
    if value is None:
        return
    pattern, rank = Pattern(graph), len(value.shape)
    narrow, widened = value.dtype, value.dtype == "float16" and not graph.chance(4)
    inner = pattern.cast(value, "float32") if widened else value
    count = 2 if rank > 2 and graph.chance(4) else 1
    axes = pattern.nearly(list(range(-count, 0)), [1])
    small = tuple(1 if axis - rank in axes or axis in axes else size for axis, size in enumerate(value.shape))
    centered = inner
    if graph.chance(2):
        mean = _mean(pattern, inner, axes, small)
        subtracted = pattern.nearly((inner, mean), (mean, inner))
        centered = pattern.node("Sub", subtracted, inner.shape)
    if graph.chance(2):
        square = pattern.node("Mul", [centered, centered])
    else:
        square = pattern.node("Pow", [centered, pattern.number(pattern.nearly(2.0, 4.0), centered.dtype)])
    epsilon = pattern.number(pattern.either(1e-5, 1e-3), inner.dtype, rank=rank)
    power = pattern.joined("Add", _mean(pattern, square, axes, small), epsilon)
    if (how := pattern.either("div", "div", "reciprocal", "one over", "power")) == "power":
        factor = pattern.node("Pow", [power, pattern.number(pattern.nearly(-0.5, -1.0), inner.dtype)])
        result = pattern.joined("Mul", centered, factor)
    else:
        root = pattern.node("Sqrt", [power])
        if how == "div":
            result = pattern.node("Div", [pattern.nearly(centered, inner), root], inner.shape)
        elif how == "reciprocal":
            result = pattern.joined("Mul", centered, pattern.node("Reciprocal", [root]))
        else:
            one = pattern.number(1.0, inner.dtype)
            result = pattern.joined("Mul", centered, pattern.node("Div", [one, root], small))
    result = pattern.cast(result, narrow) if widened else result
    sizes = [size for size in value.shape[-count:] if isinstance(size, int)]
    scaled, shifted = not graph.chance(4), graph.chance(2)
    if scaled:
        sizes_of_scale = pattern.nearly(sizes, [1] * count, sizes[-1:])
        weight = graph.weight(sizes_of_scale, dtype=narrow)
        result = pattern.joined("Mul", result, weight, last=not shifted)
    if shifted or not scaled:
        pattern.joined("Add", result, graph.weight(sizes, dtype=narrow), last=True)


def _mean(pattern: Pattern, value: Value, axes: list[int], small: tuple[int | str, ...]) -> Value:
    if pattern.graph.opset >= 18:
        return pattern.node("ReduceMean", [value, pattern.graph.constant(axes)], small)
    return pattern.node("ReduceMean", [value], small, axes=axes)


def _gelu(graph: GraphBuilder) -> None:
    """By the error function or by tanh, its factors in any order."""
    value = graph.any_float()
    if value is None or value.dtype == "float64":
        return
    pattern, rank = Pattern(graph), len(value.shape)

    def times(factor: float, of: Value, *, last: bool = False) -> Value:
        return pattern.joined("Mul", of, pattern.number(factor, of.dtype, rank=rank), last=last)

    if graph.chance(2):
        root = pattern.nearly(math.sqrt(2), math.sqrt(2) * 1.001)
        divided = pattern.either(True, False)
        if divided:
            argument = pattern.node("Div", [value, pattern.number(root, value.dtype, rank=rank)])
        else:
            argument = times(1 / root, value)
        function = pattern.node("Erf", [argument])
    else:
        how = pattern.either("pow", "mul")
        third = pattern.number(pattern.nearly(3.0, 2.0), value.dtype)
        cube = (
            pattern.node("Pow", [value, third])
            if how == "pow"
            else pattern.joined("Mul", pattern.node("Mul", [value, value]), value)
        )
        total = pattern.joined("Add", value, times(pattern.nearly(0.044715, 0.0447), cube))
        function = pattern.node("Tanh", [times(pattern.nearly(math.sqrt(2 / math.pi), 0.8), total)])
    shifted = pattern.joined("Add", function, pattern.number(pattern.nearly(1.0, 1.01), value.dtype, rank=rank))
    half = pattern.nearly(0.5, 0.25)
    other = pattern.nearly(value, graph.find(lambda v: (v.dtype, v.shape) == (value.dtype, value.shape)) or value)
    order = pattern.either("last", "first", "inner")
    if order == "last":
        times(half, pattern.joined("Mul", other, shifted), last=True)
    elif order == "first":
        pattern.joined("Mul", times(half, other), shifted, last=True)
    else:
        pattern.joined("Mul", other, times(half, shifted), last=True)


def _hard_swish(graph: GraphBuilder) -> None:
    """HardSigmoid or HardSwish, the latter by HardSigmoid or by Clip."""
    value = graph.any_float()
    if value is None or (value.dtype == "float64" and graph.chance(2)):
        return
    pattern, dtype, rank = Pattern(graph), value.dtype, len(value.shape)
    if dtype == "float32" and graph.chance(3):
        alpha = pattern.nearly(1 / 6, 0.2)
        pattern.joined("Mul", value, pattern.node("HardSigmoid", [value], alpha=alpha, beta=0.5), last=True)
        return
    shifted = pattern.joined("Add", value, pattern.number(pattern.nearly(3.0, 2.5), dtype, rank=rank))
    bounds = [graph.constant(0.0, dtype), graph.constant(pattern.nearly(6.0, 5.0), dtype)]
    clipped = pattern.node("Clip", [shifted, *bounds])
    swish = graph.chance(2)
    if swish and graph.chance(2):
        clipped, swish = pattern.joined("Mul", value, clipped), False
    if graph.chance(2):
        result = pattern.node("Div", [clipped, pattern.number(6.0, dtype, rank=rank)], last=not swish)
    else:
        result = pattern.joined("Mul", clipped, pattern.number(1 / 6, dtype, rank=rank), last=not swish)
    if swish:
        pattern.joined("Mul", value, result, last=True)


def _mish(graph: GraphBuilder) -> None:
    value = graph.find(lambda v: v.dtype in ("float32", "float16"))
    if value is None:
        return
    pattern = Pattern(graph)
    inner = pattern.node("Softplus", [value])
    outer = pattern.node(pattern.nearly("Tanh", "Sigmoid"), [inner])
    pattern.joined("Mul", pattern.nearly(value, inner), outer, last=True)


def _attention(graph: GraphBuilder) -> None:
    """Scaled dot-product attention, its heads an axis or split off the last one, with or without a mask."""
    value = graph.find(lambda v: v.is_float and len(v.shape) >= 2 and whole(v.shape[1:]) is not None)
    if value is None:
        return
    pattern, dtype = Pattern(graph), value.dtype
    sizes = whole(value.shape[1:]) or ()
    length, width = (sizes[0], math.prod(sizes[1:])) if len(sizes) > 1 else (1, sizes[0])
    if width % 2:
        return
    if len(sizes) != 2:
        value = pattern.node(
            "Reshape", [value, graph.constant([0, length, width])], (value.shape[0], length, width), exact=True
        )
    batch, heads, size = value.shape[0], 2, width // 2
    parts = []
    for _ in range(3):
        made = pattern.node("MatMul", [value, graph.weight((width, width), dtype=dtype, kind="small")])
        split = pattern.node("Reshape", [made, graph.constant([0, length, heads, size])], (batch, length, heads, size))
        parts.append(split)
    face = (batch, heads, length, size)
    q, v = (pattern.node("Transpose", [part], face, perm=[0, 2, 1, 3]) for part in (parts[0], parts[2]))
    if graph.chance(2):
        keys = pattern.node("Transpose", [parts[1]], face, perm=[0, 2, 1, 3])
        keys = pattern.node("Transpose", [keys], (batch, heads, size, length), perm=[0, 1, 3, 2])
    else:
        keys = pattern.node("Transpose", [parts[1]], (batch, heads, size, length), perm=[0, 2, 3, 1])
    scale, scores_face = pattern.nearly(size**-0.5, 1.0, -0.5), (batch, heads, length, length)
    before = graph.chance(3)
    if before:
        q = pattern.joined("Mul", q, pattern.number(scale, dtype))
    scores = pattern.node("MatMul", [q, keys], scores_face)
    if not before:
        if graph.chance(2):
            scores = pattern.node("Div", [scores, pattern.number(1 / scale, dtype)])
        else:
            scores = pattern.joined("Mul", scores, pattern.number(scale, dtype))
    if graph.chance(2):
        mask = np.triu(np.full((length, length), pattern.either(-np.inf, -1e4), "float32"), 1)
        if graph.chance(4):
            mask[0] = mask[0, -1]
        shape = pattern.either((1, 1, length, length), (length, length), (1, heads, length, length))
        scores = pattern.joined("Add", scores, graph.constant(np.broadcast_to(mask, shape), dtype))
    softmax = pattern.node("Softmax", [scores], axis=pattern.nearly(-1, 1))
    result = pattern.node("MatMul", [softmax, v], face, last=graph.chance(4))
    turned = pattern.node("Transpose", [result], (batch, length, heads, size), perm=[0, 2, 1, 3])
    pattern.node("Reshape", [turned, graph.constant([0, length, width])], (batch, length, width), last=True)


def _affine_product(graph: GraphBuilder) -> None:
    """A product of matrices of which one is transposed, and a sum behind it."""
    value = graph.find(lambda v: v.is_float and len(v.shape) == 2 and whole(v.shape[1:]) is not None)
    if value is None:
        return
    pattern, inner = Pattern(graph), value.shape[1]
    assert isinstance(inner, int)
    way = pattern.either("weight", "gram", "gram", "transposed")
    if way == "weight":
        columns = 3
        product = pattern.node("MatMul", [value, graph.weight((inner, 3), dtype=value.dtype)], (value.shape[0], 3))
    elif way == "gram":
        columns = inner
        turned = pattern.node("Transpose", [value], value.shape[::-1], perm=[1, 0])
        product = pattern.node("MatMul", [turned, value], (inner, inner))
    else:
        columns = 4
        turned = pattern.node("Transpose", [graph.weight((4, inner), dtype=value.dtype)], (inner, 4), perm=[1, 0])
        product = pattern.node("MatMul", [value, turned], (value.shape[0], 4))
    row = graph.weight(pattern.nearly((columns,), (1, columns), (1,)), dtype=value.dtype)
    pattern.joined("Add", product, row, last=True)


FUSIONS: tuple[Step, ...] = (
    *(_normalization, _normalization, _normalization, _normalization),
    *(_gelu, _gelu, _gelu),
    _hard_swish,
    _mish,
    *(_attention, _attention, _attention, _attention),
    _affine_product,
)
