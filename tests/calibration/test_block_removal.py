"""Removal of blocks of columns against least squares solved afresh for every subset."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.calibration.block_removal import Reader, least_squares, removal_path, without

SEEDS = st.integers(0, 2**32 - 1)


def data_of(seed, columns, rows=200, rank=None):
    """Correlated inputs `[rows, columns]`."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, rank or columns)) @ rng.normal(size=(rank or columns, columns))
    return mixed + 0.3 * rng.normal(size=(rows, columns))


def gram_of(x):
    return x.T @ x / len(x)


def damped_rows(x, damping):
    """Rows that make the damped gram."""
    ridge = np.sqrt(damping * np.diagonal(gram_of(x)).mean() * len(x))
    return np.vstack([x, ridge * np.eye(x.shape[1])])


def best_error(weight, x, removed, damping):
    """The oracle: what remains of the outputs after a fit by the columns that stay, over the energy of the outputs."""
    rows = damped_rows(x, damping)
    wanted = rows @ weight.T
    kept = np.setdiff1d(np.arange(x.shape[1]), removed)
    fitted = rows[:, kept] @ np.linalg.lstsq(rows[:, kept], wanted, rcond=None)[0] if len(kept) else 0 * wanted
    return float(np.square(wanted - fitted).sum() / np.square(x @ weight.T).sum())


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 4), st.integers(2, 9), st.sampled_from([1, 2, 5]), st.sampled_from([1e-4, 1e-2]))
def test_every_error_is_that_of_the_best_fit_of_its_subset(seed, size, count, together, damping):
    rng = np.random.default_rng(seed)
    x = data_of(seed, size * count)
    weight = rng.normal(size=(5, size * count))
    blocks = rng.permutation(np.repeat(np.arange(count), size))
    path = removal_path([Reader(weight, gram_of(x), blocks)], together=together, damping=damping)
    assert sorted(path.order) == list(range(count))
    for k in range(count + 1):
        gone = np.flatnonzero(np.isin(blocks, path.order[:k]))
        assert path.errors[k] == pytest.approx(best_error(weight, x, gone, damping), rel=1e-7, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(3, 12))
def test_first_removal_is_the_cheapest_of_all_and_each_next_one_given_those_before(seed, count):
    x, weight = data_of(seed, count), np.random.default_rng(seed).normal(size=(4, count))
    path = removal_path([Reader(weight, gram_of(x), np.arange(count))], together=1)
    for k in range(count):
        before = path.order[:k].tolist()
        costs = {c: best_error(weight, x, [*before, c], 1e-2) for c in range(count) if c not in before}
        assert costs[int(path.order[k])] == pytest.approx(min(costs.values()), rel=1e-7)


def test_blocks_of_one_column_are_classic_obs():
    x, weight = data_of(3, 12), np.random.default_rng(3).normal(size=(4, 12))
    gram = gram_of(x)
    damped = gram + 1e-2 * np.diagonal(gram).mean() * np.eye(12)
    inverse, values, left, order = np.linalg.inv(damped), weight.copy(), list(range(12)), []
    for _ in range(8):
        worst = min(left, key=lambda c: (values[:, c] ** 2).sum() / inverse[c, c])
        values -= np.outer(values[:, worst], inverse[worst]) / inverse[worst, worst]
        inverse -= np.outer(inverse[:, worst], inverse[worst]) / inverse[worst, worst]
        left.remove(worst)
        order.append(worst)
    path = removal_path([Reader(weight, gram, np.arange(12))], together=1, until=8)
    assert path.order.tolist() == order
    expected = values.copy()
    expected[:, order] = 0
    np.testing.assert_allclose(without(weight, gram, path.order), expected, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_weights_depend_on_the_set_alone_and_are_the_best_fit(seed):
    rng = np.random.default_rng(seed)
    x, weight = data_of(seed, 9), rng.normal(size=(3, 9))
    gone = rng.permutation(9)[:4]
    found = without(weight, gram_of(x), gone)
    np.testing.assert_array_equal(found, without(weight, gram_of(x), np.sort(gone)))
    np.testing.assert_array_equal(found, without(weight, gram_of(x), np.isin(np.arange(9), gone)))
    assert not found[:, gone].any()
    rows = damped_rows(x, 1e-2)
    error = np.square(rows @ (weight - found).T).sum() / np.square(x @ weight.T).sum()
    assert error == pytest.approx(best_error(weight, x, gone, 1e-2), rel=1e-8)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 3))
