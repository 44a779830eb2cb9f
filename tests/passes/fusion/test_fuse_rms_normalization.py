"""fuse-rms-normalization: every spelling, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from fusion_kit import PlainTarget, constants, reasons
from pass_kit import apply, assert_equal_after, assert_untouched, op_types, parse

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
    "root by Pow": USUAL.replace("Sqrt(e)", "Pow(e, half)"),
    "one over": USUAL.replace("Reciprocal(s)", "Div(one, s)"),
    "axes, whatever none would mean": USUAL.replace("ReduceMean(", "ReduceMean<noop_with_empty_axes=1>("),
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


@pytest.mark.parametrize("given", ["p", "p, none"])
def test_all_axes_are_meant_by_none(given: str) -> None:
    text = "g (float[3,4] x) => (float[3,4] y) {{ {} }}"
    nodes = USUAL.replace("ReduceMean(p, last)", f"ReduceMean({given})")
    weights = constants(nodes, scale=(3, 4), none=np.zeros(0, np.int64))
    fused = text.format("y = RMSNormalization<axis=-2, epsilon=0.000001>(x, scale)")
    assert_rewrites(PASS, text.format(nodes), fused, weights, opset=23)
    kept = nodes.replace("ReduceMean(", "ReduceMean<noop_with_empty_axes=1>(")
    assert reasons(PASS, text.format(kept), weights, opset=23) == []


def test_axes_that_are_left_out_by_an_empty_name() -> None:
    model = parse("g (float[3,4] x) => (float[3,4] y) { " + USUAL + " }", constants(USUAL, scale=(3, 4)), opset=23)
    mean = model.graph.node(1)
    mean.replace_input_with(1, None)
    outcome = assert_equal_after(PASS, model, rtol=1e-5)
    assert mean.inputs[1] is None and op_types(outcome.model) == ["RMSNormalization"]


@pytest.mark.parametrize("axes", ["p", "p, first", "p, last"])
def test_a_scalar_has_no_last_axis(axes: str) -> None:
    nodes = USUAL.replace("p, last", axes)
    model = parse(f"g (float x) => (float y) {{ {nodes} }}", constants(nodes, scale=()), opset=23, raw=True)
    assert assert_untouched(PASS, model) == {}


def test_what_is_known_of_the_data_is_known_of_its_power() -> None:
    """Inference does not always get further, as in bodies."""
    model = parse(HEAD.format(USUAL), constants(USUAL, scale=(4,)), opset=23, raw=True)
    assert op_types(apply(PASS, model).model) == ["RMSNormalization"]


def test_the_rank_of_the_data_must_be_known() -> None:
    text = "g (float[n,3,4] a, int64[k] dims) => (float[i,j,4] y) {{ x = Reshape(a, dims) {} }}"
    for nodes in (USUAL, USUAL.replace("p, last", "p")):
        assert reasons(PASS, text.format(nodes), constants(nodes, scale=(4,)), opset=23) == []


def test_axes_that_are_dropped() -> None:
    nodes = USUAL.replace("ReduceMean", "ReduceMean<keepdims=0>")
    text = "g (float[4,4] x) => (float[4,4] y) {{ {} }}"
    assert reasons(PASS, text.format(nodes), constants(nodes, scale=(4,)), opset=23) == []


def test_axes_that_are_fed() -> None:
    nodes = USUAL.replace("last", "given")
    text = "g (float[3,4] x, int64[1] given) => (float[3,4] y) {{ {} }}"
    assert reasons(PASS, text.format(nodes), constants(nodes, scale=(3, 4)), opset=23) == []


@pytest.mark.parametrize("mean", ["ReduceMean(z, last)", "ReduceMean(x, middle)"], ids=["other data", "another axis"])
def test_a_difference_that_is_not_centered(mean: str) -> None:
    """Layer normalization would not take it."""
    text = "g (float[n,3,4] x, float[n,3,4] z) => (float[n,3,4] y) {{ m = {} d = Sub(x, m) {} }}"
    nodes = USUAL.replace("Pow(x", "Pow(d").replace("Mul(x, r)", "Mul(d, r)")
    fused = "y = RMSNormalization<epsilon=0.000001>(d, scale)"
    weights = constants(f"{nodes} {mean}", scale=(4,))
    assert_rewrites(PASS, text.format(mean, nodes), text.format(mean, fused), weights, opset=23)


def test_a_bias_stays() -> None:
    nodes = USUAL.replace("y =", "w =") + " y = Add(w, bias)"
    fused = HEAD.format("w = RMSNormalization<epsilon=0.000001>(x, scale) y = Add(w, bias)")
    assert_rewrites(PASS, HEAD.format(nodes), fused, constants(nodes, scale=(4,), bias=(4,)), opset=23)


LOOKALIKES = {
    "layer normalization": "m = ReduceMean(x, last) d = Sub(x, m) " + USUAL.replace("Pow(x", "Pow(d").replace("Mul(x, r)", "Mul(d, r)"),
    "power of something else": "d = Neg(x) " + USUAL.replace("Pow(x", "Pow(d"),
    "another axis": USUAL.replace("last", "middle"),
    "cubed": USUAL.replace("two", "three"),
    "no root": USUAL.replace("s = Sqrt(e)", "s = Abs(e)"),
    "negative epsilon": USUAL.replace("eps", "negative"),
    "two over the root": USUAL.replace("Reciprocal(s)", "Div(two, s)"),
    "power of a copy": "h = Cast<to=1>(x) " + USUAL.replace("Pow(x", "Pow(h"),
    "copy over the root": "h = Cast<to=1>(x) " + USUAL.replace("Mul(x, r)", "Mul(h, r)"),
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
