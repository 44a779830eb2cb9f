"""The mean error of every channel goes into whatever adds a constant to it, and into nothing else."""

from __future__ import annotations

import numpy as np
import pass_kit
import pytest
from refinement_kit import Refined, assert_replays, initializer, runner, samples  # noqa: F401

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.passes.quantization.correct_bias import CorrectBias

CASES = {
    "conv": ("m (float[N,16,6,6] x) => (float y) { y = Conv(x, w, b) }", {"w": (8, 16, 3, 3), "b": (8,)}),
    "conv without bias": ("m (float[N,16,6,6] x) => (float y) { y = Conv(x, w) }", {"w": (8, 16, 3, 3)}),
    "grouped": ("m (float[N,16,6,6] x) => (float y) { y = Conv<group=4>(x, w, b) }", {"w": (8, 4, 3, 3), "b": (8,)}),
    "gemm": ("m (float[N,32] x) => (float y) { y = Gemm<transB=1>(x, w, b) }", {"w": (8, 32), "b": (8,)}),
    "scaled": ("m (float[N,32] x) => (float y) { y = Gemm<alpha=0.5, beta=2.0>(x, w, b) }", {"w": (32, 8), "b": (8,)}),
    "product": ("m (float[N,5,32] x) => (float y) { p = MatMul(x, w)  y = Add(p, b) }", {"w": (32, 8), "b": (8,)}),
    "matrix": ("m (float[N,32] x) => (float y) { p = MatMul(x, w)  y = Add(b, p) }", {"w": (32, 8), "b": (1, 8)}),
}


def build(case):
    """A model and samples whose mean makes the rounding of weights a shift of the outputs."""
    model = pass_kit.parse(*CASES[case])
    source = samples(model, symbol=30)
    for sample in source:
        sample.feed["x"] = sample.feed["x"] * 0.3 + 3
    return model, source


@pytest.mark.parametrize("target", [OrtTarget(), OrtTarget(cpu="avx2"), TensorRtTarget()], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_the_mean_error_goes(case, target, runner):  # noqa: F811
    model, source = build(case)
    refined = Refined(model, [CorrectBias()], runner, source=source, target=target)
    if case == "scaled" and target.quantization.gemm_bias == "int32":  # quantize put a product of constants behind it
        assert refined.skipped() == {"y": "no constant is added to its output"}
        return
    assert len(refined.rewritten()) == 1
    fresh = {"x": pass_kit.feeds(model, symbol=60, seed=50)["x"] * 0.3 + 3}
    exact, plain, better = (pass_kit.run(m, fresh)[0] for m in (model, refined.stages[0], refined.model))
    axes = (
        (0, *range(2, exact.ndim))
        if "Conv(" in CASES[case][0] or "Conv<" in CASES[case][0]
        else tuple(range(exact.ndim - 1))
    )
    before, after = (np.square((y - exact).mean(axis=axes)).sum() for y in (plain, better))
    assert after < 0.5 * before
    assert_replays(refined, [CorrectBias()], source=source, target=target)


def test_a_product_without_a_constant_behind_it_stays(runner):  # noqa: F811
    text = "m (float[N,5,32] x) => (float y, float z) { y = MatMul(x, w)  p = MatMul(x, v)  a = Abs(y)  z = Add(p, a) }"
    refined = Refined(pass_kit.parse(text, {"w": (32, 8), "v": (32, 8)}), [CorrectBias()], runner)
    assert refined.skipped() == dict.fromkeys(("y", "p"), "no constant is added to its output")


def test_a_sum_beside_another_reader_stays(runner):  # noqa: F811
    text = "m (float[N,5,32] x) => (float y, float z) { p = MatMul(x, w)  y = Add(p, b)  z = Abs(p) }"
    refined = Refined(pass_kit.parse(text, {"w": (32, 8), "b": (8,)}), [CorrectBias()], runner)
    assert refined.skipped() == {"p": "no constant is added to its output"}


def test_a_constant_that_others_add_too_stays_theirs(runner):  # noqa: F811
    text = "m (float[N,5,32] x) => (float y, float z) { p = MatMul(x, w)  y = Add(p, b)  a = MatMul(x, v)  t = Tanh(a)  z = Add(t, b) }"
    model = pass_kit.parse(text, {"w": (32, 8), "v": (32, 8), "b": (8,)})
    source = samples(model, symbol=30)
    for sample in source:
        sample.feed["x"] = sample.feed["x"] * 0.3 + 3
    refined = Refined(model, [CorrectBias()], runner, source=source)
    assert list(refined.rewritten()) == ["p"]
    adds = {n.outputs[0].name: n for n in refined.model.graph if n.op_type == "Add"}
    exact = pass_kit.weight(model, "b")
    np.testing.assert_array_equal(np.ravel(adds["z"].inputs[1].const_value.numpy()), exact)
    assert not np.array_equal(np.ravel(adds["y"].inputs[1].const_value.numpy()), exact)
