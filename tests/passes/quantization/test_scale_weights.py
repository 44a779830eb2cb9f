"""Scales of weights by weighted error: better where inputs are silent, and never for a weight that somebody else reads."""

from __future__ import annotations

import int8_kit
import numpy as np
import pass_kit
from refinement_kit import Refined, assert_replays, initializer, runner, samples  # noqa: F401

from irc.passes.quantization.float_reference import reference
from irc.passes.quantization.scale_weights import ScaleWeights

MODEL = "m (float[N,32] x) => (float[N,16] y) { y = MatMul(x, w) }"


def silent_outlier():
    """A weight whose largest elements meet an input that is nearly zero."""
    weight = np.random.default_rng(0).uniform(-1, 1, size=(32, 16)).astype(np.float32)
    weight[7] = 1.9
    model = pass_kit.parse(MODEL, {"w": weight})
    source = samples(model, symbol=40)
    for sample in source:
        # Integers, so that the quantization of the input costs nothing.
        sample.feed["x"] = np.clip(np.rint(sample.feed["x"] * 40), -127, 127).astype(np.float32)
        sample.feed["x"][:, 7] = 0
        sample.feed["x"][0, 0], sample.feed["x"][0, 1] = -127, 128
    return model, source


def test_silent_inputs_do_not_decide_the_scale(runner):  # noqa: F811
    model, source = silent_outlier()
    refined = Refined(model, [ScaleWeights()], runner, source=source)
    site = reference(refined.model).sites["y"]
    before, after = (initializer(m, site.scales) for m in (refined.stages[0], refined.model))
    assert after.shape == (16,) and (after < 0.75 * before).all()
    stored = initializer(refined.model, site.stored).astype(np.float32) * after
    others = np.arange(32) != 7
    assert np.abs(stored - site.weight.numpy())[others].max() <= 0.501 * after.max()
    errors = [int8_kit.noise(model, m, source[0].feed) for m in refined.stages]
    assert errors[1] < 0.5 * errors[0]
    assert_replays(refined, [ScaleWeights()], source=source)


def test_a_table_that_is_looked_up_too_stays(runner):  # noqa: F811
    refined = Refined(int8_kit.text(), [ScaleWeights()], runner)
    assert "is also read for Gather" in refined.skipped()["logits"]


def test_two_layers_with_one_weight_stay(runner):  # noqa: F811
    text = "m (float[N,32] x) => (float[N,16] y, float[N,16] z) { y = MatMul(x, w)  r = Relu(x)  z = MatMul(r, w) }"
    refined = Refined(pass_kit.parse(text, {"w": (32, 16)}), [ScaleWeights()], runner)
    assert set(refined.skipped()) == {"y", "z"}
    assert "also read for MatMul 'z'" in refined.skipped()["y"]
