"""Zeros in weights: how many, and where a pattern wants them."""

from __future__ import annotations

import numpy as np
import pass_kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity_kit import (
    IMAGE_WEIGHTS,
    TEXT,
    applied,
    image,
    product,
    zeros,
)

from irc.passes.pruning.sparsity.sparse_mask import best
from irc.passes.pruning.sparsity.sparse_shares import zeros_by_site
from irc.passes.pruning.sparsity.sparsify import Sparsify


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_more_than_n_of_m_inputs_stay_whatever_the_shape(data):
    kind = data.draw(st.sampled_from(["Conv", "Gemm", "GemmT", "MatMul", "Stack"]))
    width = data.draw(st.integers(2, 8))
    kept = data.draw(st.integers(1, width - 1))
    inputs, outputs = data.draw(st.integers(width, 21)), data.draw(st.integers(1, 6))
    text, shape, axis = {
        "Conv": (f"c (float[1,{2 * inputs},5,5] x) => (float y) {{ y = Conv<group=2>(x, w) }}", (2 * outputs, inputs, 3, 2), 1),
        "Gemm": (f"c (float[3,{inputs}] x) => (float y) {{ y = Gemm(x, w) }}", (inputs, outputs), 0),
        "GemmT": (f"c (float[3,{inputs}] x) => (float y) {{ y = Gemm<transB=1>(x, w) }}", (outputs, inputs), 1),
        "MatMul": (f"c (float[3,{inputs}] x) => (float y) {{ y = MatMul(x, w) }}", (inputs, outputs), 0),
        "Stack": (f"c (float[2,3,{inputs}] x) => (float y) {{ y = MatMul(x, w) }}", (2, inputs, outputs), 1),
    }[kind]  # fmt: skip
    model = pass_kit.parse(text, {"w": shape})
    before = pass_kit.weight(model, "w")
    after = pass_kit.weight(pass_kit.apply(Sparsify(pattern=f"{kept}:{width}", minimum=1), model).model, "w")
    assert after.shape == before.shape and (after[after != 0] == before[after != 0]).all()
    lanes = np.moveaxis(after, axis, -1).reshape(-1, inputs)
    for start in range(0, inputs, width):
        # The best N of each group, and all of them where there are no more.
        group, whole = (
            lanes[:, start : start + width],
            np.moveaxis(before, axis, -1).reshape(-1, inputs)[:, start : start + width],
        )
        assert (np.count_nonzero(group, axis=1) == min(kept, whole.shape[1])).all()
        largest = np.sort(np.abs(whole), axis=1)[:, -min(kept, whole.shape[1]) :]
        np.testing.assert_array_equal(np.sort(np.abs(group), axis=1)[:, -largest.shape[1] :], largest)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.floats(0.01, 0.99), st.integers(0, 3))
def test_as_many_zeros_as_asked_for_also_among_equals(size, share, levels):
    generator = np.random.default_rng(size)
    scores = generator.integers(0, 10**levels + 1, size).astype(float)
    count = round(share * size)
    kept = best(scores, count)
    assert (~kept).sum() == count
    assert not count or count == size or scores[~kept].max() <= scores[kept].min()


@pytest.mark.parametrize("share", [0.01, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "obs"])
def test_the_share_is_exact_in_every_layer(share, criterion, runner):
    outcome = applied(Sparsify(sparsity=share, criterion=criterion, minimum=1), image(), runner)
    for name, shape in IMAGE_WEIGHTS.items():
        size = int(np.prod(shape))
        assert zeros(outcome.model, name) == (round(share * size) if name.startswith("w") else 0)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.02, 0.98), st.integers(0, 1000))
def test_layers_that_compete_share_out_as_many_zeros_as_asked_for(share, seed):
    generator = np.random.default_rng(seed)
    scores = {
        name: np.abs(generator.normal(size=size)) ** 2 * 10.0**size for name, size in {"a": 30, "b": 7, "c": 11}.items()
    }
    scores["c"][:4] = 0
    counts = zeros_by_site(scores, share)
    assert sum(counts.values()) == round(share * 48) and all(0 <= counts[name] <= len(scores[name]) for name in counts)
    units = {name: array / np.sqrt(np.square(array).mean()) for name, array in scores.items()}
    gone = [u for name, array in units.items() for u in np.sort(array)[: counts[name]]]
    left = [u for name, array in units.items() for u in np.sort(array)[counts[name] :]]
    assert not gone or not left or max(gone) <= min(left) * (1 + 2**-6)


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "obs"])
def test_a_global_share_is_met_by_all_layers_together(criterion, runner):
    model = pass_kit.parse(
        TEXT, {"b1": (48,), "w2": (48, 24), "w1": np.random.default_rng(0).standard_t(1.2, (32, 48)).astype("f")}
    )
    outcome = applied(Sparsify(sparsity=0.6, scope="global", criterion=criterion), model, runner)
    counts = zeros(outcome.model, "w1"), zeros(outcome.model, "w2")
    assert sum(counts) == round(0.6 * (32 * 48 + 48 * 24))
    # Long tails: most weights of the first layer are small in its units.
    assert counts[0] / (32 * 48) > counts[1] / (48 * 24) + 0.1
    again = applied(Sparsify(sparsity=0.6, scope="global", criterion=criterion), outcome.model, runner)
    assert again.rewritten == [] and all("and enough of all" in reason for reason in again.skipped.values())


def test_zeros_stay_zero_and_count(runner):
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(32, 40)).astype(np.float32)
    gone = generator.random(weight.shape) < 0.3
    weight[gone] = 0
    for options in ({"sparsity": 0.5}, {"pattern": "2:4"}):
        after = pass_kit.weight(applied(Sparsify(**options), product(w=weight), runner).model, "w")
        assert not after[gone].any()
        assert options.get("pattern") or np.count_nonzero(after) == 640
