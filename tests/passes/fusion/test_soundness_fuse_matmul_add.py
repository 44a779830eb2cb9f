"""fuse-matmul-add: unknown types and sizes, quantized weights behind a Transpose, and Transposes of outer graphs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from fusion_kit import reasons
from pass_kit import apply, op_types, parse

from irc.passes.fusion import FuseMatMulAdd
from irc.testing import assert_conforms

PASS = FuseMatMulAdd()


def test_operands_of_unknown_type_stay() -> None:
    text = "g (float[4,n] x) => (float[n,5] y) { v = custom.Mystery(x) t = Transpose(v) y = Gemm(t, w) }"
    assert reasons(PASS, text, {"w": (4, 5)}, opset=17) == []


def test_a_quantized_weight_stays_behind_its_transpose() -> None:
    text = "g (float[n,4] x) => (float[n,5] y) { d = DequantizeLinear(w, s) t = Transpose(d) y = Gemm(x, t) }"
    weights = {"w": np.ones((5, 4), np.int8), "s": np.array(0.5, np.float32)}
    assert reasons(PASS, text, weights, opset=17) == []


def test_unknown_sizes_are_not_equal() -> None:
    text = "g (float[n,4] x, float[4,k] v, float[k] b) => (float[n,k] y) { m = MatMul(x, v) y = Add(m, b) }"
    model = parse(text)
    for value in model.graph.inputs[1:]:
        value.shape = ir.Shape([*list(value.shape or ())[:-1], None])
    assert apply(PASS, model).rewritten == []


def test_a_transpose_outside_of_the_body_stays_there() -> None:
    text = """g (bool c, float[4,n] x, float[n,4] z) => (float[n,5] y) { t = Transpose(x)
        y = If (c) <then_branch = t1 () => (float[n,5] p) { m = MatMul(t, w) p = Add(m, b) },
                    else_branch = f () => (float[n,5] q) { q = MatMul(z, w) }> }"""
    model = parse(text, w=(4, 5), b=(5,))
    assert op_types(apply(PASS, model).model) == ["Transpose", "If", "Gemm", "MatMul"]
    assert_conforms(PASS, model, must_fire=True)
