"""Steps with additions and multiplications of constants: in a row, and before and behind what can take them in."""

from __future__ import annotations

from typing import Any

from irc.testing.random_graph import GraphBuilder, Step, Value
from irc.testing.random_patterns import Pattern, whole


def _host(graph: GraphBuilder) -> None:
    """Convolution, product or batch normalization, with affine maps before and behind."""
    value = graph.find(lambda v: v.is_float and len(v.shape) >= 2 and whole(v.shape[1:]) is not None)
    if value is None:
        return
    pattern = Pattern(graph)
    before, behind = graph.choices.pick(((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)))
    options = ["BatchNormalization", "MatMul"]
    if len(value.shape) == 2:
        options += ["Gemm", "Gemm"]
    elif value.dtype != "float64":
        options += ["Conv", "Conv", "ConvTranspose"]
    op_type = graph.choices.pick(options)
    if value.dtype == "float16" and op_type == "BatchNormalization":
        return
    axis = len(value.shape) - 1 if op_type in ("Gemm", "MatMul") else 1
    for _ in range(before):
        value = _map(pattern, value, axis)
    normalized = op_type in ("Conv", "ConvTranspose", "Gemm") and value.dtype != "float16" and graph.chance(3)
    value = _linear(pattern, op_type, value, last=behind == 0 and not normalized)
    if normalized:
        value = _linear(pattern, "BatchNormalization", value, last=behind == 0)
    for index in range(behind):
        value = _map(pattern, value, axis, last=index == behind - 1)


def _map(pattern: Pattern, value: Value, axis: int, *, last: bool = False) -> Value:
    """The value times or plus a constant, one number or one per channel; seldom along another axis."""
    graph, rank = pattern.graph, len(value.shape)
    axis = pattern.nearly(axis, rank - 1, 1)
    size = value.shape[axis]
    assert isinstance(size, int)
    behind = [1] * (rank - 1 - axis)
    shapes: list[tuple[int, ...]] = [(), (1,), (size, *behind), (*([1] * axis), size, *behind)]
    shape = graph.choices.pick(shapes)
    op_type = pattern.either("Add", "Mul", "Sub", "Div", "Mul")
    kind = "positive" if op_type == "Div" else graph.choices.pick(("normal", "normal", "positive"))
    weight = graph.weight(shape, dtype=value.dtype, kind=kind)
    if op_type in ("Add", "Mul"):
        return pattern.joined(op_type, value, weight, last=last)
    swapped = op_type == "Sub" and graph.chance(3)
    return pattern.node(op_type, [weight, value] if swapped else [value, weight], value.shape, last=last)


