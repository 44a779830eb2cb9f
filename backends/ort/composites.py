"""Composite operators of the standard that ONNX Runtime's CPU provider executes no slower than what they stand for.

Measured with `benchmarks/fusions.py` on ONNX Runtime 1.31.1, x86-64, all optimizations on; latency of the decomposed
form over that of the composite, above 1 when the composite is faster:

| operator | float | float16 | remark |
|---|---|---|---|
| LayerNormalization | 1.0 | 1.0 | the runtime fuses the usual spelling itself |
| RMSNormalization | 1.5 to 2.9 | 1.6 to 3.8 | |
| Gelu | 1.0 | 1.0 | the runtime fuses the usual spelling itself; not for double |
| Gelu, tanh | 1.7 to 4.0 | 0.9 to 1.1 | decomposed again for float16 |
| HardSwish | 1.2 to 1.6 | 1.2 to 1.8 | not for double |
| HardSigmoid | 1.3 to 2.6 | 1.2 to 1.8 | not for double |
| Mish | 1.0 | 1.0 | decomposed again; no Softplus for double from opset 22 |
| Gemm for MatMul and Add | 1.0 | 1.0 | the runtime fuses them itself |
| Swish | 0.5 to 0.8 | 0.9 | the runtime has a kernel for the decomposed form only |
| Attention | 1.0 | not measured | |
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
