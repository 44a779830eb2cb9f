"""Quantiles against independent sums and integrals; bounds against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.judge.bounds import (
    ROUNDING,
    beta_quantile,
    binomial_lower,
    binomial_upper,
    bootstrap_bound,
    continuous_bound,
    counted_bound,
    incomplete_beta,
    ratio_bound,
    samples_needed,
    student_quantile,
)


def binomial_at_most(k: int, n: int, rate: float) -> float:
    return sum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 6.313751514675), (2, 2.919985580354), (5, 2.015048372669), (30, 1.697260886593), (1e6, 1.64485515074)],
)
def test_student_quantile_matches_the_tables(degrees: float, expected: float) -> None:
    assert student_quantile(0.95, degrees) == pytest.approx(expected, rel=1e-8)


def test_student_quantile_at_the_median_is_zero() -> None:
    assert student_quantile(0.5, 7) == 0.0


@pytest.mark.parametrize(("a", "b", "x"), [(2, 3, 0.1), (2, 3, 0.9), (5, 1, 0.5), (1, 1, 0.3), (40, 60, 0.42)])
def test_incomplete_beta_is_a_binomial_tail(a: int, b: int, x: float) -> None:
    n = a + b - 1
    assert incomplete_beta(x, a, b) == pytest.approx(1 - binomial_at_most(a - 1, n, x), rel=1e-12)


@given(st.floats(0.001, 0.999), st.floats(0.5, 200), st.floats(0.5, 200))
def test_beta_quantile_inverts_the_incomplete_beta(p: float, a: float, b: float) -> None:
    assert incomplete_beta(beta_quantile(p, a, b), a, b) == pytest.approx(p, rel=1e-6)


@given(st.integers(1, 60), st.integers(1, 400))
def test_binomial_upper_leaves_five_percent(k: int, more: int) -> None:
    n = k + more
    assert binomial_at_most(k, n, binomial_upper(k, n)) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("n", [10, 64, 300, 10_000])
def test_no_event_in_n_leaves_about_three_in_n(n: int) -> None:
    assert binomial_at_most(0, n, binomial_upper(0, n)) == pytest.approx(0.05, rel=1e-9)
    assert binomial_upper(0, n) == pytest.approx(3 / n, rel=0.15)


def test_binomial_bounds_at_their_ends() -> None:
    assert binomial_upper(5, 5) == 1.0
    assert binomial_lower(0, 5) == 0.0
    assert binomial_lower(5, 5) == pytest.approx(0.05 ** (1 / 5))


def test_binomial_upper_of_millions_of_pixels_is_quick_and_safe() -> None:
    assert 1e-3 < binomial_upper(50_000, 50_000_000) < 1.1e-3


def test_samples_needed_to_prove_one_percent() -> None:
    assert samples_needed(0.01) == 299
    assert binomial_upper(0, 299) <= 0.01 < binomial_upper(0, 298)


def test_ratio_bound_of_constant_ratio_is_the_ratio() -> None:
    scale = np.array([1.0, 2.0, 5.0])
    assert ratio_bound(0.1 * scale, scale) == pytest.approx(0.1)


def test_ratio_bound_with_equal_scales_is_the_t_interval_of_the_mean() -> None:
    loss = np.array([0.1, 0.3, 0.2, 0.6])
    expected = loss.mean() + 2.353363434801825 * loss.std(ddof=1) / 2
    assert ratio_bound(loss, np.ones(4)) == pytest.approx(expected, rel=1e-8)


def test_continuous_bound_of_no_error_is_rounding_and_of_one_sample_nothing() -> None:
    assert continuous_bound(np.zeros(10), np.ones(10)) == ROUNDING
    assert continuous_bound(np.zeros(1), np.ones(1)) == 1.0


def test_continuous_bound_holds_for_skewed_losses_where_plain_t_does_not() -> None:
    draws = np.random.default_rng(1).exponential(size=(1000, 30))
    assert np.mean([continuous_bound(draw, np.ones(30)) >= 1.0 for draw in draws]) >= 0.94
    assert np.mean([ratio_bound(draw, np.ones(30)) >= 1.0 for draw in draws]) < 0.92


@pytest.mark.parametrize(("lose", "win", "n"), [(0.02, 0.02, 100), (0.05, 0.0, 64), (0.01, 0.0, 300), (0.1, 0.05, 60)])
def test_counted_bound_covers_the_true_loss(lose: float, win: float, n: int) -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(500):
        draw = generator.random(n)
        worse, better = draw < lose, draw > 1 - win
        bound = counted_bound(
            worse.astype(float) - better,
            np.ones(n),
            losses=int(worse.sum()),
            gains=int(better.sum()),
            harm=float(worse.sum()),
            trials=n,
        )
        covered += bound >= lose - win
    assert covered / 500 >= 0.93


def test_counted_bound_without_a_flip_is_the_rule_of_three() -> None:
    bound = counted_bound(np.zeros(64), np.full(64, 0.8), losses=0, gains=0, harm=0.0, trials=64)
    assert bound == pytest.approx(binomial_upper(0, 64))


def test_bootstrap_bound_is_seeded_and_above_the_loss() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.2, 50)

    def loss(draw: np.ndarray) -> float:
        return float(values @ draw / draw.sum())

    bound = bootstrap_bound(loss, 50, seed=3)
    assert bound == bootstrap_bound(loss, 50, seed=3)
    assert bound >= values.mean() + 1.645 * values.std() / math.sqrt(50) * 0.8
    assert bootstrap_bound(lambda draw: 0.0, 50, seed=0) == pytest.approx(binomial_upper(0, 50))