def _linear(pattern: Pattern, op_type: str, value: Value, *, last: bool) -> Value:
    graph, dtype, made = pattern.graph, value.dtype, 4
    channels = value.shape[1]
    assert isinstance(channels, int)
    if op_type == "BatchNormalization":
        kinds = ("normal", "normal", "normal", "positive")
        weights = [graph.weight((channels,), dtype=dtype, kind=kind) for kind in kinds]
        return pattern.node(op_type, [value, *weights], last=last, epsilon=1e-5)
    bias = [graph.weight((made,), dtype=dtype)] if graph.chance(2) else []
    if op_type in ("Gemm", "MatMul"):
        inner = value.shape[-1]
        assert isinstance(inner, int)
        shape = (*value.shape[:-1], made)
        turned = op_type == "Gemm" and graph.chance(2)
        weight = graph.weight((made, inner) if turned else (inner, made), dtype=dtype, kind="normal")
        if op_type == "Gemm":
            alpha, beta = pattern.nearly(1.0, 0.5), pattern.nearly(1.0, 0.0, 2.0)
            return pattern.node(
                op_type, [value, weight, *bias], shape, last=last, transB=int(turned), alpha=alpha, beta=beta
            )
        product = pattern.node(op_type, [value, weight], shape, last=last and not bias)
        return pattern.joined("Add", product, bias[0], last=last) if bias else product
    spatial = [size for size in value.shape[2:] if isinstance(size, int)]
    padding = graph.choices.integer(0, 1) if all(size >= 3 for size in spatial) else 1
    if op_type == "Conv":
        group = channels if channels == made and graph.chance(3) else 1
        dims = (made, channels // group, *(3 for _ in spatial))
        grown = [size + 2 * padding - 2 for size in spatial]
    else:
        group = 2 if channels % 2 == 0 and graph.chance(3) else 1
        dims = (channels, made // group, *(3 for _ in spatial))
        grown = [size - 2 * padding + 2 for size in spatial]
    weight = graph.weight(dims, dtype=dtype, kind="normal")
    pads = [padding] * (2 * len(spatial))
    shape = (value.shape[0], made, *grown)
    return pattern.node(op_type, [value, weight, *bias], shape, last=last, pads=pads, group=group)


def _row(graph: GraphBuilder) -> None:
    """Constants added, subtracted, multiplied or divided by, one after another."""
    value = graph.find(lambda v: v.dtype in ("float32", "float16", "float64", "int64", "int32"))
    if value is None:
        return
    pattern, exact = Pattern(graph), not value.is_float
    group = ("Add", "Sub") if graph.chance(2) else ("Mul", "Div") if value.is_float else ("Mul",)
    count = graph.choices.integer(2, 3)
    for index in range(count):
        op_type = pattern.nearly(graph.choices.pick(group), "Mul", "Add")
        last = index == count - 1
        numbers = (2.0, 0.5, -3.0, 1.5) if value.is_float else (2, 3, -1)
        size = value.shape[-1] if value.shape else 1
        wide = value.is_float and isinstance(size, int) and graph.chance(3) and bool(value.shape)
        if wide and isinstance(size, int):
            other = graph.weight((size,), dtype=value.dtype, kind="positive")
        else:
            other = pattern.number(graph.choices.pick(numbers), value.dtype, rank=len(value.shape))
        swapped = op_type != "Div" and graph.chance(2)
        operands = [other, value] if swapped else [value, other]
        value = pattern.node(op_type, operands, value.shape, exact=exact, last=last)


def _padded_window(graph: GraphBuilder) -> None:
    """A Pad, and a convolution or pool that could do it."""
    value = graph.find(lambda v: v.dtype == "float32" and len(v.shape) == 4 and whole(v.shape[1:]) is not None)
    if value is None:
        return
    pattern = Pattern(graph)
    if graph.chance(2):
        value = pattern.node("Relu", [value], exact=True)
    batch, channels, height, width = value.shape
    assert isinstance(channels, int) and isinstance(height, int) and isinstance(width, int)
    inputs = [value, graph.constant([0, 0, 1, 1, 0, 0, 1, 1])]
    if graph.chance(2):
        inputs.append(graph.constant(pattern.nearly(0.0, 1.0, -1e9), "float32"))
    mode = pattern.nearly("constant", "edge")
    padded = (batch, channels, height + 2, width + 2)
    value = pattern.node("Pad", inputs, padded, exact=True, mode=mode)
    kind = pattern.either("Conv", "MaxPool", "AveragePool")
    own = pattern.either(0, 1)
    window: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [own] * 4}
    grown = 2 * own
    shape = (batch, channels, height + grown, width + grown)
    if kind == "Conv":
        weight = graph.weight((channels, channels, 3, 3), dtype="float32", kind="normal")
        pattern.node("Conv", [value, weight], shape, last=True, **window)
    elif kind == "MaxPool":
        pattern.node("MaxPool", [value], shape, last=True, **window)
    else:
        counted = graph.choices.integer(0, 1)
        pattern.node("AveragePool", [value], shape, last=True, count_include_pad=counted, **window)


AFFINE: tuple[Step, ...] = (_host, _host, _host, _host, _row, _padded_window, _padded_window)
