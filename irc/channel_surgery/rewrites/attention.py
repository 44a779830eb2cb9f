"""Attention: how many heads survive, and the temperature of heads that get smaller."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.rewrites.registration import rewrite


@rewrite("Attention")
def attention(node: ir.Node, cut: Cut) -> None:
    """`q_num_heads` and `kv_num_heads` are counted anew; an absent `scale` becomes that of the heads before."""
    query, key = cut.read(node, 0), cut.read(node, 1)
    if query.rank == 4:
        _keep_scale(node, query.dims[3], cut.size(query, 3))
        return
    heads = node.attributes.get_int("q_num_heads", 1)
    left = cut.surviving_rows(query, 2, heads)
    _keep_scale(node, query.dims[2] // heads, cut.size(query, 2) // left)
    node.attributes["q_num_heads"] = ir.AttrInt64("q_num_heads", left)
    kv = cut.surviving_rows(key, 2, node.attributes.get_int("kv_num_heads", 1))
    node.attributes["kv_num_heads"] = ir.AttrInt64("kv_num_heads", kv)


@rewrite("MultiHeadAttention", domain="com.microsoft")
def multi_head_attention(node: ir.Node, cut: Cut) -> None:
    """`num_heads` is counted anew; an absent `scale` becomes that of the heads before."""
    query = cut.read(node, 0)
    heads = node.attributes.get_int("num_heads", 1)
    left = cut.surviving_rows(query, 2, heads)
    _keep_scale(node, query.dims[2] // heads, cut.size(query, 2) // left)
    node.attributes["num_heads"] = ir.AttrInt64("num_heads", left)


@rewrite("Attention", domain="com.microsoft")
def packed_attention(node: ir.Node, cut: Cut) -> None:
    """The same, and `qkv_hidden_sizes` says what survives of queries, keys and values."""
    weight = cut.read(node, 1)
    columns = weight.dims[1]
    heads = node.attributes.get_int("num_heads", 1)
    sizes = list(node.attributes.get_ints("qkv_hidden_sizes", [columns // 3] * 3))
    kept = cut.kept(weight, 1)
    left = [int(part.sum()) for part in np.split(kept, np.cumsum(sizes)[:-1])]
    rows = int(kept[: sizes[0]].reshape(heads, -1).any(axis=1).sum())
    _keep_scale(node, sizes[0] // heads, left[0] // rows)
    node.attributes["num_heads"] = ir.AttrInt64("num_heads", rows)
    if "qkv_hidden_sizes" in node.attributes or len(set(left)) > 1:
        node.attributes["qkv_hidden_sizes"] = ir.AttrInt64s("qkv_hidden_sizes", left)


@rewrite("RotaryEmbedding")
@rewrite("RotaryEmbedding", domain="com.microsoft")
def rotary(node: ir.Node, cut: Cut) -> None:
    """`num_heads`, where it is given, is counted anew."""
    tensor = cut.read(node, 0)
    heads = node.attributes.get_int("num_heads", 0)
    if tensor.rank == 3 and heads:
        node.attributes["num_heads"] = ir.AttrInt64("num_heads", cut.surviving_rows(tensor, 2, heads))


def _keep_scale(node: ir.Node, before: int, after: int) -> None:
    if before != after and not node.attributes.get_float("scale", 0.0):
        node.attributes["scale"] = ir.AttrFloat32("scale", 1 / math.sqrt(before))
