"""Blocks of attention: heads from three layers or from one, shared keys, rotary positions, biases, masks, whole operators."""

from __future__ import annotations

import math
from typing import Any

from irc.testing.channel_steps import ONNX_TYPES, Block, ChannelBuilder, Shape, Value
from irc.testing.channel_steps_forms import dimension, linear, reshape, transpose
from irc.testing.channel_steps_heads import (
    causal,
    from_heads,
    merge_heads,
    packed,
    repeated,
    rotary_tables,
    rotated,
    split_heads,
    to_heads,
)

DEPTHS = (4, 3, 6, 2, 8)


def _sizes(graph: ChannelBuilder, *, even: bool = False) -> tuple[int, int]:
    """Heads and channels of each."""
    return graph.choices.pick((2, 3, 4)), graph.choices.pick([size for size in DEPTHS if size % 2 == 0 or not even])


def _finished(graph: ChannelBuilder, value: Value, heads: Value) -> Value:
    """Heads merged and projected, the input added at times."""
    result = linear(graph, from_heads(graph, heads), value.width)
    return graph.binary("Add", value, result) if graph.chance(2) else result


def _by_three(graph: ChannelBuilder, value: Value) -> Value | None:
    """Queries, keys, values of a layer each; those of keys and values may read an earlier sequence."""
    heads, depth = _sizes(graph)
    source = value
    if graph.chance(2):
        source = graph.earlier(lambda known: len(known.shape) == 3 and known.shape[0] == value.shape[0]) or value
    depth_of_values = depth if not graph.chance(4) else graph.choices.pick(DEPTHS)
    query = to_heads(graph, linear(graph, value, heads * depth), heads)
    key = to_heads(graph, linear(graph, source, heads * depth), heads)
    values = to_heads(graph, linear(graph, source, heads * depth_of_values), heads)
    return _finished(graph, value, attended(graph, query, key, values))


def _packed(graph: ChannelBuilder, value: Value) -> Value | None:
    query, key, values = packed(graph, value, *_sizes(graph))
    return _finished(graph, value, attended(graph, query, key, values))


def _grouped(graph: ChannelBuilder, value: Value) -> Value | None:
    """Several heads of queries for each head of keys and values; rotary positions at times."""
    times, key_heads = graph.choices.pick((2, 3)), graph.choices.pick((2, 1, 3))
    depth = graph.choices.pick((4, 2, 6))
    query = to_heads(graph, linear(graph, value, times * key_heads * depth), times * key_heads)
    key = to_heads(graph, linear(graph, value, key_heads * depth), key_heads)
    values = to_heads(graph, linear(graph, value, key_heads * depth), key_heads)
    if graph.chance(2):
        graph.note("rotary positions")
        tables = rotary_tables(graph, query)
        query, key = rotated(graph, query, tables), rotated(graph, key, tables)
    if graph.opset >= 23 and graph.chance(2):
        graph.note("Attention operator, fewer keys")
        return _finished(graph, value, _operator(graph, query, key, values))
    key, values = repeated(graph, key, times), repeated(graph, values, times)
    return _finished(graph, value, attended(graph, query, key, values))


def _rotary(graph: ChannelBuilder, value: Value) -> Value | None:
    heads, depth = _sizes(graph, even=True)
    query, key, values = packed(graph, value, heads, depth)
    tables = rotary_tables(graph, query)
    graph.note("rotary positions")
    attention = attended(graph, rotated(graph, query, tables), rotated(graph, key, tables), values)
    return _finished(graph, value, attention)


