"""Which outputs are embeddings: vectors that are compared with each other, not read one number at a time.

An output [N, D] or [N, T, D] with static D >= 8 is an embedding if it is named so (`embedding`, `sentence`, `pooler`),
or if it ends, up to Identity, Cast, Reshape, Flatten, Squeeze, Gather and Slice, in

- a normalisation of the vector: `LpNormalization`, or `Div` by something that comes from `ReduceL2` or `Sqrt`;
- `LayerNormalization` (the last hidden state of a transformer), or `Tanh` of a `Gemm` or `MatMul` (its pooler).
"""

from __future__ import annotations

import re

import onnx_ir as ir

MIN_SIZE = 8
_NAMED = re.compile(r"(?:^|[^a-z])(?:embed|sentence|pooler)")
_PASSED = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Gather", "Slice", "Unsqueeze"})
_NORM_STEPS = frozenset({"Expand", "Clip", "Max", "Add", "Cast", "Unsqueeze", "Reshape", "Identity", "Pow"})


def is_embedding(value: ir.Value) -> bool:
    """Whether a graph output is an embedding."""
    shape = value.shape
    if shape is None or len(shape) not in (2, 3) or not (value.dtype is None or value.dtype.is_floating_point()):
        return False
    size = shape[-1]
    if not isinstance(size, int) or size < MIN_SIZE:
        return False
    return _NAMED.search((value.name or "").lower()) is not None or _ends_in_normalization(value)


def _ends_in_normalization(value: ir.Value) -> bool:
    node = value.producer()
    while node is not None and node.op_type in _PASSED and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None:
        return False
    if node.op_type in ("LpNormalization", "LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization"):
        return True
    if node.op_type == "Tanh" and node.inputs[0] is not None:
        before = node.inputs[0].producer()
        if before is not None and before.op_type == "Add":
            before = next((v.producer() for v in before.inputs if v is not None and v.producer() is not None), None)
        return before is not None and before.op_type in ("Gemm", "MatMul")
    return node.op_type == "Div" and len(node.inputs) == 2 and _is_norm(node.inputs[1])


def _is_norm(value: ir.Value | None) -> bool:
    """Whether a value is the length of a vector, up to clipping and shape."""
    for _ in range(8):
        node = value.producer() if value is not None else None
        if node is None:
            return False
        if node.op_type in ("ReduceL2", "Sqrt"):
            return True
        if node.op_type not in _NORM_STEPS:
            return False
        value = node.inputs[0]
    return False
