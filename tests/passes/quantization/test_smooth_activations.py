"""smooth-activations: where the factors go, that the float function stays and the int8 one gains, and what a plan replays."""

from __future__ import annotations

import dataclasses
from typing import Any

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
import scaling_kit
from scaling_kit import apply, context, difference, outliers, samples

from irc.backends.tensorrt import TensorRtTarget
from irc.decisions import Decisions
from irc.pass_base import Context
from irc.pass_manager import PassManager
from irc.passes.quantization.smooth_activations import SmoothActivations
from irc.testing import assert_conforms

# Ranges as int8_kit calibrates; the small graphs here have small errors, which a Mul would not be worth.
PASS = SmoothActivations(rows=128, clipping="min-max", least_error_for_mul=0.0)
GAIN = outliers(32)
NORMALIZED: dict[str, Any] = {
    "g": GAIN,
    "b": GAIN * np.float32(0.1),
    "w": (32, 24),
    "u": (32, 16),
    "v": (24, 16),
    "c": (24,),
}
WEIGHT = np.random.default_rng(1).normal(size=(32, 24)).astype(np.float32)
HEAD = "t (float[n,s,32] x) => (float[n,s,24] y{}) {{ l = LayerNormalization(x, g, b) {} }}"
ONE = HEAD.format("", "y = MatMul(l, w)")


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def model_of(text: str, **weights: Any) -> ir.Model:
    return pass_kit.parse(text, {**NORMALIZED, **weights})


def fires(model: ir.Model, *, scale: dict[str, np.ndarray] | None = None, **fields: Any) -> scaling_kit.Outcome:
    """Applies the pass, checks every promise, and that int8 outputs are nearer to the float ones."""
    feeds = samples(model, scale=scale)
    ctx = context(feeds, **fields)
    outcome = apply(PASS, model, ctx)
    assert outcome.remarks, outcome.skipped
    assert difference(model, outcome.model, feeds[0]) < 1e-5
    before, after = (
        int8_kit.quantize(m, feeds=feeds, deny=lambda site: site != "y").model for m in (model, outcome.model)
    )
    assert int8_kit.noise(model, after, feeds[-1]) < 0.7 * int8_kit.noise(model, before, feeds[-1])
    assert apply(PASS, outcome.model, ctx).remarks == {}
    # Variants are other models with the same names of sites, each with decisions of its own.
    assert_conforms(PASS, model, must_fire=True, sharing="skip", context=context(feeds, **fields), feeds=feeds[:2])
    return outcome


def stays(model: ir.Model, *, scale: dict[str, np.ndarray] | None = None) -> dict[str, str]:
    outcome = apply(PASS, model, context(samples(model, scale=scale)))
    assert outcome.remarks == {} and pass_kit.text(outcome.model) == pass_kit.text(model)
    return outcome.skipped


def test_factors_disappear_into_a_normalization() -> None:
    outcome = fires(model_of(ONE))
    assert list(outcome.remarks) == ["y"]
    assert "in 3 constants: output error" in outcome.remarks["y"] and outcome.remarks["y"].startswith("strength 0.")
    assert pass_kit.op_types(outcome.model) == ["LayerNormalization", "MatMul"]
    scales = np.asarray(outcome.decisions.remember("smooth-activations/y", dict)["scales"])
    assert scales.dtype == np.float32 and scales.shape == (32,)
    np.testing.assert_allclose(np.log(scales).mean(), 0, atol=1e-5)
    assert np.exp(np.log(scales[1::8]).mean()) > 4 * np.exp(np.log(scales[2::8]).mean())


def test_all_readers_are_smoothed_together() -> None:
    model = model_of(HEAD.format(", float[n,s,16] z", "y = MatMul(l, w) z = MatMul(l, u)"))
    outcome = fires(model)
    assert list(outcome.remarks) == ["y"] and "in 4 constants" in outcome.remarks["y"]


