"""fuse-matmul-add: what becomes a Gemm, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_kit import PlainTarget, reasons
from pass_kit import apply, op_types, parse

from irc.backends.tensorrt import TensorRtTarget
from irc.passes.fusion import FuseMatMulAdd
from irc.testing import assert_conforms, assert_rewrites

PASS = FuseMatMulAdd()
HEAD = "g (float[n,4] x) => (float[n,5] y) {{ {} }}"
WEIGHTS = {"w": (4, 5), "b": (5,)}


@pytest.mark.parametrize("shape", [(5,), (1, 5)])
@pytest.mark.parametrize("order", ["m, b", "b, m"])
def test_matmul_and_row(shape: tuple[int, ...], order: str) -> None:
    before = HEAD.format(f"m = MatMul(x, w) y = Add({order})")
    assert_rewrites(PASS, before, HEAD.format("y = Gemm(x, w, b)"), {"w": (4, 5), "b": shape})


def test_row_that_is_no_constant() -> None:
    text = "g (float[n,4] x, float[4,5] w, float[5] b) => (float[n,5] y) {{ {} }}"
    assert_rewrites(PASS, text.format("m = MatMul(x, w) y = Add(m, b)"), text.format("y = Gemm(x, w, b)"))


@pytest.mark.parametrize("a, b", [(0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("perm", ["", "<perm=[1,0]>"])
def test_transposes_go_into_attributes(a: int, b: int, perm: str) -> None:
    types = f"float[{'4,n' if a else 'n,4'}] x, float[{'5,4' if b else '4,5'}] w"
    text = f"g ({types}) => (float[n,5] y) {{{{ {{}} }}}}"
    turned = (f"t = Transpose{perm}(x) " if a else "") + (f"u = Transpose{perm}(w) " if b else "")
    operands = f"{'t' if a else 'x'}, {'u' if b else 'w'}"
    flags = ", ".join(name for name, flag in (("transA=1", a), ("transB=1", b)) if flag)
    fused = text.format(f"y = Gemm<{flags}>(x, w, b)")
    assert_rewrites(PASS, text.format(f"{turned} m = MatMul({operands}) y = Add(m, b)"), fused, {"b": (5,)})
    assert_rewrites(PASS, text.format(f"{turned} y = Gemm({operands}, b)"), fused, {"b": (5,)})
    assert_rewrites(PASS, text.format(f"{turned} y = Gemm({operands})"), fused.replace(", b)", ")"), {})


def test_a_transpose_of_what_gemm_transposes_cancels() -> None:
    text = "g (float[n,4] x) => (float[n,5] y) {{ {} }}"
    before = "t = Transpose(x) y = Gemm<transA=1, alpha=0.5, beta=2.0>(t, w, b)"
    fused = "y = Gemm<transA=0, alpha=0.5, beta=2.0>(x, w, b)"
    assert_rewrites(PASS, text.format(before), text.format(fused), WEIGHTS)


def test_gemm_without_addend_takes_the_row_as_it_is() -> None:
    before = HEAD.format("m = Gemm<alpha=0.5, beta=3.0, transB=1>(x, w) y = Add(m, b)")
    fused = HEAD.format("y = Gemm<alpha=0.5, transB=1>(x, w, b)")
    assert_rewrites(PASS, before, fused, {"w": (5, 4), "b": (5,)})


LOOKALIKES = {
    "gemm with an addend": ("m = Gemm(x, w, b) y = Add(m, b)", {}),
    "column": ("m = MatMul(x, w) y = Add(m, b)", {"b": (1,)}),
    "scalar": ("m = MatMul(x, w) y = Add(m, b)", {"b": ()}),
    "subtracted": ("m = MatMul(x, w) y = Sub(m, b)", {}),
    "foreign product": ("m = custom.MatMul(x, w) y = Add(m, b)", {}),
}


@pytest.mark.parametrize("nodes, weights", LOOKALIKES.values(), ids=LOOKALIKES)
def test_lookalikes(nodes: str, weights: dict) -> None:
    assert reasons(PASS, HEAD.format(nodes), {**WEIGHTS, **weights}, opset=17) == []


@pytest.mark.parametrize(
    "text, weights",
    [
        ("g (float[1,4] x) => (float[3,5] y) { m = MatMul(x, w) y = Add(m, b) }", {"b": (3, 5)}),
        ("g (float[3,4] x) => (float[3,5] y) { m = MatMul(x, w) y = Add(m, b) }", {"b": (3, 1)}),
        ("g (float[3,4] x) => (float[3,5] y) { m = MatMul(x, w) y = Add(m, b) }", {"b": (3, 5)}),
        ("g (float[n,4] x, float[4,k] v) => (float[n,5] y) { m = MatMul(x, v) y = Add(m, b) }", {}),
        ("g (float[4,1] v) => (float[4,5] y) { u = Neg(v) m = MatMul(w4, u) y = Add(m, b) }", {"w4": (4, 4)}),
        ("g (float[2,n,4] x) => (float[2,n,5] y) { m = MatMul(x, w) y = Add(m, b) }", {}),
        ("g (float[4] x) => (float[5] y) { m = MatMul(x, w) y = Add(m, b) }", {}),
        ("g (float[n,4] x) => (float[2,n,5] y) { m = MatMul(x, w) y = Add(m, b) }", {"w": (2, 4, 5)}),
        ("g (float[n,4] x) => (float[1,n,5] y) { m = MatMul(x, w) y = Add(m, b) }", {"b": (1, 1, 5)}),
        ("g (float[p,q,r] x) => (float[p,r,5] y) { t = Transpose<perm=[0,2,1]>(x) y = MatMul(t, w) }", {}),
    ],
)  # fmt: skip
def test_shapes_that_gemm_does_not_take(text: str, weights: dict) -> None:
    model = parse(text, {**WEIGHTS, **weights})
    assert apply(PASS, model).rewritten == []


def test_a_transpose_that_others_need_stays() -> None:
    text = "g (float[4,n] x) => (float[n,5] y, float[n,4] z) {{ t = Transpose(x) {} }}"
    before = text.format("m = MatMul(t, w) y = Add(m, b) z = Neg(t)")
    assert_rewrites(PASS, before, text.format("y = Gemm(t, w, b) z = Neg(t)"), WEIGHTS)
    assert reasons(PASS, text.format("y = Gemm(t, w, b) z = Identity(t)"), WEIGHTS, opset=17) == []
    assert reasons(PASS, text.replace("z)", "t)").format("y = Gemm(t, w, b)"), WEIGHTS, opset=17) == []


def test_a_transpose_that_moves_nothing_is_not_taken_for_a_swap() -> None:
    text = "g (float[4,4] x) => (float[4,5] y) { t = Transpose<perm=[0,1]>(x) y = Gemm(t, w, b) }"
    assert reasons(PASS, text, WEIGHTS, opset=17) == []


def test_a_product_that_others_need_stays() -> None:
    text = "g (float[n,4] x) => (float[n,5] y, float[n,5] {}) {{ m = MatMul(x, w) y = Add(m, b) {} }}"
    for output, more in (("m", ""), ("z", "z = Neg(m)")):
        assert reasons(PASS, text.format(output, more), WEIGHTS, opset=17) == [
            "the output of its MatMul has other users"
        ]


def test_quantized_products_stay() -> None:
    text = """g (float[n,4] x) => (float[n,5] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        u = DequantizeLinear(w, s, wz) m = MatMul(d, u) y = Add(m, b) }"""
    weights = {"w": np.ones((4, 5), np.int8), "s": np.array(0.5, np.float32), "z": np.array(128, np.uint8)}
    weights |= {"wz": np.array(0, np.int8), "b": np.ones(5, np.float32)}
    assert reasons(PASS, text, weights, opset=17) == ["its operands are quantized"]
    turned = text.replace("m = MatMul(d, u)", "t = Transpose(u) m = MatMul(d, t)")
    weights["w"] = np.ones((5, 4), np.int8)
    assert reasons(PASS, turned, weights, opset=17) == ["its operands are quantized"]


def test_types_and_targets() -> None:
    text = "g ({0}[n,4] x, {0}[4,5] w, {0}[5] b) => ({0}[n,5] y) {{{{ {{}} }}}}"
    nodes = "m = MatMul(x, w) y = Add(m, b)"
    for dtype in ("float16", "double"):
        one = text.format(dtype)
        assert_rewrites(PASS, one.format(nodes), one.format("y = Gemm(x, w, b)"))
    for dtype, target in (("int32", None), ("double", TensorRtTarget()), ("float", PlainTarget())):
        said = reasons(PASS, text.format(dtype).format(nodes), {}, opset=17, target=target)
        assert len(said) == 1 and f"has no Gemm of {dtype.upper()}" in said[0]


def test_two_products_share_a_weight_and_a_body_captures_it() -> None:
    text = """g (bool c, float[n,4] x) => (float[n,5] y) { y = If (c) <then_branch = t () => (float[n,5] p) { m = MatMul(x, w) p = Add(m, b) },
        else_branch = f () => (float[n,5] q) { k = MatMul(x, w) q = Add(b, k) }> }"""
    outcome = apply(PASS, parse(text, WEIGHTS))
    assert op_types(outcome.model) == ["If", "Gemm", "Gemm"]
    assert_conforms(PASS, parse(text, WEIGHTS), must_fire=True)
