"""assert_rewrites: the same graph whatever its names, another graph whatever its likeness."""

from __future__ import annotations

import numpy as np
import pytest

from irc.errors import ModelError, UsageError
from irc.passes.simplification import EliminateDropout, EliminateIdentity, FoldBatchNorm
from irc.testing import assert_rewrites

BEFORE = "g (float[2] x) => (float[2] y, float[2] z) { i = Identity(x)  a = Sub(i, w)  b = Abs(x)  y = Mul(a, b)  z = Neg(b) }"
SAME = {
    "as it comes": "a = Sub(x, w)  b = Abs(x)  y = Mul(a, b)  z = Neg(b)",
    "other names, another order": "t = Abs(x)  z = Neg(t)  s = Sub(x, w)  y = Mul(s, t)",
    "any constant": "a = Sub(x, anything)  b = Abs(x)  y = Mul(a, b)  z = Neg(b)",
}
OTHER = {
    "operator": ("a = Add(x, w)  b = Abs(x)  y = Mul(a, b)  z = Neg(b)", "Sub 'a' stands where Add 'a' is expected"),
    "order of inputs": ("a = Sub(w, x)  b = Abs(x)  y = Mul(a, b)  z = Neg(b)", "stands where"),
    "computed twice": ("a = Sub(x, w)  b = Abs(x)  c = Abs(x)  y = Mul(a, b)  z = Neg(c)", "stands where"),
    "dead end": ("a = Sub(x, w)  b = Abs(x)  c = Exp(x)  y = Mul(a, b)  z = Neg(b)", "there are 4 nodes, not 5"),
    "constant": (
        "a = Sub(x, v)  b = Abs(x)  y = Mul(a, b)  z = Neg(b)",
        "'w' has other values than 'v': [1.,2.], not [1.,3.]",
    ),
    "type of constant": (
        "a = Sub(x, k)  b = Abs(x)  y = Mul(a, b)  z = Neg(b)",
        "the constant 'w' is float32[2], not int64[2]",
    ),
    "value for a constant": (
        "a = Sub(x, w)  y = Mul(a, c)  z = Neg(c)",
        "'b' (Abs) stands where a constant ('c') is expected",
    ),
    "missing input": ("a = Clip(x, , w)  b = Abs(x)  y = Mul(a, b)  z = Neg(b)", "stands where"),
}
WEIGHTS = {"w": np.array([1, 2], np.float32), "v": np.array([1, 3], np.float32), "k": np.array([1, 2])}


@pytest.mark.parametrize("case", SAME)
def test_same(case: str) -> None:
    assert_rewrites(
        EliminateIdentity(),
        BEFORE,
        f"g (float[2] x) => (float[2] y, float[2] z) {{ {SAME[case]} }}",
        {"w": WEIGHTS["w"]},
    )


@pytest.mark.parametrize("case", OTHER)
def test_other(case: str) -> None:
    nodes, message = OTHER[case]
    with pytest.raises(AssertionError) as told:
        assert_rewrites(
            EliminateIdentity(), BEFORE, f"g (float[2] x) => (float[2] y, float[2] z) {{ {nodes} }}", WEIGHTS
        )
    assert message in str(told.value)
    assert "--- expected\n+++ found" in str(told.value)


@pytest.mark.parametrize(
    ("after", "message"),
    [("g (float[2] u) => (float[2] y) { y = Abs(u) }", "inputs are ['x'], not ['u']"),
     ("g (float[2] x) => (float[2] v) { v = Abs(x) }", "outputs are ['y'], not ['v']"),
     ("g (float[2] x) => (float[2] y) { y = Identity(x) }", "stands where"),
     ("g (float[2] x) => (float[2] y) { y, m = Dropout(x) }", "stands where")],
)  # fmt: skip
def test_other_faces(after: str, message: str) -> None:
    with pytest.raises(AssertionError) as told:
        assert_rewrites(EliminateIdentity(), "g (float[2] x) => (float[2] y) { a = Identity(x)  y = Abs(a) }", after)
    assert message in str(told.value)


def test_attributes_and_bodies_count() -> None:
    before = """g (bool c, float[2] x) => (float[2] y) { a = Identity(x)  y = If (c) <
        then_branch = t () => (float[2] p) { p = Elu<alpha=ALPHA>(a) }, else_branch = e () => (float[2] q) { q = Neg(a) }> }"""
    after = before.replace("a = Identity(x)", "").replace("(a)", "(x)")
    assert_rewrites(EliminateIdentity(), before.replace("ALPHA", "0.5"), after.replace("ALPHA", "0.5"))
    with pytest.raises(AssertionError, match=r"in then_branch of If 'y': Elu 'p' has alpha=0.5, not 0.25"):
        assert_rewrites(EliminateIdentity(), before.replace("ALPHA", "0.5"), after.replace("ALPHA", "0.25"))
    with pytest.raises(AssertionError, match=r"in else_branch of If 'y': "):
        assert_rewrites(
            EliminateIdentity(), before.replace("ALPHA", "1.0"), after.replace("ALPHA", "1.0").replace("Neg", "Abs")
        )


def test_nothing_happens_is_a_rewrite_to_itself_and_reasons_are_told() -> None:
    shared = """g (float[2,3] x) => (float[2,4] y, float[2,4] h) { h = Gemm<transB=1>(x, w)  y = BatchNormalization(h, gamma, beta, mean, var) }"""
    weights = {"w": (4, 3), "gamma": (4,), "beta": (4,), "mean": (4,), "var": (4,)}
    assert_rewrites(FoldBatchNorm(), shared, shared, weights)
    folded = "g (float[2,3] x) => (float[2,4] y, float[2,4] h) { h = Gemm<transB=1>(x, w)  y = Gemm(x, v, b) }"
    with pytest.raises(AssertionError, match="skipped y: the output of the Gemm before it has other users"):
        assert_rewrites(FoldBatchNorm(), shared, folded, weights)


def test_the_rewrite_must_also_conform() -> None:
    """The graph is the wanted one, but the pass promises bits it does not keep."""

    class ExactFold(FoldBatchNorm):
        contract = EliminateDropout.contract

    before = "g (float[n,3] x) => (float[n,4] y) { h = Gemm<transB=1>(x, w)  y = BatchNormalization(h, gamma, beta, mean, var) }"
    after = "g (float[n,3] x) => (float[n,4] y) { y = Gemm<transB=1>(x, v, b) }"
    weights = {"w": (4, 3), "gamma": (4,), "beta": (4,), "mean": (4,), "var": (4,)}
    assert_rewrites(FoldBatchNorm(), before, after, weights)
    with pytest.raises(AssertionError, match=r"numbers: .* promises identical bits"):
        assert_rewrites(ExactFold(), before, after, weights)


def test_a_header_counts_and_damaged_text_is_refused() -> None:
    head = '<ir_version: 8, opset_import: ["" : 12]>'
    before, after = (
        "g (float[2] x) => (float[2] y) { d = Dropout(x, r)  y = Abs(d) }",
        "g (float[2] x) => (float[2] y) { y = Abs(x) }",
    )
    assert_rewrites(EliminateDropout(), head + before, head + after, r=np.float32(0.5))
    with pytest.raises(UsageError, match="this is not ONNX text"):
        assert_rewrites(EliminateDropout(), "g (float[2] x => y", after)
    with pytest.raises(ModelError, match="uses 'missing'"):
        assert_rewrites(EliminateDropout(), "g (float[2] x) => (float[2] y) { y = Add(x, missing) }", after)