@pytest.mark.parametrize(
    "maker, weights",
    [
        ("l = Mul(x, g)", {}),
        ("m = Mul(g, x) l = Add(m, b)", {}),
        ("m = MatMul(x, k) l = Add(b, m)", {"k": (32, 32)}),
        ("l = RMSNormalization(x, g)", {}),
        ("m = MatMul(x, k) a = Add(m, b) r = Relu(a) l = Transpose<perm=[0,1,2]>(r)", {}),
        ("m = MatMul(x, k) l, e = Split<axis=-1>(m, parts)", {"parts": np.array([32, 32])}),
    ],
)
def test_what_makes_the_activation_takes_the_factors_up(maker: str, weights: dict[str, Any]) -> None:
    wide = 64 if "Split" in maker else 32
    key = numbers(32, wide) * np.resize(GAIN, wide)
    extra = ", float[n,s,32] e" if "Split" in maker else ""
    text = f"t (float[n,s,32] x) => (float[n,s,24] y{extra}) {{ {maker} y = MatMul(l, w) }}"
    model = pass_kit.parse(text, {**NORMALIZED, "k": key, **weights}, opset=23 if "RMS" in maker else 17)
    outcome = fires(model)
    assert "constants" in outcome.remarks["y"]
    assert len(outcome.model.graph) == len(model.graph)


@pytest.mark.parametrize("flipped", [0, 1])
def test_gemm_makes_and_gemm_reads(flipped: int) -> None:
    k, w = numbers(16, 32) * GAIN, WEIGHT
    text = f"""t (float[n,16] x) => (float[n,24] y) {{ a = Gemm<transB={flipped}>(x, k, b) r = LeakyRelu(a)
        y = Gemm<transB={flipped}, alpha=0.5>(r, w, c) }}"""
    outcome = fires(model_of(text, k=k.T.copy() if flipped else k, w=w.T.copy() if flipped else w))
    assert "in 3 constants" in outcome.remarks["y"]


def test_values_of_an_attention_take_the_factors_up() -> None:
    v = numbers(32, 32) * GAIN
    text = """t (float[n,6,32] x, float[n,4,6,6] p) => (float[n,6,24] y) {
        m = MatMul(x, v) a = Add(m, b) h = Reshape(a, heads) t = Transpose<perm=[0,2,1,3]>(h) o = MatMul(p, t)
        q = Transpose<perm=[0,2,1,3]>(o) l = Reshape(q, flat) y = MatMul(l, w) }"""
    model = model_of(text, v=v, heads=np.array([0, 6, 4, 8]), flat=np.array([0, 6, 32]))
    outcome = fires(model)
    assert "in 3 constants" in outcome.remarks["y"]


def test_a_mul_divides_where_others_read_the_activation() -> None:
    model = model_of(HEAD.format(", float[n,s,32] e", "y = MatMul(l, w) e = Tanh(l)"))
    outcome = fires(model)
    assert pass_kit.op_types(outcome.model) == ["LayerNormalization", "Mul", "MatMul", "Tanh"]
    assert "by a Mul, since 'l' is also read by Tanh" in outcome.remarks["y"]
    assert outcome.model.graph.initializers["g"].const_value is model.graph.initializers["g"].const_value


@pytest.mark.parametrize(
    "nodes, reason",
    [
        ("l = LayerNormalization(x, g, b) y = MatMul(l, w)", "'l' is an output of the model"),
        ("l = Mul(x, x) y = MatMul(x, w)", "'x' is not made by an operator"),
        ("m = Sin(x) l = Mul(m, g) k = Exp(m) q = Sum(l, k) y = MatMul(q, w)", "Sin 'm' cannot take the factors up"),
    ],
)
def test_a_mul_where_nothing_takes_the_factors_up(nodes: str, reason: str) -> None:
    model = model_of(
        HEAD.format(", float[n,s,32] l", "").partition("{")[0] + f"{{ {nodes} }}", w=WEIGHT / GAIN[:, None]
    )
    outcome = fires(model, scale={"x": GAIN})
    assert reason in outcome.remarks["y"] or "Exp" in nodes
    assert pass_kit.op_types(outcome.model).count("Mul") == pass_kit.op_types(model).count("Mul") + 1


