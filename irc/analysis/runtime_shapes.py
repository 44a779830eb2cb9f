"""Output shapes of ONNX Runtime's own operators (com.microsoft), of which onnx knows nothing.

Only operators whose first output follows plainly from the shapes of their inputs; the rest stays unknown.
"""

from __future__ import annotations

import onnx_ir as ir

Dims = tuple[int | None, ...]

_LIKE_FIRST = frozenset(
    {
        *("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QuantizeLinear", "DequantizeLinear"),
        *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "BiasSoftmax", "BiasAdd", "RotaryEmbedding", "GroupNorm"),
        *("SkipGroupNorm", "BiasDropout"),
        *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"),
    }
)
_PRODUCTS = {"FusedMatMul": 1, "TransposeMatMul": 1, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1}
"""Matrix products: index of the second operand."""
_TO_FLOAT = frozenset({"MatMulIntegerToFloat", "DynamicQuantizeMatMul"})
STANDARD_TWINS = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
"""Operators whose output has the shape of a standard operator's on the same leading inputs."""


def runtime_dims(node: ir.Node, inputs: list[Dims | None]) -> Dims | None:
    """The shape of the first output of a com.microsoft node, or None if it is not known.

    Args:
        node: The node.
        inputs: Shapes of its inputs, None for omitted or unknown ones.
    """
    first = inputs[0] if inputs else None
    if first is None:
        return None
    kind = node.op_type
    if kind in _LIKE_FIRST:
        return first
    if kind in ("QLinearAdd", "QLinearMul"):
        return _broadcast(first, _at(inputs, 3))
    if kind in _PRODUCTS:
        return _product(node, first, _at(inputs, _PRODUCTS[kind]))
    if kind == "QGemm":
        return _gemm(node, first, _at(inputs, 3))
    if kind == "MatMulNBits":
        return (*first[:-1], node.attributes.get_int("N", 0))
    if kind == "QLinearGlobalAveragePool" and not node.attributes.get_int("channels_last", 0):
        return (*first[:2], *(1 for _ in first[2:]))
    if kind == "QLinearConcat":
        return _joined(inputs[2::3], node.attributes.get_int("axis", 0))
    weights = _at(inputs, 1)
    if kind == "Attention" and weights is not None and weights[-1] is not None:
        sizes = node.attributes.get_ints("qkv_hidden_sizes", [])
        return (*first[:-1], sizes[-1] if sizes else weights[-1] // 3)
    values = _at(inputs, 2)
    if kind == "EmbedLayerNormalization" and values is not None:
        return (*first, values[-1])
    if kind == "MultiHeadAttention" and len(first) == 3 and values is not None and len(values) in (3, 4):
        width = values[2] if len(values) == 3 else _times(values[1], values[3])
        return (*first[:2], width)
    return None


def further_dims(node: ir.Node, inputs: list[Dims | None], index: int) -> Dims | None:
    """The shape of another output, of operators with a skip connection or a table: moments, and the sum that is normalized."""
    if node.op_type in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
        first = _at(inputs, 0)
        return first if first is None or index == 3 else (*first[:-1], 1)
    if node.op_type == "EmbedLayerNormalization":
        whole = runtime_dims(node, inputs)
        return whole if whole is None or index == 2 else whole[:1]
    if node.op_type == "SkipGroupNorm":
        return _at(inputs, 0)
    return None


def _joined(parts: list[Dims | None], axis: int) -> Dims | None:
    first = parts[0] if parts else None
    if first is None:
        return None
    axis %= len(first)
    sizes = [None if part is None else part[axis] for part in parts]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return (*first[:axis], total, *first[axis + 1 :])


def _times(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a * b


def runtime_dtype(node: ir.Node, first: ir.DataType | None) -> ir.DataType | None:
    """The element type of the first output of such a node, given that of its first input."""
    return ir.DataType.FLOAT if node.op_type in _TO_FLOAT else first


def _at(inputs: list[Dims | None], index: int) -> Dims | None:
    return inputs[index] if index < len(inputs) else None


def _broadcast(a: Dims, b: Dims | None) -> Dims | None:
    if b is None:
        return None
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    return tuple(y if x == 1 else x if y == 1 or x == y else None for x, y in pairs)


def _product(node: ir.Node, a: Dims, b: Dims | None) -> Dims | None:
    if b is None or len(a) < 2 or len(b) < 2:
        return None
    rows = a[-1] if node.attributes.get_int("transA", 0) else a[-2]
    columns = b[-2] if node.attributes.get_int("transB", 0) else b[-1]
    batch = _broadcast(a[:-2], b[:-2])
    return None if batch is None else (*batch, rows, columns)


def _gemm(node: ir.Node, a: Dims, b: Dims | None) -> Dims | None:
    return _product(node, a, b) if b is not None and len(a) == len(b) == 2 else None