def test_a_copy_of_a_block_costs_nothing_and_the_other_takes_its_weight(seed, size):
    x = data_of(seed, 4 * size)
    x = np.hstack([x, x[:, :size]])
    weight = np.random.default_rng(seed).normal(size=(3, 5 * size))
    path = removal_path([Reader(weight, gram_of(x), np.repeat(np.arange(5), size))], damping=1e-9)
    assert path.order[0] in (0, 4)
    assert path.errors[1] < 1e-7
    found = without(weight, gram_of(x), np.arange(4 * size, 5 * size), damping=1e-9)
    np.testing.assert_allclose(found[:, :size], weight[:, :size] + weight[:, 4 * size :], atol=1e-5)


def test_what_is_dead_goes_first():
    x = data_of(0, 6)
    x[:, 2] = 0
    weight = np.random.default_rng(0).normal(size=(3, 6))
    weight[:, 4] = 0
    path = removal_path([Reader(weight, gram_of(x), np.arange(6))])
    assert set(path.order[:2].tolist()) == {2, 4}
    assert path.errors[2] < 1e-2


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.floats(-12, 12))
def test_units_of_inputs_and_weights_do_not_matter(seed, exponent):
    x, weight = data_of(seed, 8), np.random.default_rng(seed).normal(size=(3, 8))
    blocks, scale = np.repeat(np.arange(4), 2), 10.0**exponent
    one = removal_path([Reader(weight, gram_of(x), blocks)])
    other = removal_path([Reader(weight / scale, gram_of(x) * scale**2, blocks)])
    assert one.order.tolist() == other.order.tolist()
    np.testing.assert_allclose(one.errors, other.errors, rtol=1e-6)


def test_readers_add_up_and_need_not_read_all_blocks_nor_in_blocks_of_one_size():
    rng = np.random.default_rng(5)
    first, second = data_of(1, 8), data_of(2, 5)
    readers = [
        Reader(rng.normal(size=(4, 8)), gram_of(first), np.array([0, 0, 1, 1, 1, 2, -1, 3])),
        Reader(rng.normal(size=(2, 5)), gram_of(second), np.array([3, 3, 0, -1, 0])),
    ]
    path = removal_path(readers, together=1)
    for k in range(5):
        gone = path.removed(k)
        each = [
            best_error(r.weight, x, np.flatnonzero(np.isin(r.blocks, gone)), 1e-2)
            for r, x in zip(readers, (first, second), strict=True)
        ]
        np.testing.assert_allclose(path.shares[:, k], each, rtol=1e-7, atol=1e-12)
        assert path.errors[k] == pytest.approx(sum(each), rel=1e-7, abs=1e-12)
    heavy = removal_path([readers[0], Reader(readers[1].weight, readers[1].gram, readers[1].blocks, unit=1e-6)])
    assert heavy.order[-1] in (0, 3), "blocks of the reader that counts stay longest"


def test_greedy_is_near_the_best_subset():
    x, weight = data_of(7, 9, rank=5), np.random.default_rng(7).normal(size=(4, 9))
    path = removal_path([Reader(weight, gram_of(x), np.arange(9))])
    best = min(best_error(weight, x, subset, 1e-2) for subset in itertools.combinations(range(9), 4))
    assert best <= path.errors[4] * (1 + 1e-9)
    assert path.errors[4] < 2.5 * best


def test_cells_lose_equally_many_in_turn_and_staying_blocks_stay():
    x, weight = data_of(0, 12), np.random.default_rng(0).normal(size=(3, 12))
    weight[:, :4] *= 1e-3  # one cell is worth far less
    cells = np.repeat(np.arange(3), 4)
    for together in (1, 3, 5):
        path = removal_path([Reader(weight, gram_of(x), np.arange(12))], cells=cells, staying=[5], together=together)
        assert len(path.order) == 9, "all cells can lose as many as the one that keeps a block"
        for start in range(0, 9, 3):
            assert sorted(cells[path.order[start : start + 3]]) == [0, 1, 2]
        assert 5 not in path.order


def test_many_steps_and_batches_keep_to_the_exact_error():
    x = data_of(1, 300, rows=900, rank=60)
    weight, blocks = np.random.default_rng(1).normal(size=(20, 300)), np.arange(300)
    one, many = (removal_path([Reader(weight, gram_of(x), blocks)], together=n) for n in (1, 8))
    for path in (one, many):
        for k in (10, 150, 290):
            assert path.errors[k] == pytest.approx(best_error(weight, x, path.order[:k], 1e-2), rel=1e-6)
        assert (np.diff(path.errors) > -1e-15).all()
    assert many.errors[150] < 1.1 * one.errors[150]