def attended(graph: ChannelBuilder, query: Value, key: Value, values: Value) -> Value:
    """softmax(Q K^T / sqrt(d)) V of [N, h, T, d]: written out, or by the operator of opset 23.

    Args:
        graph: Where.
        query: [N, h, T, d].
        key: [N, h, S, d].
        values: [N, h, S, e].
    """
    if graph.opset >= 23 and graph.chance(2):
        graph.note("Attention operator")
        return _operator(graph, query, key, values)
    depth, shape = query.known(3), (*query.shape[:3], key.shape[2])
    result = (*query.shape[:3], values.shape[3])
    by_einsum = graph.chance(4)
    scale = graph.choices.integer(0, 3)
    if scale == 0:
        query = graph.binary("Mul", query, graph.scalar(1 / math.sqrt(depth)))
    if by_einsum:
        graph.note("Einsum of heads")
        scores = graph.op("Einsum", [query, key], shape, equation="bhqd,bhkd->bhqk")
    else:
        scores = graph.op("MatMul", [query, transpose(graph, key, (0, 1, 3, 2))], shape)
    if scale == 1:
        scores = graph.binary("Mul", scores, graph.scalar(1 / math.sqrt(depth)))
    elif scale == 2:
        scores = graph.binary("Div", scores, graph.scalar(math.sqrt(depth)))
    elif scale == 3:
        scores = _scaled_by_shape(graph, scores, query)
    scores = _shifted(graph, scores)
    weights = graph.op("Softmax", [scores], shape, axis=graph.choices.pick((-1, 3)))
    if graph.chance(3):
        missing = graph.op("IsNaN", [weights], shape, dtype="bool")
        weights = graph.op("Where", [missing, graph.number(0.0), weights], shape, dtype="float32")
    if by_einsum:
        return graph.op("Einsum", [weights, values], result, equation="bhqk,bhkd->bhqd")
    return graph.op("MatMul", [weights, values], result)


def _scaled_by_shape(graph: ChannelBuilder, scores: Value, query: Value) -> Value:
    """The scale computed from how many channels there are."""
    graph.note("scale by Shape")
    depth = graph.op("Cast", [dimension(graph, query, 3)], (1,), dtype="float32", to=ONNX_TYPES["float32"])
    return graph.binary("Div", scores, graph.unary("Sqrt", depth))


def _shifted(graph: ChannelBuilder, scores: Value) -> Value:
    """Scores with a bias for each head and distance, or for each head, or causal."""
    heads, length = scores.known(1), scores.sizes(2, 3)
    form = graph.choices.integer(0, 4)
    if form == 0 and length is not None:
        graph.note("relative bias")
        shape = graph.choices.pick(((heads, *length), (1, heads, *length)))
        return graph.binary("Add", scores, graph.weight(shape, "bias"))
    if form == 1:
        return graph.binary("Mul", scores, graph.weight((heads, 1, 1), "scale"))
    if form == 2 and scores.shape[2] == scores.shape[3]:
        graph.note("causal mask")
        inputs = [causal(graph, scores), scores, graph.number(-1e4)]
        return graph.op("Where", inputs, scores.shape, dtype="float32")
    return scores


def _operator(graph: ChannelBuilder, query: Value, key: Value, values: Value) -> Value:
    """Attention of opset 23 on [N, h, T, d]; with its scale given or left out, and with a bias at times."""
    attributes: dict[str, Any] = {} if graph.chance(2) else {"scale": 1 / math.sqrt(query.known(3))}
    length = (*(query.sizes(2) or ()), *(key.sizes(2) or ()))
    bias = None
    if len(length) == 2 and graph.chance(3):
        bias = graph.weight((query.known(1), *length) if graph.chance(2) else length, "bias")
    elif query.shape[2] == key.shape[2] and graph.chance(3):
        attributes["is_causal"] = 1
    return graph.op("Attention", [query, key, values, bias], (*query.shape[:3], values.shape[3]), **attributes)