def test_no_mul_where_none_is_wanted() -> None:
    model = model_of("t (float[n,s,32] x) => (float[n,s,24] y) { y = MatMul(x, w) }")
    feeds = samples(model, scale={"x": GAIN})
    assert apply(PASS, model, context(feeds)).remarks
    assert apply(dataclasses.replace(PASS, least_gain_of_mul=1), model, context(feeds)).remarks == {}


def test_even_activations_stay() -> None:
    model = model_of(ONE, g=np.ones(32, np.float32), b=np.zeros(32, np.float32))
    outcome = apply(dataclasses.replace(PASS, least_gain=0.5), model, context(samples(model)))
    assert outcome.remarks == {} and outcome.skipped["y"].startswith("no strength helps enough: output error")
    assert pass_kit.text(outcome.model) == pass_kit.text(model)


def test_overridable_constants_stay() -> None:
    weight = ONE.replace("x)", "x, float[32,24] w)", 1)
    assert stays(model_of(weight)) == {}
    gain = ONE.replace("x)", "x, float[32] g)", 1)
    model = model_of(gain)
    outcome = apply(PASS, model, context(samples(model)))
    assert "by a Mul, since LayerNormalization" in outcome.remarks["y"]


def test_tied_and_shared_weights_stay() -> None:
    tied = """t (int64[n,s] i, float[n,s,32] x) => (float[n,s,50] y, float[n,s,32] e) { e = Gather(table, i)
        l = LayerNormalization(x, g, b) h = Transpose<perm=[1,0]>(table) y = MatMul(l, h) }"""
    assert stays(model_of(tied, table=(50, 32))) == {
        "y": "it is not known where the channels of its input and of its weight are"
    }
    shared = """t (float[n,s,32] x, float[n,s,32] z) => (float[n,s,24] y, float[n,s,24] o) {
        l = LayerNormalization(x, g, b) y = MatMul(l, w) o = MatMul(z, w) }"""
    reasons = stays(model_of(shared))
    assert reasons["y"].startswith("its weight is also used by MatMul")


def test_one_weight_read_twice_by_the_same_activation() -> None:
    model = model_of(HEAD.format(", float[n,s,24] z", "y = MatMul(l, w) z = MatMul(l, w)"))
    outcome = fires(model)
    weights = {node.inputs[1] for node in outcome.model.graph if node.op_type == "MatMul"}
    assert len(weights) == 1


def test_parameters_of_two_normalizations_are_copied() -> None:
    text = """t (float[n,s,32] x) => (float[n,s,24] y, float[n,s,32] e) {
        k = LayerNormalization(x, g, b) e = Tanh(k) l = LayerNormalization(x, g, b) y = MatMul(l, w) }"""
    outcome = fires(model_of(text))
    assert "in 3 constants" in outcome.remarks["y"]


def test_channels_of_zeros_keep_their_scale() -> None:
    gain, shift = GAIN.copy(), GAIN * np.float32(0.1)
    gain[5] = shift[5] = 0
    weight = np.random.default_rng(2).normal(size=(32, 24)).astype(np.float32)
    weight[7] = 0
    outcome = fires(model_of(ONE, g=gain, b=shift, w=weight))
    scales = np.asarray(outcome.decisions.remember("smooth-activations/y", dict)["scales"])
    assert scales[5] == scales[7] == 1 and np.isfinite(scales).all()


def test_weights_with_nan_and_half_precision_stay() -> None:
    weight = np.random.default_rng(2).normal(size=(32, 24)).astype(np.float32)
    weight[0, 0] = np.nan
    assert stays(model_of(ONE, w=weight)) == {}
    half = {name: np.ones(shape, np.float16) for name, shape in {"g": 32, "b": 32, "w": (32, 24)}.items()}
    assert stays(pass_kit.parse(ONE.replace("float[", "float16["), half)) == {}


