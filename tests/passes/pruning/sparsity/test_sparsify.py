"""sparsify: what zeros do to outputs on samples nobody saw, and that weights that stay make up for them."""

from __future__ import annotations

import numpy as np
import pass_kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity_kit import (
    applied,
    correlated,
    image,
    noise,
    product,
    remarks,
    text,
    zeros,
)

from irc.passes.pruning.sparsity import sparse_layer
from irc.passes.pruning.sparsity.masked_least_squares import MaskedLeastSquares
from irc.passes.pruning.sparsity.sparse_layer import Goal, SparseLayer
from irc.passes.pruning.sparsity.sparse_mask import InputOrder, Pattern
from irc.passes.pruning.sparsity.sparsify import Sparsify
from irc.passes.quantization.layer_sample import LayerRows


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["0.3", "0.5", "0.8", "2:4", "1:3"]), st.booleans())
def test_obs_is_never_worse_than_magnitude_on_held_out_rows(seed, goal, biased):
    generator = np.random.default_rng(seed)
    groups, inputs, outputs = (
        int(generator.integers(1, 4)),
        int(generator.integers(4, 24)),
        int(generator.integers(1, 9)),
    )
    mixing = generator.normal(size=(groups, inputs, inputs)) * generator.exponential(size=(groups, inputs, 1))
    rows = LayerRows(*((generator.normal(size=(groups, n, inputs)) @ mixing + 0.3).astype("f") for n in (60, 50)))
    weight = generator.normal(size=(groups, outputs, inputs)).astype(np.float32)
    pattern = Pattern.of(goal) if ":" in goal else None
    wanted = Goal(0 if pattern else round(float(goal) * weight.size), pattern)
    layer = SparseLayer(weight, rows, InputOrder.of(inputs, 1, pattern), biased=biased)
    obs, plain = layer.sparse(wanted, "obs"), layer.sparse(wanted, "magnitude")
    assert obs.error <= plain.error
    assert (obs.weight == 0).sum() == (plain.weight == 0).sum()


@pytest.mark.parametrize("model", [text, image], ids=["text", "image"])
@pytest.mark.parametrize("options", [{"sparsity": 0.5}, {"sparsity": 0.7}, {"pattern": "2:4"}], ids=str)
def test_weights_that_stay_make_up_for_those_that_go(model, options, runner):
    model = model()
    outcomes = {
        c: applied(Sparsify(criterion=c, minimum=1, **options), model, runner) for c in ("magnitude", "wanda", "obs")
    }
    errors = {name: noise(model, outcome.model) for name, outcome in outcomes.items()}
    assert errors["obs"] < 0.5 * min(errors["magnitude"], errors["wanda"]), errors
    assert all(" on held-out samples, " in text for text in remarks(outcomes["obs"]).values())
    assert noise(model, applied(Sparsify(minimum=1, **options), model, runner).model) == errors["obs"]


def test_steps_are_better_than_one_and_than_blocks(runner, monkeypatch):
    model = image()
    steps = noise(model, applied(Sparsify(sparsity=0.6, minimum=1), model, runner).model)
    monkeypatch.setattr(sparse_layer, "MOST_WORK", 0)
    outcome = applied(Sparsify(sparsity=0.6, minimum=1), model, runner)
    assert zeros(outcome.model, "w2") == round(0.6 * 16 * 8 * 9)
    blocks = noise(model, outcome.model)
    plain = noise(model, applied(Sparsify(sparsity=0.6, minimum=1, criterion="magnitude"), model, runner).model)
    assert steps < blocks < 0.5 * plain


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_what_stays_solves_the_normal_equations_of_its_row(seed):
    generator = np.random.default_rng(seed)
    inputs, outputs = int(generator.integers(2, 14)), int(generator.integers(1, 6))
    rows = generator.normal(size=(3 * inputs, inputs))
    gram, scale = rows.T @ rows, 10.0 ** generator.integers(-12, 12)
    weight = (generator.normal(size=(1, outputs, inputs)) * scale).astype(np.float32)
    kept = generator.random(weight.shape) < 0.6
    found = MaskedLeastSquares(weight, gram[None] * 1e4, 0.01).adapted(kept, iterations=200)
    damped = gram + 0.01 * np.diagonal(gram).mean() * np.eye(inputs)
    assert not found[~kept].any()
    for row, mask, values in zip(weight[0], kept[0], found[0], strict=True):
        exact = np.linalg.lstsq(damped[np.ix_(mask, mask)], damped[mask] @ row, rcond=None)[0]
        np.testing.assert_allclose(values[mask], exact, atol=2e-3 * np.abs(row).max(), rtol=0)