def _operator_of_three_axes(graph: ChannelBuilder, value: Value) -> Value | None:
    """Attention of opset 23 on [N, T, h*d], which names the heads in attributes."""
    if graph.opset < 23:
        return None
    times, key_heads, depth = graph.choices.pick((1, 2)), graph.choices.pick((2, 3)), graph.choices.pick((4, 3, 2))
    heads = times * key_heads
    inputs = [linear(graph, value, number * depth) for number in (heads, key_heads, key_heads)]
    attributes: dict[str, Any] = {} if graph.chance(2) else {"scale": 0.5}
    if graph.chance(3):
        attributes["is_causal"] = 1
    shape: Shape = (*value.shape[:2], heads * depth)
    made = graph.op("Attention", inputs, shape, q_num_heads=heads, kv_num_heads=key_heads, **attributes)
    return linear(graph, made, value.width)


def _multi_head_operator(graph: ChannelBuilder, value: Value) -> Value | None:
    """MultiHeadAttention of ONNX Runtime, with one bias for queries, keys and values at times."""
    heads, depth = graph.choices.pick((2, 3, 4)), graph.choices.pick((4, 2, 3))
    width = heads * depth
    inputs: list[Value | None] = [*(linear(graph, value, width) for _ in range(3))]
    if graph.chance(2):
        inputs.append(graph.weight((3 * width,), "bias"))
    attributes: dict[str, Any] = {} if graph.chance(2) else {"scale": 0.5}
    shape = (*value.shape[:2], width)
    made = graph.op("MultiHeadAttention", inputs, shape, domain="com.microsoft", num_heads=heads, **attributes)
    return linear(graph, made, value.width)


def _einsum(graph: ChannelBuilder, value: Value) -> Value | None:
    """Attention of which every product is an Einsum: weights [C, h, d], heads never transposed."""
    heads, depth = _sizes(graph)
    width = value.width
    if graph.chance(2):
        weights = [graph.matrix((width, heads, depth), width) for _ in range(3)]
        shape = (value.shape[0], heads, value.shape[1], depth)
        query, key, values = (graph.op("Einsum", [value, w], shape, equation="btc,chd->bhtd") for w in weights)
        made = attended(graph, query, key, values)
        back = graph.matrix((heads, depth, width), heads * depth)
        return graph.op("Einsum", [made, back], value.shape, equation="bhtd,hdo->bto")
    parts = [split_heads(graph, linear(graph, value, heads * depth), heads) for _ in range(3)]
    square = (value.shape[0], heads, value.shape[1], value.shape[1])
    scores = graph.op("Einsum", parts[:2], square, equation="bqhd,bkhd->bhqk")
    weights_of = graph.op("Softmax", [graph.binary("Mul", scores, graph.scalar(0.5))], square, axis=-1)
    made = graph.op("Einsum", [weights_of, parts[2]], parts[2].shape, equation="bhqk,bkhd->bqhd")
    return linear(graph, merge_heads(graph, made), width)


def _flat_heads(graph: ChannelBuilder, value: Value) -> Value | None:
    """Batch and heads in one axis, as older exports have it: [N*h, T, d] by a Reshape with an open first size."""
    heads, depth = _sizes(graph)
    length = value.sizes(1)
    if length is None:
        return None
    flat = []
    for _ in range(3):
        turned = to_heads(graph, linear(graph, value, heads * depth), heads)
        flat.append(reshape(graph, turned, [-1, *length, depth], ("heads", *length, depth)))
    scores = graph.op("MatMul", [flat[0], transpose(graph, flat[1], (0, 2, 1))], ("heads", *length, *length))
    weights = graph.op("Softmax", [graph.binary("Mul", scores, graph.scalar(0.5))], scores.shape, axis=-1)
    made = graph.op("MatMul", [weights, flat[2]], flat[2].shape)
    apart = reshape(graph, made, [-1, heads, *length, depth], (value.shape[0], heads, *length, depth))
    return _finished(graph, value, apart)


SEQUENCE: dict[str, Block] = {
    "attention by three layers": _by_three,
    "attention, packed": _packed,
    "attention, fewer keys": _grouped,
    "attention, rotary": _rotary,
    "attention, 3-D operator": _operator_of_three_axes,
    "attention of ONNX Runtime": _multi_head_operator,
    "attention by Einsum": _einsum,
    "attention, flat heads": _flat_heads,
}
