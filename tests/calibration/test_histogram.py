"""Histograms on the float's bits: nothing depends on order, grouping or scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.runner.histogram import BINS_PER_OCTAVE, LARGEST_HALF, Counter, Histogram, edges, magnitudes


def taken(array, exponent=0):
    counter = Counter(exponent)
    with np.errstate(over="ignore"):
        codes = (np.asarray(array, np.float32) * np.float32(2.0**exponent)).astype(np.float16)
    counter.add(codes.view(np.uint16), exponent)
    return counter.histogram()


def same(a, b):
    a, b = a.settled(), b.settled()
    for left, right in ((a.positive, b.positive), (a.negative, b.negative)):
        assert left.counts.size == right.counts.size
        assert not left.counts.size or (left.first == right.first and np.array_equal(left.counts, right.counts))
    assert (a.small, a.not_a_number) == (b.small, b.not_a_number)


NUMBERS = st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=60)


@settings(max_examples=150)
@given(NUMBERS, NUMBERS)
def test_merging_is_commutative_and_equals_counting_together(a, b):
    together = taken(a + b)
    same(taken(a).merge(taken(b)), together)
    same(taken(b).merge(taken(a)), together)
    assert together.total == len(a) + len(b)


@settings(max_examples=150)
@given(NUMBERS, st.integers(-20, 20))
def test_the_scale_does_not_show(numbers, exponent):
    largest = max(abs(x) for x in numbers)
    if not 1 <= largest * 2.0**exponent <= LARGEST_HALF or not 1 <= largest <= LARGEST_HALF:
        return
    same(taken(numbers, exponent), taken(numbers))


@settings(max_examples=100)
@given(st.lists(st.floats(2**-10, 60000, width=32), min_size=1, max_size=30))
def test_every_number_is_in_the_bin_it_is_rounded_to(numbers):
    found = taken(numbers).positive
    centres = np.repeat(magnitudes(found.first + np.arange(len(found.counts))), found.counts)
    np.testing.assert_allclose(np.sort(numbers), centres, rtol=0.5 / BINS_PER_OCTAVE)
    borders = edges(found.first, len(found.counts))
    assert np.all(np.diff(borders) > 0)
    assert borders[0] <= min(numbers) <= borders[1] and borders[-2] <= max(numbers) <= borders[-1]


def test_what_is_far_below_the_largest_counts_as_zero():
    found = taken([0.0, 1e-6, -1e-6, 100.0, 1.0]).settled()
    assert found.small == 3 and found.total == 5


def test_not_a_number_is_counted_apart():
    found = taken([1.0, np.nan, -np.nan, 2.0])
    assert found.not_a_number == 2 and found.total == 2


@pytest.mark.parametrize("sizes", [[10], [1 << 17, 5], [3] * 50000, [(1 << 18) + 7]])
def test_blocks_and_waiting_codes_lose_nothing(sizes):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n).astype(np.float16) for n in sizes]
    counter = Counter()
    for array in arrays:
        counter.add(array.view(np.uint16), 0)
    found = counter.histogram()
    assert found.total == sum(sizes)
    same(found, taken(np.concatenate(arrays)))


def test_memory_grows_with_the_octaves_and_not_with_the_samples():
    rng = np.random.default_rng(0)
    few, many = Counter(), Counter()
    array = np.clip(rng.standard_normal(200_000), -3, 3).astype(np.float16).view(np.uint16)
    few.add(array, 0)
    for _ in range(20):
        many.add(array, 0)
    assert many.histogram().nbytes == few.histogram().nbytes < 600_000


def test_of_nothing():
    assert Histogram().empty and Histogram().settled().empty and Histogram().ends() == (np.inf, -np.inf)
    assert not Histogram(small=1).empty and Histogram(small=1).ends() == (0.0, 0.0)