def test_the_bias_takes_over_the_mean(runner):
    model = product("p (float[N,32] x) => (float[N,40] y) { h = MatMul(x, w) y = Add(b, h) }", w=(32, 40), b=(40,))
    feeds = [{"x": feed["x"] + 3} for feed in correlated(model)]
    outcome = applied(Sparsify(sparsity=0.8), model, runner, feeds=feeds)
    assert (pass_kit.weight(outcome.model, "b") != pass_kit.weight(model, "b")).all()
    exact, found = (pass_kit.run(m, feeds[0])[0] for m in (model, outcome.model))
    spread = exact.std(axis=0).mean()
    assert np.abs((found - exact).mean(axis=0)).mean() < 0.3 * spread
    for criterion in ("magnitude", "wanda"):
        plain = applied(Sparsify(sparsity=0.8, criterion=criterion), model, runner, feeds=feeds).model
        np.testing.assert_array_equal(pass_kit.weight(plain, "b"), pass_kit.weight(model, "b"))


@pytest.mark.parametrize("attributes", ["alpha=0.5, beta=2.0", "beta=0.0", "transA=1", "alpha=-1.5, transB=1"])
def test_every_gemm(attributes, runner):
    turned = "transA" in attributes
    text = f"g (float[{'32,20' if turned else '20,32'}] x) => (float[20,40] y) {{ y = Gemm<{attributes}>(x, w, b) }}"
    model = product(text, w=(40, 32) if "transB" in attributes else (32, 40), b=(40,))
    feeds = [
        {"x": np.random.default_rng(n).normal(1, 1, (32, 20) if turned else (20, 32)).astype("f")} for n in range(12)
    ]
    dense = [{"x": f["x"] @ np.eye(20, dtype="f") if turned else f["x"]} for f in feeds]
    outcome = applied(Sparsify(sparsity=0.5), model, runner, feeds=dense)
    plain = applied(Sparsify(sparsity=0.5, criterion="magnitude"), model, runner, feeds=dense).model
    differences = [
        np.concatenate([np.subtract(*(pass_kit.run(m, feed)[0] for m in (after, model))) for feed in dense])
        for after in (outcome.model, plain)
    ]
    errors = [np.sqrt(np.square(difference).mean()) for difference in differences]
    assert outcome.rewritten == ["y"] and errors[0] < errors[1]
    moved = bool((pass_kit.weight(outcome.model, "b") != pass_kit.weight(model, "b")).any())
    assert moved == ("beta=0.0" not in attributes)
    # The shift has the scale of alpha and beta: what it leaves of the mean is sampling noise.
    assert not moved or np.sqrt(np.square(differences[0].mean(axis=0)).mean()) < 0.3 * errors[0]


def test_a_layer_the_data_does_not_reach_goes_by_magnitude(runner):
    model = product("p (float[N,32] x) => (float[0,40] y) { n = Slice(x, from, to) y = MatMul(n, w) }",
                    w=(32, 40), **{"from": np.array([0]), "to": np.array([0])})  # fmt: skip
    outcome = applied(Sparsify(), model, runner)
    assert "by magnitude" in remarks(outcome)["y"] and zeros(outcome.model, "w") == 640


def test_a_tied_head_is_seen_through_its_transpose():
    text = "h (float[N,32] x) => (float[N,40] y) { t = Transpose<perm=[1,0]>(w) y = MatMul(x, t) }"
    outcome = applied(Sparsify(pattern="1:4"), product(text, w=(40, 32)))
    after = pass_kit.weight(outcome.model, "w")
    assert (np.count_nonzero(after.reshape(40, 8, 4), axis=2) == 1).all()


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_floats_keep_their_type(dtype, runner):
    kind = np.dtype(dtype).type
    weight = np.random.default_rng(0).normal(size=(32, 40)).astype(kind)
    model = product(f"p ({dtype}[N,32] x) => ({dtype}[N,40] y) {{ y = MatMul(x, w) }}", w=weight)
    plain = pass_kit.weight(applied(Sparsify(), model).model, "w")
    assert plain.dtype == kind and (plain[plain != 0] == weight[plain != 0]).all() and (plain == 0).sum() == 640
    feeds = [{"x": feed["x"].astype(kind)} for feed in correlated(model)]
    adapted = pass_kit.weight(applied(Sparsify(), model, runner, feeds=feeds).model, "w")
    assert (
        adapted.dtype == kind and (adapted == 0).sum() >= 640 and (adapted[adapted != 0] != weight[adapted != 0]).any()
    )


@pytest.mark.parametrize("model", [text, image], ids=["text", "image"])
def test_it_says_what_all_of_it_came_to(model, runner):
    outcome = applied(Sparsify(sparsity=0.5, minimum=1), model(), runner)
    assert "50.0% of" in outcome.record.summary and "only where kernels skip zeros" in outcome.record.summary
