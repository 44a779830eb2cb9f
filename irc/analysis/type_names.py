"""Element types as people write them: float32, int8, bfloat16."""

from __future__ import annotations

import onnx_ir as ir

_SPELLED = {"FLOAT": "float32", "DOUBLE": "float64", "UNDEFINED": "unknown"}


def type_name(dtype: ir.DataType | None) -> str:
    """The name of an element type in numpy's spelling; "unknown" without one."""
    return "unknown" if dtype is None else _SPELLED.get(dtype.name, dtype.name.lower())
