"""Composite operators of the standard that ONNX Runtime's CPU provider executes no slower than what they stand for.

Measured with `benchmarks/fusions.py` on ONNX Runtime 1.31.1, x86-64, all optimizations on; latency of the decomposed
form over that of the composite, above 1 when the composite is faster:

| operator | float | float16 | remark |
|---|---|---|---|
| LayerNormalization | 1.0, 1.5 to 2.1 in other spellings | 1.0 | the runtime fuses the usual spelling itself |
| RMSNormalization | 1.0 to 2.9 | 1.6 to 3.9 | the runtime fuses one spelling itself, which the 1.0 is of |
| Gelu | 1.0 | 1.0 | the runtime fuses the usual spelling itself; it has no Erf for double |
| Gelu, tanh | 1.7 to 4.0 | 0.9 to 1.1 | the runtime takes it apart again for float16 |
| HardSwish | 1.0 of HardSigmoid, 1.2 to 1.7 of Clip | the same | none for double |
| HardSigmoid | 1.3 to 2.6 | 1.2 to 1.8 | none for double |
| Mish | 1.0 | 1.0 | the runtime takes it apart again; no Softplus for double from opset 22 |
| Gemm for MatMul and Add | 1.0 | 1.0 | the runtime fuses them itself, and transposes before them |
| Attention, heads in the last axis | 1.04 to 1.28 | not measured | no mask that is broadcast over queries or keys |
| Attention, heads as an axis | 1.00 to 1.08 with a mask, 0.97 to 1.01 without | not measured | the same |
| Swish | 0.4 to 0.8 | 0.9 | the runtime fuses the decomposed form, and takes this one apart |
"""

from __future__ import annotations

import onnx_ir as ir

_FLOAT, _HALF, _DOUBLE = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE
_TYPES: dict[tuple[str, str], tuple[ir.DataType, ...]] = {
    ("Attention", ""): (_FLOAT,),
    ("Gelu", ""): (_FLOAT, _HALF),
    ("Gelu", "tanh"): (_FLOAT, _DOUBLE),
    ("Gemm", ""): (_FLOAT, _HALF, _DOUBLE),
    ("HardSigmoid", ""): (_FLOAT, _HALF),
    ("HardSwish", ""): (_FLOAT, _HALF),
    ("LayerNormalization", ""): (_FLOAT, _HALF, _DOUBLE),
    ("Mish", ""): (_FLOAT, _HALF),
    ("RMSNormalization", ""): (_FLOAT, _HALF, _DOUBLE),
    ("Swish", ""): (),
}


def has_composite(op_type: str, opset: int, dtype: ir.DataType, mode: str = "") -> bool:
    """Whether a composite operator is worth writing; other operators always are.

    Args:
        op_type: The operator.
        opset: Version of the default domain.
        dtype: Type of its data.
        mode: The value of the attribute that selects what it computes.
    """
    types = _TYPES.get((op_type, mode))
    return types is None or dtype in types
