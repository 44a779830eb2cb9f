"""infer-shapes: what it says it did."""

from __future__ import annotations

import onnx_ir as ir
from pass_kit import apply, parse

from irc.passes.simplification import InferShapes


def test_a_type_alone_is_worth_saying() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Abs(x)  y = Neg(a) }", raw=True)
    inner = model.graph[0].outputs[0]
    inner.type, inner.shape = None, ir.Shape([2])
    outcome = apply(InferShapes(), model)
    assert outcome.rewritten == ["<model>"]
    assert outcome.model.graph[0].outputs[0].dtype == ir.DataType.FLOAT
