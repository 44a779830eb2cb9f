"""equalize-channels: what factors pass through between convolutions, where they must not, and that int8 gains."""

from __future__ import annotations

from typing import Any

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
import scaling_kit
from scaling_kit import apply, context, difference, outliers, samples

from irc.decisions import Decisions
from irc.pass_base import Context
from irc.passes.quantization.equalize_channels import EqualizeChannels
from irc.testing import assert_conforms

PASS = EqualizeChannels(rows=128, clipping="min-max")
SPREAD = outliers(16, factor=40)


def numbers(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


WEIGHTS: dict[str, Any] = {
    "w1": numbers(16, 8, 3, 3) * SPREAD[:, None, None, None],
    "b1": SPREAD * np.float32(0.3),
    "w2": numbers(12, 16, 3, 3, seed=1) / SPREAD[None, :, None, None],
    "d": numbers(16, 1, 3, 3, seed=2),
    "w3": numbers(12, 4, 3, 3, seed=3),
    "f": numbers(10, 16, seed=4) / SPREAD,
    "slope": np.full((16, 1, 1), 0.2, np.float32),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
}
HEAD = "t (float[n,8,9,9] x) => (float[n,12,h,v] y{}) {{ c = Conv<pads=[1,1,1,1]>(x, w1, b1) {} }}"


def model_of(text: str, **weights: Any) -> ir.Model:
    return pass_kit.parse(text, {**WEIGHTS, **weights})


def fires(model: ir.Model, site: str = "y") -> scaling_kit.Outcome:
    feeds = samples(model, count=6)
    ctx = context(feeds)
    outcome = apply(PASS, model, ctx)
    assert site in outcome.remarks, outcome.skipped
    assert difference(model, outcome.model, feeds[0]) < 1e-5
    assert pass_kit.op_types(outcome.model) == pass_kit.op_types(model)
    before, after = (int8_kit.quantize(m, feeds=feeds).model for m in (model, outcome.model))
    assert int8_kit.noise(model, after, feeds[-1]) < 0.7 * int8_kit.noise(model, before, feeds[-1])
    assert apply(PASS, outcome.model, ctx).remarks == {}
    replayed = apply(PASS, model, Context(target="ort", decisions=Decisions(ctx.decisions.kept)))
    assert pass_kit.text(replayed.model) == pass_kit.text(outcome.model)
    assert_conforms(PASS, model, must_fire=True, sharing="skip", context=context(feeds), feeds=feeds[:1])
    return outcome


def stays(model: ir.Model, site: str = "y") -> str:
    outcome = apply(PASS, model, context(samples(model, count=6)))
    assert outcome.remarks == {} and pass_kit.text(outcome.model) == pass_kit.text(model)
    return outcome.skipped[site]


@pytest.mark.parametrize(
    "between",
    [
        "r = Relu(c)",
        "r = LeakyRelu<alpha=0.1>(c)",
        "r = PRelu(c, slope)",
        "r = Identity(c)",
        "p = Relu(c) r = MaxPool<kernel_shape=[2,2]>(p)",
        "p = AveragePool<kernel_shape=[2,2]>(c) r = Relu(p)",
        "p = Pad(c, pads) r = Relu(p)",
    ],
)
def test_what_scales_with_its_input_lets_factors_through(between: str) -> None:
    outcome = fires(model_of(HEAD.format("", between + " y = Conv(r, w2)")))
    assert list(outcome.remarks) == ["y"] and "in 3 constants" in outcome.remarks["y"]


def test_chain_with_a_depthwise_convolution() -> None:
    text = HEAD.format("", "r = Relu(c) e = Conv<group=16, pads=[1,1,1,1]>(r, d) q = Relu(e) y = Conv(q, w2)")
    outcome = fires(model_of(text))
    assert list(outcome.remarks) == ["e", "y"]


def test_groups() -> None:
    weights = WEIGHTS["w3"] / SPREAD.reshape(4, 1, 4).repeat(3, axis=1).reshape(12, 4)[:, :, None, None]
    fires(model_of(HEAD.format("", "r = Relu(c) y = Conv<group=4>(r, w3)"), w3=weights))


def test_classifier_behind_a_mean() -> None:
    text = """t (float[n,8,9,9] x) => (float[n,10] y, float[n,12,h,v] z) { c = Conv(x, w1, b1) r = Relu(c) z = Conv(r, w2)
        m = ReduceMean<axes=[2,3], keepdims=0>(r) y = Gemm<transB=1>(m, f) }"""
    outcome = fires(model_of(text), "z")
    assert "in 4 constants" in outcome.remarks["z"]


def test_residual_stream() -> None:
    text = """t (float[n,8,9,9] x) => (float[n,12,h,v] y) { c = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(c)
        a = Conv<pads=[1,1,1,1]>(r, k) s = Add(a, r) q = Relu(s) y = Conv(q, w2) }"""
    inner = numbers(16, 16, 3, 3, seed=5) * (SPREAD[:, None] / SPREAD[None, :])[:, :, None, None]
    outcome = fires(model_of(text, k=inner * np.float32(0.1)), "a")
    assert "in 4 constants" in outcome.remarks["a"]  # k is divided and multiplied


@pytest.mark.parametrize(
    "nodes, reason",
    [
        ("r = Clip(c, lo, hi) y = Conv(r, w2)", "Clip 'r' cannot take the factors up"),
        ("r = Sigmoid(c) y = Conv(r, w2)", "cannot take the factors up"),
        ("r = Relu(c) e = Exp(r) y = Conv(r, w2)", "also read by Exp"),
        ("p = Pad(c, pads, one) r = Relu(p) y = Conv(r, w2)", "cannot take the factors up"),
    ],
)
def test_what_does_not_scale(nodes: str, reason: str) -> None:
    model = model_of(
        HEAD.format(", float[n,16,9,9] e" if "Exp" in nodes else "", nodes),
        lo=np.float32(0), hi=np.float32(6), one=np.float32(1),
    )  # fmt: skip
    assert reason in stays(model)


def test_outputs_and_constants_that_callers_see() -> None:
    text = HEAD.format("", "r = Relu(c) y = Conv(r, w2)")
    assert stays(model_of(text.replace(" y)", " y, float[n,16,9,9] r)"))) == "'r' is an output of the model"
    seen = text.replace("x)", "x, float[16,8,3,3] w1)", 1)
    assert "no constant FLOAT weight" in stays(model_of(seen)) or "cannot take" in stays(model_of(seen))


def test_shared_weights() -> None:
    text = """t (float[n,8,9,9] x, float[n,8,9,9] z) => (float[n,12,h,v] y, float[n,16,h,v] o) {
        c = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(c) y = Conv(r, w2) o = Conv(z, w1) }"""
    assert "is also used by Conv" in stays(model_of(text))


def test_nan_in_a_weight() -> None:
    weight = WEIGHTS["w1"].copy()
    weight[0, 0, 0, 0] = np.nan
    model = model_of(HEAD.format("", "r = Relu(c) y = Conv(r, w2)"), w1=weight)
    outcome = apply(PASS, model, Context(target="ort", decisions=Decisions({})))
    assert outcome.remarks == {} and "contains NaN" in outcome.skipped["y"]


def test_products_are_left_to_the_other_pass() -> None:
    text = "t (float[n,16] x) => (float[n,10] y) { a = Gemm<transB=1>(x, k) r = Relu(a) y = Gemm<transB=1>(r, f) }"
    model = model_of(text, k=numbers(16, 16) * SPREAD[:, None])
    outcome = apply(PASS, model, context(samples(model)))
    assert outcome.remarks == {} and outcome.skipped == {}


def test_a_dead_channel_keeps_its_scale() -> None:
    weight, bias = WEIGHTS["w1"].copy(), WEIGHTS["b1"].copy()
    weight[3], bias[3] = 0, 0
    outcome = fires(model_of(HEAD.format("", "r = Relu(c) y = Conv(r, w2)"), w1=weight, b1=bias))
    scales = np.asarray(outcome.decisions.remember("equalize-channels/y", dict)["scales"])
    assert scales[3] == 1 and np.isfinite(scales).all()


def test_a_plan_has_decisions_that_were_carried_out_only() -> None:
    outcome = apply(
        PASS, model_of(HEAD.format("", "r = Relu(c) y = Conv(r, w2)")), Context(target="ort", decisions=Decisions({}))
    )
    assert outcome.remarks == {} and outcome.skipped["y"] == "the plan leaves it as it is"


def test_without_data_it_says_so() -> None:
    outcome = apply(PASS, model_of(HEAD.format("", "y = Conv(c, w2)")), Context())
    assert outcome.skipped == {"<model>": "it decides by data, and there are none; give --data"}


@pytest.mark.parametrize("options", [{"least_gain": -0.1}, {"rows": 0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        EqualizeChannels(**options)
