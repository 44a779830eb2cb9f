"""The second-order solver: laws, degenerate grams, and tiny cases against the exact optimum."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.calibration.compensation import Projection, compensate, factorised, relative_error, row_errors


def grid(values, column):
    return np.clip(np.rint(values * 2), -3, 3).astype(np.float32) / 2


def case(seed: int, rows: int = 6, columns: int = 20, samples: int = 60):
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(columns, columns)) / np.sqrt(columns) + 0.3
    x = generator.normal(size=(samples, columns)) @ mixed
    return generator.normal(size=(rows, columns)).astype(np.float32), x.T @ x


def test_an_identity_gram_is_plain_projection():
    weight, _ = case(0)
    np.testing.assert_array_equal(compensate(weight, np.eye(20), grid, damping=0), grid(weight, 0))
    np.testing.assert_array_equal(compensate(weight, np.diag(np.arange(20.0)), grid, sweeps=2), grid(weight, 0))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(1, 60),
    columns=st.integers(1, 40),
    damping=st.sampled_from([0.0, 0.01, 1.0]),
    sweeps=st.integers(0, 2),
)
def test_never_worse_than_projection_alone_row_by_row(seed, samples, columns, damping, sweeps):
    weight, gram = case(seed, columns=columns, samples=samples)
    found = compensate(weight, gram, grid, damping=damping, sweeps=sweeps)
    np.testing.assert_array_equal(found, grid(found, 0))
    plain, better = row_errors(weight, grid(weight, 0), gram), row_errors(weight, found, gram)
    assert (better <= plain * (1 + 1e-6)).all()


def test_it_is_far_better_where_inputs_are_correlated():
    weight, gram = case(3, rows=64, columns=48, samples=500)
    plain = relative_error(weight, grid(weight, 0), gram)
    assert relative_error(weight, compensate(weight, gram, grid), gram) < 0.5 * plain


@pytest.mark.parametrize("seed", range(6))
def test_tiny_cases_lie_between_the_optimum_and_projection(seed):
    weight, gram = case(seed, rows=3, columns=5)
    levels = np.array(list(itertools.product([-1.0, -0.5, 0.0, 0.5, 1.0], repeat=5)), np.float32)

    def project(values, column):
        return np.clip(np.rint(values * 2), -2, 2).astype(np.float32) / 2

    found = row_errors(weight, compensate(weight, gram, project, damping=1e-4, sweeps=5), gram)
    plain = row_errors(weight, project(weight, 0), gram)
    optimum = np.array([min(row_errors(row.repeat(len(levels), 0), levels, gram)) for row in np.split(weight, 3)])
    assert (found >= optimum * (1 - 1e-5)).all()
    # Closer to the optimum than to projection alone, taken together.
    assert (found - optimum).sum() <= 0.5 * (plain - optimum).sum() + 1e-9


def test_pruning_half_of_each_row_compensates_the_rest():
    class HalfOfEachGroup(Projection):
        group_width = 4

        def enter(self, weights, columns, stiffness):
            saliency = weights**2 / np.diagonal(np.linalg.inv(stiffness))
            ranks = np.argsort(np.argsort(-saliency, axis=1), axis=1)
            self.kept = {int(column): ranks[:, i] < 2 for i, column in enumerate(columns)}

        def project(self, values, column):
            return np.where(self.kept[column], values, np.float32(0))

    weight, gram = case(1, rows=16, columns=22, samples=400)
    found = compensate(weight, gram, HalfOfEachGroup())
    assert ((found[:, :20].reshape(16, 5, 4) != 0).sum(-1) == 2).all()
    largest = np.argsort(np.argsort(-np.abs(weight[:, :20].reshape(16, 5, 4)), axis=-1), axis=-1) < 2
    magnitude = weight.copy()
    magnitude[:, :20] *= largest.reshape(16, 20)
    assert relative_error(weight, found, gram) < 0.5 * relative_error(weight, magnitude, gram)


def test_entry_tells_the_true_cost_of_changing_a_group():
    seen = []

    class Watch(Projection):
        group_width = 3

        def enter(self, weights, columns, stiffness):
            seen.append((np.array(weights), columns.copy(), stiffness))

        def project(self, values, column):
            return values

    weight, gram = case(2, columns=8)
    compensate(weight, gram, Watch(), order="given", damping=0.0)
    assert [list(columns) for _, columns, _ in seen] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    unit = np.diagonal(gram).mean()
    for weights, columns, stiffness in seen:
        first, rest = columns, np.arange(columns[-1] + 1, 8)
        schur = gram[np.ix_(first, first)]
        if rest.size:
            schur = schur - gram[np.ix_(first, rest)] @ np.linalg.solve(
                gram[np.ix_(rest, rest)], gram[np.ix_(rest, first)]
            )
        np.testing.assert_allclose(stiffness * unit, schur, rtol=1e-6, atol=1e-6 * unit)
        np.testing.assert_array_equal(weights, weight[:, columns])


@pytest.mark.parametrize("seed", range(3))
def test_a_permutation_of_the_inputs_permutes_the_result(seed):
    weight, gram = case(seed)
    order = np.random.default_rng(seed).permutation(20)
    found = compensate(weight, gram, grid)
    permuted = compensate(weight[:, order], gram[np.ix_(order, order)], grid)
    np.testing.assert_allclose(permuted, found[:, order], atol=1e-6)


def test_dead_channels_are_projected_alone_and_disturb_nobody():
    weight, gram = case(4)
    alive = np.r_[0:7, 8:15, 16:20]
    full = np.zeros((20, 20))
    full[np.ix_(alive, alive)] = gram[np.ix_(alive, alive)]
    found = compensate(weight, full, grid, damping=0.0)
    np.testing.assert_array_equal(found[:, [7, 15]], grid(weight[:, [7, 15]], 0))
    np.testing.assert_array_equal(
        found[:, alive], compensate(weight[:, alive], full[np.ix_(alive, alive)], grid, damping=0.0)
    )
    np.testing.assert_array_equal(compensate(weight, np.zeros((20, 20)), grid), grid(weight, 0))


@pytest.mark.parametrize("samples", [1, 3, 19])
def test_fewer_samples_than_channels(samples):
    weight, gram = case(5, samples=samples)
    found = compensate(weight, gram, grid, damping=0.0)
    assert np.isfinite(found).all()
    assert row_errors(weight, found, gram).sum() < row_errors(weight, grid(weight, 0), gram).sum()
    damped, factor = factorised(gram, 0.0)
    assert (np.diagonal(damped) >= np.diagonal(gram)).all() and np.isfinite(factor).all()


def test_the_factor_is_that_of_the_inverse():
    _, gram = case(6, columns=150, samples=600)
    damped, factor = factorised(gram, 0.01)
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(150), atol=1e-8)
    assert not np.tril(factor, -1).any()


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e20])
def test_neither_the_scale_of_the_weight_nor_of_the_gram_matters(scale, unit):
    weight, gram = case(7)
    power = np.float32(2.0 ** round(np.log2(scale)))

    def project(values, column):
        return grid(values / power, column) * power

    found = compensate(weight * power, gram * unit, project)
    np.testing.assert_allclose(found / power, compensate(weight, gram, grid), atol=1e-6)
    assert relative_error(weight * power, found, gram * unit) == pytest.approx(
        relative_error(weight, found / power, gram), rel=1e-4
    )


def test_descent_does_not_raise_the_error_and_runs_give_the_same():
    weight, gram = case(8, rows=32, columns=140, samples=300)
    errors = [relative_error(weight, compensate(weight, gram, grid, sweeps=n), gram) for n in (0, 3)]
    assert errors[1] <= errors[0]
    np.testing.assert_array_equal(compensate(weight, gram, grid), compensate(weight, gram, grid))


def test_inputs_are_checked_and_kept():
    weight, gram = case(9)
    kept = weight.copy(), gram.copy()
    compensate(weight, gram, grid, sweeps=1)
    np.testing.assert_array_equal(weight, kept[0])
    np.testing.assert_array_equal(gram, kept[1])
    with pytest.raises(ValueError, match="do not fit"):
        compensate(weight, gram[1:, 1:], grid)
    with pytest.raises(ValueError, match="NaN"):
        compensate(weight, np.full_like(gram, np.nan), grid)
    with pytest.raises(ValueError, match="order"):
        compensate(weight, gram, grid, order="random")
    assert compensate(weight[:0], gram, grid).shape == (0, 20)
    assert relative_error(weight, weight, gram) == 0.0
    assert relative_error(np.zeros((1, 1)), np.ones((1, 1)), np.ones((1, 1))) == float("inf")
