"""Rounding with compensation: integers near the nearest ones, less error on correlated inputs, scales untouched."""

from __future__ import annotations

import numpy as np
import pass_kit
import pytest
from refinement_kit import Refined, assert_replays, initializer, runner, samples  # noqa: F401

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.passes.quantization.float_reference import reference
from irc.passes.quantization.round_weights import RoundWeights

PRODUCT = "m (float[N,32] x) => (float[N,16] y) { y = MatMul(x, w) }"
GEMM = "m (float[N,32] x) => (float[N,16] y) { y = Gemm<transB=1, alpha=0.5>(x, w, b) }"
CONV = "m (float[1,16,9,9] x) => (float y) { y = Conv<group=2, pads=[1,1,1,1]>(x, w, b) }"
CASES = {
    "product": (PRODUCT, {"w": (32, 16)}),
    "gemm": (GEMM, {"w": (16, 32), "b": (16,)}),
    "conv": (CONV, {"w": (8, 8, 3, 3), "b": (8,)}),
}


def correlated(model, count=8):
    """Samples whose channels are mixtures of a few."""
    mixing = np.random.default_rng(5).normal(size=(6, 64)).astype(np.float32)
    source = samples(model, count=count, symbol=60)
    for sample in source:
        x = sample.feed["x"]
        channels = x.shape[1]
        shape = (x.shape[0], 6, *x.shape[2:])
        few = np.random.default_rng(abs(int(x.flat[0] * 1e6))).normal(size=shape)
        mixed = np.einsum("nf...,fc->nc...", few, mixing[:, :channels]) + 0.05 * x
        sample.feed["x"] = np.rint(mixed * 25).clip(-120, 120).astype(np.float32)
    return source


@pytest.mark.parametrize("target", [OrtTarget(), TensorRtTarget()], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_correlated_inputs_compensate_each_other(case, target, runner):  # noqa: F811
    model = pass_kit.parse(*CASES[case])
    source = correlated(model)
    refined = Refined(model, [RoundWeights()], runner, source=source, target=target)
    assert list(refined.rewritten()) == ["y"]
    site = reference(refined.model).sites["y"]
    before, after = (initializer(m, site.stored).astype(int) for m in (refined.stages[0], refined.model))
    assert after.shape == before.shape and 0 < np.abs(after - before).max() < 20
    np.testing.assert_array_equal(*(initializer(m, site.scales) for m in (refined.stages[0], refined.model)))
    fresh = {"x": correlated(model, 12)[-1].feed["x"]}
    exact, plain, better = (pass_kit.run(m, fresh)[0] for m in (model, refined.stages[0], refined.model))
    assert np.square(better - exact).sum() < 0.9 * np.square(plain - exact).sum()
    assert_replays(refined, [RoundWeights()], source=source, target=target)


def test_a_depthwise_layer_stays(runner):  # noqa: F811
    text = "m (float[1,80,6,6] x) => (float y) { y = Conv<group=80, pads=[1,1,1,1]>(x, w) }"
    refined = Refined(pass_kit.parse(text, {"w": (80, 1, 3, 3)}), [RoundWeights()], runner)
    assert refined.skipped() == {"y": "it has 80 groups of 9 inputs"}
