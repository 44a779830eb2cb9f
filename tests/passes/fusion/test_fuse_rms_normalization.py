"""fuse-rms-normalization: every spelling, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_kit import PlainTarget, constants, reasons
from pass_kit import apply, op_types, parse

from irc.backends.tensorrt import TensorRtTarget
from irc.passes.fusion import FuseRmsNormalization
from irc.testing import assert_conforms, assert_rewrites

PASS = FuseRmsNormalization()
HEAD = "g (float[n,3,4] x) => (float[n,3,4] y) {{ {} }}"
USUAL = "p = Pow(x, two) v = ReduceMean(p, last) e = Add(v, eps) s = Sqrt(e) r = Reciprocal(s) q = Mul(x, r) y = Mul(scale, q)"
FUSED = HEAD.format("y = RMSNormalization<epsilon=0.000001>(x, scale)")
SPELLINGS = {
    "usual": USUAL,
    "square by Mul, quotient by Div": "p = Mul(x, x) v = ReduceMean(p, last) e = Add(eps, v) s = Sqrt(e) q = Div(x, s) y = Mul(q, scale)",
    "inverse root by Pow": "p = Mul(x, x) v = ReduceMean(p, last) e = Add(eps, v) s = Pow(e, minus_half) q = Mul(s, x) y = Mul(q, scale)",
}


@pytest.mark.parametrize("nodes", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings(nodes: str) -> None:
    assert_rewrites(PASS, HEAD.format(nodes), FUSED, constants(nodes, scale=(4,)), opset=23)


def test_half_precision_as_language_models_write_it() -> None:
    text = "g (float16[n,3,4] x) => (float16[n,3,4] y) {{ {} }}"
    nodes = "h = Cast<to=1>(x) " + USUAL.replace("x", "h").replace(
        "y = Mul(scale, q)", "t = Cast<to=10>(q) y = Mul(scale, t)"
    )
    weights = {**constants(nodes), "scale": np.arange(4, dtype=np.float16)}
    fused = text.format("y = RMSNormalization<epsilon=0.000001>(x, scale)")
    assert_rewrites(PASS, text.format(nodes), fused, weights, opset=23)
    twice = nodes.replace("q = Mul(h, r)", "h2 = Cast<to=1>(x) q = Mul(h2, r)")
    assert_rewrites(PASS, text.format(twice), fused, weights, opset=23)
    other = nodes.replace("q = Mul(h, r)", "z = Neg(x) h2 = Cast<to=1>(z) q = Mul(h2, r)")
    assert apply(PASS, parse(text.format(other), weights, opset=23)).rewritten == []


def test_several_axes_and_no_scale() -> None:
    nodes = USUAL.replace("last", "last_two").replace("q = Mul(x, r) y = Mul(scale, q)", "y = Mul(x, r)")
    outcome = apply(PASS, parse(HEAD.format(nodes), constants(nodes), opset=23))
    assert op_types(outcome.model) == ["ConstantOfShape", "RMSNormalization"]
    assert_conforms(PASS, parse(HEAD.format(nodes), constants(nodes), opset=23), must_fire=True)


LOOKALIKES = {
    "layer normalization": "m = ReduceMean(x, last) d = Sub(x, m) " + USUAL.replace("Pow(x", "Pow(d").replace("Mul(x, r)", "Mul(d, r)"),
    "power of something else": "d = Neg(x) " + USUAL.replace("Pow(x", "Pow(d"),
    "another axis": USUAL.replace("last", "middle"),
    "cubed": USUAL.replace("two", "three"),
    "no root": USUAL.replace("s = Sqrt(e)", "s = Abs(e)"),
    "negative epsilon": USUAL.replace("eps", "negative"),
    "norm": USUAL.replace("ReduceMean", "ReduceSum"),
}  # fmt: skip


@pytest.mark.parametrize("nodes", LOOKALIKES.values(), ids=LOOKALIKES)
def test_lookalikes(nodes: str) -> None:
    reasons(PASS, HEAD.format(nodes), constants(nodes, scale=(4,)), opset=23)


@pytest.mark.parametrize("value", ["p", "v", "e", "s", "r"])
def test_what_is_inside_may_not_be_needed_elsewhere(value: str) -> None:
    nodes = f"{USUAL} z = Neg({value})"
    text = HEAD.format(nodes).replace("float[n,3,4] y)", f"float[n,3,4] y, float[n,3,{4 if value == 'p' else 1}] z)")
    assert any("other users" in r for r in reasons(PASS, text, constants(nodes, scale=(4,)), opset=23))


def test_needs_the_opset_and_the_target() -> None:
    weights = constants(USUAL, scale=(4,))
    said = reasons(PASS, HEAD.format(USUAL), weights, opset=22)
    assert said == ["opset 22 has no such RMSNormalization; it came with 23"]
    for target in (PlainTarget(), TensorRtTarget()):
        assert "has no RMSNormalization" in reasons(PASS, HEAD.format(USUAL), weights, opset=23, target=target)[0]
