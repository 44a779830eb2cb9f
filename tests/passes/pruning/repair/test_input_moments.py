"""Means and covariances of what layers read, against numpy on all rows at once."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import model_of, random_weight, session
from repair_kit import apart, feeds, layer_of, layers_of

from irc.passes.pruning.repair import input_moments
from irc.passes.pruning.repair.batches import Batch
from irc.passes.pruning.repair.input_moments import InputMoments, pooled, positions

MODELS = {
    "conv": ("float[n, 4, 6, 5]", "a = Relu(x)  y = Conv<pads=[1,0,2,1], strides=[2,1]>(a, w)", (6, 4, 3, 2)),
    "dilated": ("float[n, 4, 9]", "a = Relu(x)  y = Conv<dilations=[2], pads=[1,1]>(a, w)", (3, 4, 3)),
    "same": ("float[n, 2, 7, 7]", 'a = Relu(x)  y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(a, w)', (3, 2, 4, 4)),
    "grouped": ("float[n, 6, 5, 5]", "a = Relu(x)  y = Conv<group=3, pads=[1,1,1,1]>(a, w)", (6, 2, 3, 3)),
    "depthwise": ("float[n, 3, 5, 5]", "a = Relu(x)  y = Conv<group=3>(a, w)", (6, 1, 3, 3)),
    "matmul": ("float[n, 3, 2, 5]", "a = Relu(x)  y = MatMul(a, w)", (5, 4)),
    "stack": ("float[n, 3, 2, 5]", "a = Relu(x)  y = MatMul(a, w)", (3, 5, 4)),
    "gemm": ("float[n, 5]", "a = Relu(x)  y = Gemm<transB=1, alpha=0.5>(a, w)", (4, 5)),
    "transposed": ("float[5, n]", "a = Relu(x)  y = Gemm<transA=1>(a, w)", (5, 4)),
    "of an input": ("float[n, 5]", "y = MatMul(x, w)", (5, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_moments_are_those_of_all_rows(runner, name):
    """The mean and the covariance of rows explain the outputs: mean and covariance of y are those of x through W."""
    kind, body, shape = MODELS[name]
    model = model_of(f"agraph ({kind} x) => (float[] y) {{ {body} }}".replace("float[] y", f"float[{','.join('abcd'[: kind.count(',') + 1])}] y"), {"w": random_weight(*shape)})  # fmt: skip
    layers = layers_of(model)
    layer = layer_of(layers, "y")
    found = feeds(model, {"n": 3}, {"n": 5}, count=5)
    moments = InputMoments(model, runner, apart(found))[layer]
    assert moments is not None
    x = [np.maximum(feed["x"], 0) if "Relu" in body else feed["x"] for feed in found]
    rows = np.concatenate([layer.layer.rows(part) for part in x], axis=1).astype(np.float64)
    assert moments.count == rows.shape[1]
    for group, part in enumerate(rows):
        assert np.allclose(moments.mean[group], part.mean(axis=0), atol=1e-5)
        assert np.allclose(moments.gram[group], np.cov(part.T, bias=True), atol=1e-5)
        assert np.allclose(moments.second(group), part.T @ part / len(part), atol=1e-5)
    # Rows are what the runtime multiplies: the mean of its outputs follows from the mean of the rows.
    outputs = [session(model).run(None, feed)[0] for feed in found]
    matrices = layer.layer.matrices(layer.weight.values)
    expected = np.einsum("gk,gkn->gn", moments.mean, matrices) * layer.layer.factor
    if name == "stack":
        mean = np.concatenate(outputs).mean(axis=(0, 2))
    elif layer.convolves:
        mean = np.concatenate([y.reshape(*y.shape[:2], -1) for y in outputs]).mean(axis=(0, 2))
    else:
        mean = np.concatenate([y.reshape(-1, y.shape[-1]) for y in outputs]).mean(axis=0)
    assert np.allclose(expected.reshape(mean.shape), mean, atol=1e-4)


def test_large_means_leave_small_variances(runner):
    """Squares of a mean of 3000 in single precision would leave nothing of a variance of 1."""
    model = model_of("agraph (float[n, 6] x) => (float[n, 2] y) { y = MatMul(x, w) }", {"w": random_weight(6, 2)})
    found = [{"x": feed["x"] + np.float32(3000)} for feed in feeds(model, {"n": 64}, count=6)]
    moments = InputMoments(model, runner, apart(found))[layer_of(layers_of(model), "y")]
    rows = np.concatenate([feed["x"] for feed in found]).astype(np.float64)
    assert np.allclose(moments.gram[0], np.cov(rows.T, bias=True), rtol=1e-3, atol=1e-3)


def test_half_precision(runner):
    model = model_of(
        "agraph (float16[n, 6] x) => (float16[n, 2] y) { y = MatMul(x, w) }",
        {"w": random_weight(6, 2).astype(np.float16)},
    )
    found = [{"x": (feed["x"] * 200).astype(np.float16)} for feed in feeds(model, {"n": 40}, count=3)]
    moments = InputMoments(model, runner, apart(found))[layer_of(layers_of(model), "y")]
    rows = np.concatenate([feed["x"] for feed in found]).astype(np.float64)
    assert np.allclose(moments.gram[0], np.cov(rows.T, bias=True), rtol=1e-4), "squares of 200 leave float16"


def test_pooled_moments_are_those_of_all_rows(runner):
    """Of other counts and other means; of one input they are its own."""
    text = (
        "agraph (float[n, 5] x, float[m, 5] z) => (float[n, 2] y, float[m, 2] u) { y = MatMul(x, w)  u = MatMul(z, w) }"
    )
    model = model_of(text, {"w": random_weight(5, 2)})
    found = [feed | {"z": feed["z"] * 3 + np.float32(7)} for feed in feeds(model, {"n": 9, "m": 31}, count=4)]
    layers = layers_of(model)
    moments = InputMoments(model, runner, apart(found))
    one, other = (moments[layer_of(layers, name)] for name in ("y", "u"))
    together = pooled([one, other])
    rows = np.concatenate([feed[name] for name in ("x", "z") for feed in found]).astype(np.float64)
    assert together.count == len(rows) == 160 and pooled([one]) is one
    assert np.allclose(together.mean[0], rows.mean(axis=0), atol=1e-5)
    assert np.allclose(together.gram[0], np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-3)
    assert np.allclose(together.second(0), rows.T @ rows / len(rows), rtol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_moments_and_the_rest_has(runner, value):
    text = (
        "agraph (float[n, 4] x, float[n, 4] z) => (float[n, 2] y) { a = MatMul(x, w)  b = MatMul(z, v)  y = Add(a, b) }"
    )
    model = model_of(text, {"w": random_weight(4, 2), "v": random_weight(4, 2, seed=1)})
    found = feeds(model, {"n": 3}, count=4)
    found[2]["x"][1, 1] = value
    layers = layers_of(model)
    moments = InputMoments(model, runner, apart(found))
    assert moments[layer_of(layers, "a")] is None and moments[layer_of(layers, "b")] is not None


def test_a_value_without_rows_has_no_moments(runner):
    model = model_of("agraph (float[n, 4] x) => (float[n, 2] y) { y = MatMul(x, w) }", {"w": random_weight(4, 2)})
    layer = layer_of(layers_of(model), "y")
    assert InputMoments(model, runner, apart([{"x": np.zeros((0, 4), np.float32)}]))[layer] is None
    some = apart([{"x": np.zeros((0, 4), np.float32)}, {"x": np.ones((2, 4), np.float32)}])
    assert InputMoments(model, runner, some)[layer].count == 2


def test_layers_that_read_alike_share_and_nothing_is_gathered_twice(runner, monkeypatch):
    text = """agraph (float[n, 4] x) => (float[n, 4] y) {
        h = Relu(x)  a = MatMul(h, w)  b = MatMul(h, v)  c = Add(a, b)  y = MatMul(c, w)
    }"""
    model = model_of(text, {"w": random_weight(4, 4), "v": random_weight(4, 4, seed=1)})
    layers = layers_of(model)
    moments = InputMoments(model, runner, apart(feeds(model, {"n": 3}, count=2)))
    sweeps = []
    sweep = InputMoments._sweep
    monkeypatch.setattr(InputMoments, "_sweep", lambda self, group, p: (sweeps.append(group), sweep(self, group, p)))
    moments.gather(layers.all)
    assert moments[layers.all[0]] is moments[layers.all[1]] is not moments[layers.all[2]]
    assert [len(group) for group in sweeps] == [2]
    monkeypatch.setattr(input_moments, "BUDGET_BYTES", 1)
    fresh = InputMoments(model, runner, apart(feeds(model, {"n": 3}, count=2)))
    fresh.gather(layers.all)
    assert [len(group) for group in sweeps] == [2, 1, 1]
    assert np.array_equal(fresh[layers.all[2]].gram, moments[layers.all[2]].gram)


def test_positions_are_shares_of_what_is_wanted_and_repeat():
    batch = Batch({}, 2, 7)
    assert positions(5, batch, 100, 10, 0).tolist() == [0, 1, 2, 3, 4]
    found = positions(1000, batch, 100, 10, 0)
    assert len(found) == 20 and (np.diff(found) > 0).all()
    assert np.array_equal(found, positions(1000, batch, 100, 10, 0))
    assert not np.array_equal(found, positions(1000, batch, 100, 10, 1))
    assert not np.array_equal(found, positions(1000, Batch({}, 2, 8), 100, 10, 0))
    assert len(positions(1000, batch, 1, 1000, 0)) == 1 and len(positions(0, batch, 10, 10, 0)) == 0


def test_few_of_many_rows_still_are_about_right(runner, monkeypatch):
    monkeypatch.setattr(input_moments, "ROWS", 400)
    model = model_of("agraph (float[n, 6] x) => (float[n, 2] y) { y = MatMul(x, w) }", {"w": random_weight(6, 2)})
    layer = layer_of(layers_of(model), "y")
    found = feeds(model, {"n": 2000}, count=4)
    monkeypatch.setattr(input_moments, "rows_wanted", lambda layer: 400)
    moments = InputMoments(model, runner, apart(found))[layer]
    rows = np.concatenate([feed["x"] for feed in found])
    assert moments.count == 400
    assert np.abs(moments.gram[0] - np.cov(rows.T, bias=True)).max() < 0.5
