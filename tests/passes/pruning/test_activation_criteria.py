"""Scores from what flows through the channels, against the formulas."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import model_of, random_weight, session
from pruning_models import attention, cnn
from repair_kit import CHAIN, chain, feeds, source

from irc.analysis.channels import ChannelGroups, propagate
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.pruning.activation_criteria import activation_scores
from irc.passes.pruning.repair.repairer import Repairer


def scored(model, runner, found, kind):
    """Scores by the names of families, and the samples they are of."""
    propagation = propagate(model)
    repairer = Repairer(propagation, Context(data=source(found), runner=runner))
    scores = activation_scores(ChannelGroups(propagation, "rows"), repairer, kind)
    used = [batch.feed for batch in repairer.batches.fit]
    return {family.name: score for family, score in scores.items()}, used


def values(model, name, used):
    """A value on the samples."""
    whole = snapshot(model)
    whole.graph.outputs.append(next(v for node in whole.graph for v in node.outputs if v.name == name))
    return [session(whole).run([name], feed)[0].astype(np.float64) for feed in used]


@pytest.mark.parametrize("kind", ["wanda", "flap"])
def test_the_formulas(runner, kind):
    model = chain()
    found, used = scored(model, runner, feeds(model, {"n": 30}), kind)
    x = np.concatenate(values(model, "c", used))
    w = model.graph.initializers["w1"].const_value.numpy()
    expected = (
        np.abs(w).sum(axis=0) * np.sqrt(np.square(x).mean(axis=0))
        if kind == "wanda"
        else np.square(w).sum(axis=0) * x.var(axis=0)
    )
    assert found["a"] == pytest.approx(expected, rel=1e-4)


def test_all_readers_and_all_columns_of_a_channel_are_added(runner):
    """The 9 taps of a kernel; a stream is read by the block and by the classifier."""
    model = cnn()
    found, used = scored(model, runner, feeds(model, {"n": 4}), "flap")
    x = np.concatenate(values(model, "d", used))
    patches = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    w = model.graph.initializers["w2"].const_value.numpy()
    expected = np.zeros(32)
    for i in range(3):
        for j in range(3):
            expected += np.square(w[:, :, i, j]).sum(axis=0) * patches[:, :, i : i + 8, j : j + 8].var(axis=(0, 2, 3))
    assert found["c"] == pytest.approx(expected, rel=1e-4) and set(found) == {"a", "c"}


def test_a_constant_channel_has_size_and_no_spread(runner):
    mine = {name: value.const_value.numpy().copy() for name, value in chain().graph.initializers.items()}
    mine["w0"][:, 4], mine["b0"][4] = 0, 3
    model = model_of(CHAIN, mine)
    spread, size = (scored(model, runner, feeds(model, {"n": 30}), kind)[0]["a"] for kind in ("flap", "wanda"))
    assert spread[4] == pytest.approx(0, abs=1e-6) and size[4] > np.median(size)


def test_a_gram_with_a_large_mean_keeps_its_spread(runner):
    text = "agraph (float[n, 4] x) => (float[n, 3] y) { a = Gemm(x, w0, b0)  y = MatMul(a, w1) }"
    model = model_of(text, {"w0": random_weight(4, 6), "b0": np.full(6, 2000, np.float32), "w1": random_weight(6, 3)})
    found, used = scored(model, runner, feeds(model, {"n": 64}), "flap")
    x = np.concatenate(values(model, "a", used))
    expected = np.square(model.graph.initializers["w1"].const_value.numpy()).sum(axis=1) * x.var(axis=0)
    assert found["a"] == pytest.approx(expected, rel=1e-2)


def test_families_that_nobody_reads_and_values_that_are_not_finite(runner):
    model = attention()
    found, _used = scored(model, runner, feeds(model, {"n": 2, "t": 5}), "wanda")
    assert found and all(np.isfinite(score).all() and (score >= 0).all() for score in found.values())
    model = chain()
    samples = feeds(model, {"n": 5})
    for feed in samples:
        feed["x"][0, 0] = np.nan
    assert not scored(model, runner, samples, "flap")[0]
    mine = {name: value.const_value.numpy().copy() for name, value in chain().graph.initializers.items()}
    mine["w1"][0, 3] = np.inf
    found, _used = scored(model_of(CHAIN, mine), runner, feeds(model, {"n": 30}), "wanda")
    assert np.argmax(found["a"]) == 3, "it stays"
