"""How many multiply-accumulates (MACs) a node takes: one product and its addition count as one.

|Y| is the number of elements of Y, padding included. Every position counts as if it were computed: causal masks and
zeros are not discounted; the addition of a bias is not counted.

| operator | MACs |
|---|---|
| Conv, ConvInteger, QLinearConv, DeformConv, FusedConv: W [M, C/g, *k] | |Y| * C/g * |k| |
| ConvTranspose: X [N, C, *D], W [C, M/g, *k] | |X| * M/g * |k| |
| Gemm, FusedGemm, QGemm: Y [M, N] | |Y| * K |
| MatMul, MatMulInteger, QLinearMatMul, FusedMatMul, ...: A [..., M, K], batches broadcast | |Y| * K |
| MatMulNBits: A [..., K] | |A| * N |
| Einsum of two operands | product of the sizes of all its labels |
| LSTM, GRU, RNN: X [T, B, I], W [D, G*H, I], R [D, G*H, H] | T * B * (|W| + |R|) |
| Attention (opset 23), MultiHeadAttention, GroupQueryAttention | B * H * S_q * S_kv * (D_qk + D_v) for H query heads |
| Attention of com.microsoft: X [B, S, I], W [I, 3*H] | B * S * |W| + 2 * B * S * S_kv * H |
| everything else of ONNX (elementwise, normalization, pooling, data movement) | 0 |
| other operators outside ONNX | unknown |

S_kv includes the past. Operators of a domain this table does not name are not 0 but unknown, which is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import onnx_ir as ir

from irc.analysis.concrete_shapes import ConcreteShapes

RUNTIME_DOMAIN = "com.microsoft"
STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
INTEGER_OPERATORS = frozenset(
    {
        "ConvInteger",
        "QLinearConv",
        "MatMulInteger",
        "QLinearMatMul",
        "QGemm",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
    }
)


class UnknownCost(Exception):
    """The cost of a node cannot be told; the message says why."""


Formula = Callable[[ir.Node, ConcreteShapes], int]


def multiply_accumulates(node: ir.Node, shapes: ConcreteShapes) -> int:
    """MACs of one run of a node; bodies of control flow are not included.

    Raises:
        UnknownCost: If a shape is unknown, or the operator is.
    """
    formula = formula_of(node)
    return 0 if formula is None else formula(node, shapes)


def formula_of(node: ir.Node) -> Formula | None:
    """The formula of an operator, None if it has no MACs.

    Raises:
        UnknownCost: If the operator is none of ONNX nor one of the runtime's in the table.
    """
    if node.domain in STANDARD_DOMAINS:
        return _STANDARD.get(node.op_type)
    if node.domain == RUNTIME_DOMAIN:
        if node.op_type in _RUNTIME:
            return _RUNTIME[node.op_type]
        if node.op_type in _RUNTIME_WITHOUT_MACS:
            return None
    raise UnknownCost(f"the cost of operator {node.domain}::{node.op_type} is not known")


def _dims(node: ir.Node, index: int, shapes: ConcreteShapes, *, output: bool = False) -> tuple[int, ...]:
    values = node.outputs if output else node.inputs
    value = values[index] if index < len(values) else None
    shape = shapes.static(value)
    if shape is None:
        what = f"output {index}" if output else f"input {index}"
        name = f" {value.name!r}" if value is not None and value.name else ""
        raise UnknownCost(f"the shape of {what}{name} is not known")
    return shape


def _optional_dims(node: ir.Node, index: int, shapes: ConcreteShapes) -> tuple[int, ...] | None:
    if index >= len(node.inputs) or node.inputs[index] is None:
        return None
    return _dims(node, index, shapes)


def _convolution(weight: int) -> Formula:
    def formula(node: ir.Node, shapes: ConcreteShapes) -> int:
        return math.prod(_dims(node, 0, shapes, output=True)) * math.prod(_dims(node, weight, shapes)[1:])

    return formula


def _transposed_convolution(node: ir.Node, shapes: ConcreteShapes) -> int:
    return math.prod(_dims(node, 0, shapes)) * math.prod(_dims(node, 1, shapes)[1:])


def _product(*, transposed: str = "") -> Formula:
    """A matrix product whose first operand is input 0; `transposed` names the attribute that transposes it."""

    def formula(node: ir.Node, shapes: ConcreteShapes) -> int:
        first = _dims(node, 0, shapes)
        swapped = bool(transposed) and node.attributes.get_int(transposed, 0) == 1
        inner = first[-2 if swapped else -1] if first else 1
        return math.prod(_dims(node, 0, shapes, output=True)) * inner

    return formula


def _packed_product(node: ir.Node, shapes: ConcreteShapes) -> int:
    return math.prod(_dims(node, 0, shapes)) * node.attributes.get_int("N", 0)


def _einsum(node: ir.Node, shapes: ConcreteShapes) -> int:
    operands = [_dims(node, i, shapes) for i in range(len(node.inputs))]
    if len(operands) < 2:
        return 0
    if len(operands) > 2:
        raise UnknownCost(f"an Einsum of {len(operands)} operands can be computed in several orders")
    terms = re.sub(r"\s", "", node.attributes.get_string("equation", "")).partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, dims in zip(terms, operands, strict=True):
        before, dots, after = term.partition("...")
        wild = len(dims) - len(before) - len(after)
        labels = [*before, *(f".{i}" for i in range(-wild, 0)), *after] if dots else [*before]
        for label, size in zip(labels, dims, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    return math.prod(sizes.values())


def _recurrent(node: ir.Node, shapes: ConcreteShapes) -> int:
    sequence = _dims(node, 0, shapes)
    return sequence[0] * sequence[1] * (math.prod(_dims(node, 1, shapes)) + math.prod(_dims(node, 2, shapes)))


def _attention(past_key: int, heads_attribute: tuple[str, str]) -> Formula:
    """Attention over separate Q, K, V: rank 4 [B, heads, S, D], or rank 3 [B, S, heads * D]."""

    def formula(node: ir.Node, shapes: ConcreteShapes) -> int:
        query, key = _dims(node, 0, shapes), _dims(node, 1, shapes)
        value = _dims(node, 2, shapes)
        past = _optional_dims(node, past_key, shapes)
        if len(query) == 4 and len(value) == 4:
            heads, width = query[1], query[3] + value[3]
        elif len(query) == 3 and len(value) == 3:
            heads = node.attributes.get_int(heads_attribute[0], 1)
            key_heads = node.attributes.get_int(heads_attribute[1], heads)
            width = query[2] // heads + value[2] // key_heads
        else:
            raise UnknownCost("Q and V are packed in a way that is not understood")
        total = key[-2] + (past[-2] if past is not None and len(past) == 4 else 0)
        return query[0] * heads * query[-2] * total * width

    return formula


def _self_attention(node: ir.Node, shapes: ConcreteShapes) -> int:
    batch, length, _ = _dims(node, 0, shapes)
    weights = _dims(node, 1, shapes)
    past = _optional_dims(node, 4, shapes)
    total = length + (past[-2] if past is not None else 0)
    return batch * length * (math.prod(weights) + 2 * total * (weights[-1] // 3))


_STANDARD: dict[str, Formula] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "DeformConv": _convolution(1),
    "ConvTranspose": _transposed_convolution,
    "Gemm": _product(transposed="transA"),
    "MatMul": _product(),
    "MatMulInteger": _product(),
    "QLinearMatMul": _product(),
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention(4, ("q_num_heads", "kv_num_heads")),
}
_RUNTIME: dict[str, Formula] = {
    "FusedConv": _convolution(1),
    "FusedGemm": _product(transposed="transA"),
    "QGemm": _product(transposed="transA"),
    "FusedMatMul": _product(transposed="transA"),
    "TransposeMatMul": _product(transposed="transA"),
    "MatMulIntegerToFloat": _product(),
    "DynamicQuantizeMatMul": _product(),
    "MatMulNBits": _packed_product,
    "DynamicQuantizeLSTM": _recurrent,
    "Attention": _self_attention,
    "MultiHeadAttention": _attention(6, ("num_heads", "num_heads")),
    "GroupQueryAttention": _attention(3, ("num_heads", "kv_num_heads")),
}
_RUNTIME_WITHOUT_MACS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "DequantizeBFP", "QuantizeBFP"),
        *("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearConcat"),
        *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", "QLinearWhere"),
        *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "BiasSoftmax", "BiasAdd", "BiasDropout"),
        *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"),
        *(
            "EmbedLayerNormalization",
            "GroupNorm",
            "SkipGroupNorm",
            "RotaryEmbedding",
            "GatherBlockQuantized",
            "GatherND",
        ),
        *("Pad", "Unique", "Trilu", "NhwcMaxPool", "MaxpoolWithMask", "Sampling", "Inverse"),
    }
)
