"""Bases of channels: what a change of basis promises of second moments, for any of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.calibration.block_removal import without
from irc.passes.pruning.rotation.rotation_basis import LARGEST_SCALE, balanced, losses, orthogonal

Array = np.ndarray[Any, Any]


def moments(seed: int, width: int, rank: int) -> Array:
    """Of a given rank, directions of very unlike energy."""
    rng = np.random.default_rng([seed, width, rank])
    factor = rng.standard_normal((width, rank)) * np.logspace(0, -1.5, rank)
    return factor @ factor.T


def tails(a: Array, b: Array) -> Array:
    """For every r the least that r directions can lose: sums of squared singular values."""
    half = np.linalg.cholesky(b + 1e-9 * np.trace(b) * np.eye(len(b)))
    values = np.linalg.eigvalsh(half.T @ a @ half)[::-1]
    return np.append(np.cumsum(values[::-1])[::-1], 0.0)


def loss(a: Array, b: Array, kept: Array) -> float:
    """What is lost of w^T x for weights of moments b, if what is kept makes up for the rest as well as it can."""
    half = np.linalg.cholesky(b + 1e-9 * np.trace(b) * np.eye(len(b)))
    gone = np.setdiff1d(np.arange(len(a)), kept)
    change = half.T - without(half.T, a, gone, damping=1e-9)
    return float(np.einsum("ij,jk,ik->", change, a, change))


CASES = st.tuples(st.integers(0, 1000), st.integers(2, 9), st.integers(2, 12), st.integers(2, 12))


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_the_first_channels_of_an_orthogonal_basis_lose_least_for_every_width(case):
    seed, width, one, other = case
    a, b = moments(seed, width, one), moments(seed + 1, width, other)
    basis = orthogonal(a, b)
    assert np.allclose(basis @ basis.T, np.eye(width), atol=1e-9)
    turned_a, turned_b = basis @ a @ basis.T, basis @ b @ basis.T
    least = tails(a, b)
    for count in range(1, width):
        assert loss(turned_a, turned_b, np.arange(count)) <= least[count] + 1e-5 * least[0]


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_both_sides_have_the_same_diagonal_moments_in_a_balanced_basis(case):
    seed, width, _one, _other = case
    a, b = moments(seed, width, 2 * width), moments(seed + 1, width, 2 * width)
    basis = balanced(a, b)
    inverse = np.linalg.inv(basis)
    values = np.sqrt(np.linalg.eigvals(a @ b).real.clip(0))
    values = np.sort(values)[::-1]
    for turned in (basis @ a @ basis.T, inverse.T @ b @ inverse):
        assert np.allclose(turned - np.diag(np.diag(turned)), 0, atol=1e-5 * values[0])
    energy = np.diag(basis @ a @ basis.T) * np.diag(inverse.T @ b @ inverse)
    assert np.allclose(energy, values**2, atol=1e-5 * values[0] ** 2)


@pytest.mark.parametrize("repaired", [True, False])
def test_losses_are_never_more_in_the_best_basis(repaired):
    for seed in range(20):
        a, b = moments(seed, 7, 9), moments(seed + 1, 7, 3)
        before, after, whole = losses(a, b, repaired=repaired)
        assert 0 <= after <= before * (1 + 1e-6) <= whole * (1 + 1e-6)
        assert after == pytest.approx(tails(a, b)[4], rel=1e-3, abs=1e-6 * whole)


def test_in_its_own_basis_nothing_is_left_to_gain():
    a, b = moments(0, 8, 12), moments(1, 8, 12)
    for choose, repaired in ((orthogonal, True), (balanced, False)):
        basis = choose(a, b)
        inverse = np.linalg.inv(basis)
        before, after, _whole = losses(basis @ a @ basis.T, inverse.T @ b @ inverse, repaired=repaired)
        assert before == pytest.approx(after, rel=1e-3)


@pytest.mark.parametrize("choose", [orthogonal, balanced])
@pytest.mark.parametrize("ranks", [(0, 4), (4, 0), (0, 0), (1, 1)])
def test_directions_without_energy_leave_a_basis_that_can_be_inverted(choose, ranks):
    basis = choose(*(moments(i, 6, rank) if rank else np.zeros((6, 6)) for i, rank in enumerate(ranks)))
    assert np.isfinite(basis).all() and np.linalg.cond(basis) < 2 * LARGEST_SCALE**2