def test_dead_layers_and_bodies() -> None:
    """What another branch computes from the same activation inside a body counts as another reader."""
    text = """t (bool q, float[n,s,32] x) => (float[n,s,24] y, float[n,s,32] o) { l = LayerNormalization(x, g, b)
        y = MatMul(l, w) o = If (q) < then_branch = a () => (float[n,s,32] p) { p = Tanh(l) },
        else_branch = e () => (float[n,s,32] r) { r = Neg(l) }> }"""
    model = model_of(text)
    outcome = apply(PASS, model, context(samples(model)))
    assert "by a Mul, since a body reads 'l'" in outcome.remarks["y"]


def test_other_targets() -> None:
    model = model_of(ONE)
    outcome = apply(PASS, model, context(samples(model), target=TensorRtTarget()))
    assert "constants" in outcome.remarks["y"]


@pytest.mark.parametrize("clipping", ["min-max", "mse"])
def test_either_way_of_clipping(clipping: Any) -> None:
    outcome = apply(dataclasses.replace(PASS, clipping=clipping), model_of(ONE), context(samples(model_of(ONE))))
    assert list(outcome.remarks) == ["y"]


def test_a_plan_has_decisions_that_were_carried_out_only() -> None:
    outcome = apply(PASS, model_of(ONE), Context(target="ort", decisions=Decisions({})))
    assert outcome.remarks == {} and outcome.skipped == {"y": "the plan leaves it as it is"}


def test_without_data_it_says_so() -> None:
    model = model_of(ONE)
    outcome = apply(PASS, model, Context())
    assert outcome.remarks == {} and outcome.skipped == {
        "<model>": "it decides by data, and there are none; give --data"
    }


def test_replayed_without_data_it_gives_the_same_bytes() -> None:
    text = HEAD.format(", float[n,s,32] e", "y = MatMul(l, w) e = Tanh(l)")
    for model in (model_of(ONE), model_of(text)):
        outcome = apply(PASS, model, context(samples(model)))
        replayed = apply(PASS, model, Context(target="ort", decisions=Decisions(outcome.decisions.kept)))
        assert replayed.remarks == outcome.remarks
        assert pass_kit.text(replayed.model) == pass_kit.text(outcome.model)


def test_decisions_do_not_depend_on_which_sites_are_rewritten() -> None:
    text = """t (float[n,s,32] x) => (float[n,s,16] y) {
        l = LayerNormalization(x, g, b) m = MatMul(l, w) r = Relu(m) y = MatMul(r, v) }"""
    model = model_of(text, w=WEIGHT * outliers(24), v=numbers(24, 16) / outliers(24)[:, None])
    feeds = samples(model)
    both, one = apply(PASS, model, context(feeds)), apply(PASS, model, context(feeds), denied=["m"])
    assert list(both.remarks) == ["m", "y"] and list(one.remarks) == ["y"]
    for key in both.decisions:
        for name, value in both.decisions.remember(key, dict).items():
            assert np.array_equal(one.decisions.remember(key, dict)[name], value)
    assert difference(model, both.model, feeds[0]) < 1e-5


def test_the_manager_runs_and_verifies_it() -> None:
    model = model_of(ONE)
    feeds = samples(model)
    result = PassManager([PASS]).run(model, Context(target="ort", data=context(feeds).data))
    record = next(record for record in result.ledger.passes if record.name == PASS.name)
    assert [entry.site for entry in record.rewritten] == ["y"] and not result.undone


@pytest.mark.parametrize("options", [{"least_gain": -0.1}, {"least_gain_of_mul": 1.5}, {"rows": 0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SmoothActivations(**options)


def test_a_mul_has_to_take_away_enough_error() -> None:
    model = model_of(HEAD.format(", float[n,s,32] e", "y = MatMul(l, w) e = Tanh(l)"))
    ctx = context(samples(model))
    assert "by a Mul" in apply(PASS, model, ctx).remarks["y"]
    outcome = apply(dataclasses.replace(PASS, least_error_for_mul=0.5), model, context(samples(model)))
    assert outcome.remarks == {} and outcome.skipped["y"].startswith(
        "too little for a Mul, and it takes one, since 'l'"
    )
