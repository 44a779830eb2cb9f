"""Which rules of channel propagation a model puts to use, found by its operators, constants and shapes."""

from __future__ import annotations
import onnx_ir as ir
RULES: dict = {}
def occurrences(model: ir.Model) -> set[str]:
    return set()
