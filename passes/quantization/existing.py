"""Recognise a model that somebody quantized before irc saw it, so that it is left alone as a whole.

All spellings count: Q/DQ pairs (of ONNX Runtime, NNCF, Model Optimizer, torch), integer operators (QLinearConv,
MatMulInteger, com.microsoft), weights stored as integers and brought back to float.

A model of whose operators at least half are quantized is left alone: the few in float were most likely left so on
purpose, for their accuracy. With fewer it counts as float with some quantized parts, as a model is whose author
quantized one branch: these parts are left alone and the rest is quantized like any other model. What irc itself
quantized earlier in the same pipeline never counts.
"""

from __future__ import annotations

import collections

import onnx_ir as ir

from irc.ir import constant_tensor
from irc.passes.quantization.placement import weight_of
from irc.target import is_dequantized

SHARE = 0.5
"""With at least this share of its operators quantized, a model is left alone."""
_KEY = "irc.float-before-quantization"
_FLOAT_NAMES = {
    "QLinearConv": "Conv", "ConvInteger": "Conv", "QLinearConvTranspose": "ConvTranspose",
    "QLinearMatMul": "MatMul", "MatMulInteger": "MatMul", "MatMulInteger16": "MatMul", "MatMulIntegerToFloat": "MatMul",
    "DynamicQuantizeMatMul": "MatMul", "MatMulNBits": "MatMul", "MatMulBnb4": "MatMul", "MatMulFpQ4": "MatMul",
    "QOrderedMatMul": "MatMul", "QGemm": "Gemm", "DynamicQuantizeLSTM": "LSTM", "QAttention": "Attention",
    "QOrderedAttention": "Attention", "QMoE": "MoE",
}  # fmt: skip
_FLOAT = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"))
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast")
_INTEGERS = frozenset((ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4))
_LOOKBACK = 8


def why_left_alone(model: ir.Model) -> str | None:
    """Why a whole model is no place for quantization, or None.

    The answer is remembered with the model and its copies, not in files: a later pass of the pipeline gets the same one,
    whatever the passes between have quantized.
    """
    if _KEY not in model.meta:
        model.meta[_KEY] = _recognised(model.graph)
    found: str | None = model.meta[_KEY]
    return found


def _recognised(graph: ir.Graph) -> str | None:
    quantized: collections.Counter[str] = collections.Counter()
    total: collections.Counter[str] = collections.Counter()
    for node in graph.all_nodes():
        if node.op_type in _FLOAT_NAMES:
            kind, integer = _FLOAT_NAMES[node.op_type], True
        elif node.op_type in _FLOAT and node.domain == "":
            kind, integer = node.op_type, any(map(_comes_from_integers, node.inputs[:3]))
            if not integer and kind == "MatMul" and weight_of(node) is None:
                continue  # attention products stay in float in most quantized models
        else:
            continue
        total[kind] += 1
        quantized[kind] += integer
    if not total or sum(quantized.values()) < SHARE * sum(total.values()):
        return None
    counts = ", ".join(f"{quantized[kind]} of {count} {kind}" for kind, count in total.items())
    return f"the model is already quantized ({counts}); irc leaves it alone"


def _comes_from_integers(value: ir.Value | None) -> bool:
    """Whether a value is brought to float from integers, moves passed: by DequantizeLinear, or by Cast and Mul of a constant."""
    for _ in range(_LOOKBACK):
        producer = value.producer() if value is not None else None
        if producer is None or not producer.inputs:
            return False
        if producer.op_type == "DequantizeLinear" or is_dequantized(value):
            return True
        if producer.op_type == "Cast" and _is_integer_constant(producer.inputs[0]):
            return True
        if producer.op_type in ("Mul", "Sub") and len(producer.inputs) == 2:
            scaled = [v for v in producer.inputs if constant_tensor(v) is None]
            value = scaled[0] if len(scaled) == 1 else None
        elif producer.op_type in _MOVES:
            value = producer.inputs[0]
        else:
            return False
    return False


def _is_integer_constant(value: ir.Value | None) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and tensor.dtype in _INTEGERS
