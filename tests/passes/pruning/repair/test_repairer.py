"""One teacher and its students: the best repair is taken, and what was changed can be written down and applied again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from channel_kit import model_of, random_weight, run
from pruning_models import attention, cnn
from repair_kit import chain, feeds, keeping, layers_of, residual, source

from irc.channel_surgery import cut
from irc.errors import DataError
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.pruning.repair.repairer import Repairer, apply_weights
from irc.testing.integrity import model_bytes

METHODS = ("none", "update", "least-squares", "statistics", "auto")


def repairer(model, runner, found) -> Repairer:
    layers = layers_of(model)
    return Repairer(layers.propagation, Context(data=source(found), runner=runner), layers)


@pytest.mark.parametrize("build", [chain, residual, cnn, attention])
def test_no_repair_is_worse_than_none_and_all_that_was_tried_is_told(runner, build):
    model = build()
    mine = repairer(model, runner, feeds(model, {"n": 4, "t": 5}, {"n": 3, "t": 6}, count=40))
    alive = keeping(mine.layers, 0.5)
    found = {method: mine.repaired(alive, method) for method in METHODS}
    for method, result in found.items():
        assert result.distance <= result.steps["cut alone"] and result.distance == min(result.steps.values())
        assert result.steps[result.how] == result.distance
        assert mine.distance(result.student.model) == result.distance, method
    assert list(found["none"].steps) == ["cut alone"] and list(found["update"].steps) == ["cut alone", "update"]
    assert "statistics" in found["statistics"].steps
    assert all(name.startswith(("cut", "update", "least-squares")) for name in found["least-squares"].steps)
    assert found["auto"].distance <= found["least-squares"].distance
    assert found["least-squares"].distance < 0.9 * found["none"].distance


def test_a_repair_that_was_begun_is_gone_on_with(runner):
    model = chain()
    mine = repairer(model, runner, feeds(model, {"n": 20}))
    alive = keeping(mine.layers, 0.5)
    first, other = mine.firsts([alive, keeping(mine.layers, 0.5, seed=1)], "auto")
    assert len(first.steps) == len(other.steps) == 3 and first.steps != other.steps
    assert mine.firsts([alive], "auto")[0].steps == first.steps, "which others are compared does not matter"
    on, anew = mine.repaired(alive, "auto", started=first), mine.repaired(alive, "auto")
    assert on.steps == anew.steps and on.how == anew.how
    assert model_bytes(on.student.model) == model_bytes(anew.student.model)


@pytest.mark.parametrize("build", [chain, residual, cnn, attention])
@pytest.mark.parametrize("method", ["none", "update", "auto"])
def test_what_was_written_down_gives_the_same_bytes(runner, build, method):
    model = build()
    mine = repairer(model, runner, feeds(model, {"n": 4, "t": 5}, count=10))
    alive = keeping(mine.layers, 0.5)
    result = mine.repaired(alive, method)
    written = mine.written(result)
    copy = snapshot(model)
    cut(copy, mine.layers.propagation, alive)
    changed = apply_weights(copy, mine.layers, written)
    assert (changed > 0) is (result.how != "cut alone") is bool(written)
    found = feeds(model, {"n": 4, "t": 5}, count=2)
    for a, b in zip(run(copy, found), run(result.student.model, found), strict=True):
        assert np.array_equal(a[0], b[0])


def test_two_repairers_give_the_same_bytes(runner):
    model = residual()
    found = feeds(model, {"n": 4}, count=12)
    results = []
    for data in (found, found[::-1]):
        mine = repairer(residual(), runner, data)
        results.append(model_bytes(mine.repaired(keeping(mine.layers, 0.5), "auto").student.model))
    assert results[0] == results[1]


def test_a_single_sample_is_enough_to_run(runner):
    model = cnn()
    mine = repairer(model, runner, feeds(model, {"n": 1}, count=1))
    result = mine.repaired(keeping(mine.layers, 0.5), "auto")
    assert math.isfinite(result.distance) and result.distance <= result.steps["cut alone"]


def test_no_sample_is_an_error(runner):
    with pytest.raises(DataError, match="no samples"):
        _ = repairer(cnn(), runner, []).batches


def test_a_teacher_that_gives_nan_is_cut_and_not_repaired_into_nonsense(runner):
    """0 / 0 where a Relu gives nothing: on those samples nothing can be said."""
    text = """agraph (float[n, 6] x) => (float[n, 3] y) {
        a = Gemm(x, w0, b0)  r = Relu(a)  s = ReduceSum<keepdims=1>(r, ax)  b = Div(r, s)  y = Gemm(b, w1, b1)
    }"""
    weights = {
        "w0": random_weight(6, 10),
        "b0": np.zeros(10, np.float32),
        "w1": random_weight(10, 3),
        "b1": random_weight(3),
    }
    model = model_of(text, weights | {"ax": np.array([1])})
    found = feeds(model, {"n": 5}, count=12)
    for feed in found:
        feed["x"][0] = 0
    mine = repairer(model, runner, found)
    result = mine.repaired(keeping(mine.layers, 0.5), "auto")
    assert result.how == "cut alone" and result.distance == math.inf
    assert all(np.isfinite(v.const_value.numpy()).all() for v in result.student.model.graph.initializers.values())


def test_integer_outputs_only(runner):
    text = "agraph (float[n, 6] x) => (int64[n] y) { a = Gemm(x, w0, b0)  r = Relu(a)  h = Gemm(r, w1, b1)  y = ArgMax<axis=1, keepdims=0>(h) }"
    weights = {"w0": random_weight(6, 20), "b0": random_weight(20), "w1": random_weight(20, 5), "b1": random_weight(5)}
    model = model_of(text, weights)
    mine = repairer(model, runner, feeds(model, {"n": 30}, count=20))
    result = mine.repaired(keeping(mine.layers, 0.4), "auto")
    assert result.distance < result.steps["cut alone"]


def test_static_sizes_and_outputs_that_are_caches(runner):
    text = """agraph (float[1, 4, 6] x) => (float[1, 4, 3] y, float[1, 4, 10] present_key) {
        a = MatMul(x, w0)  r = Relu(a)  k = MatMul(x, w2)  present_key = Relu(k)  y = MatMul(r, w1)
    }"""
    model = model_of(text, {"w0": random_weight(6, 20), "w1": random_weight(20, 3), "w2": random_weight(6, 10)})
    mine = repairer(model, runner, feeds(model, count=15))
    assert all(batch.samples == 1 for batch in mine.batches.fit)
    result = mine.repaired(keeping(mine.layers, 0.5), "auto")
    assert result.distance < result.steps["cut alone"]


def test_half_precision(runner):
    text = "agraph (float16[n, 6] x) => (float16[n, 3] y) { a = Gemm(x, w, b)  c = Relu(a)  y = Gemm(c, v, d) }"
    weights = {"w": random_weight(6, 16), "v": random_weight(16, 3), "b": random_weight(16), "d": random_weight(3)}
    model = model_of(text, {name: array.astype(np.float16) for name, array in weights.items()})
    mine = repairer(model, runner, feeds(model, {"n": 20}))
    result = mine.repaired(keeping(mine.layers, 0.5), "auto")
    assert result.distance < result.steps["cut alone"]
    assert {v.const_value.dtype.name for v in result.student.model.graph.initializers.values()} == {"FLOAT16"}