def test_float32_grams_of_low_rank_and_indefinite_by_rounding():
    x = data_of(4, 64, rows=20).astype(np.float32)
    weight = np.random.default_rng(4).normal(size=(8, 64)).astype(np.float32)
    gram = (x.T @ x / 20).astype(np.float32)
    path = removal_path([Reader(weight, gram, np.repeat(np.arange(16), 4))], damping=0.0)
    assert np.isfinite(path.errors).all()
    assert path.errors[4] < 1e-3, "20 rows fix no more than 20 columns"


def test_least_squares_without_damping_is_lstsq_and_with_much_keeps_the_weight():
    rng = np.random.default_rng(0)
    x, y = data_of(0, 7), rng.normal(size=(200, 3))
    x0, y0 = x - x.mean(0), y - y.mean(0)
    weight = rng.normal(size=(3, 7))
    gram, cross = x0.T @ x0 / 200, y0.T @ x0 / 200
    expected = np.linalg.lstsq(x0, y0, rcond=None)[0].T
    np.testing.assert_allclose(least_squares(weight, gram, cross, damping=1e-12), expected, atol=1e-8)
    np.testing.assert_allclose(least_squares(weight, gram, cross, damping=1e9), weight, atol=1e-6)
    ridge = 1e-2 * np.diagonal(gram).mean()
    tall, wide = np.vstack([x0, np.sqrt(200 * ridge) * np.eye(7)]), np.vstack([y0, np.sqrt(200 * ridge) * weight.T])
    expected = np.linalg.lstsq(tall, wide, rcond=None)[0].T
    np.testing.assert_allclose(least_squares(weight, gram, cross), expected, atol=1e-9)


def test_least_squares_from_the_same_inputs_is_the_update_of_obs():
    x, weight = data_of(9, 8), np.random.default_rng(9).normal(size=(3, 8))
    gram, kept = gram_of(x), np.arange(3, 8)
    removed = without(weight, gram, np.arange(3), damping=1e-10)
    cross = weight @ gram[:, kept]
    found = least_squares(weight[:, kept], gram[np.ix_(kept, kept)], cross, damping=1e-10)
    np.testing.assert_allclose(found, removed[:, kept], atol=1e-6)


def test_nothing_kept_and_nothing_removed():
    x, weight = data_of(0, 4), np.ones((2, 4))
    assert not without(weight, gram_of(x), np.arange(4)).any()
    np.testing.assert_array_equal(without(weight, gram_of(x), np.arange(0)), weight)
    path = removal_path([Reader(weight, gram_of(x), np.zeros(4, int))], until=0)
    assert path.order.tolist() == []
    assert path.errors.tolist() == [0.0]
    silent = removal_path([Reader(0 * weight, gram_of(x), np.arange(4))])
    assert silent.errors.tolist() == [0.0] * 5


@pytest.mark.parametrize(
    ("weight", "gram", "blocks", "message"),
    [
        (np.ones((2, 3)), np.eye(4), np.zeros(3, int), r"weight \[2, 3\], a gram \[4, 4\]"),
        (np.ones((2, 3)), np.eye(3), np.zeros(2, int), r"blocks \[2\] do not fit"),
        (np.full((2, 3), np.nan), np.eye(3), np.zeros(3, int), "NaN or infinity"),
        (np.ones((2, 3)), np.eye(3), np.full(3, -1), "has a block to remove"),
    ],
)
def test_refusals(weight, gram, blocks, message):
    with pytest.raises(ValueError, match=message):
        removal_path([Reader(weight, gram, blocks)])


def test_readers_are_not_written_to():
    x, weight, blocks = data_of(0, 6), np.ones((2, 6), np.float32), np.arange(6)
    gram = gram_of(x)
    before = gram.copy()
    removal_path([Reader(weight, gram, blocks)])
    np.testing.assert_array_equal(gram, before)
    np.testing.assert_array_equal(blocks, np.arange(6))
    assert (weight == 1).all()


def test_a_wide_layer_takes_seconds():
    x = data_of(0, 768, rows=1000, rank=200)
    weight = np.random.default_rng(0).normal(size=(192, 768))
    start = time.perf_counter()
    removal_path([Reader(weight, gram_of(x), np.arange(768))], until=384)
    assert time.perf_counter() - start < 20
