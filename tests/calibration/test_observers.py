"""Observers: what range they take, against brute force on the elements."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.calibration.clipping_search import least_squares, squared_errors
from irc.calibration.densities import Density
from irc.calibration.observers import (
    EntropyObserver,
    MeanObserver,
    MinMaxObserver,
    MseObserver,
    PercentileObserver,
    observer_for,
)
from irc.calibration.statistics import Distribution, Extremes, MinMax
from irc.runner.histogram import Counter


def distribution(array):
    array = np.asarray(array, np.float32).reshape(-1)
    largest = float(np.abs(array).max()) or 1.0
    exponent = 6 - int(np.floor(np.log2(largest)))
    counter = Counter(exponent)
    counter.add((array * np.float32(2.0**exponent)).astype(np.float16).view(np.uint16), exponent)
    return Distribution(MinMax(float(array.min()), float(array.max()), 1), counter.histogram())


def rounding_error(array, low, high, levels):
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (levels - 1)
    zero = round(-low / step)
    codes = np.clip(np.rint(array / step) + zero, 0, levels - 1)
    return float(np.sum((array - (codes - zero) * step) ** 2))


def normal(seed=0, n=200_000, outlier=None):
    array = np.random.default_rng(seed).standard_normal(n)
    if outlier is not None:
        array[7] = outlier
    return array


SHAPES = {
    "normal": normal(),
    "relu": np.maximum(normal(1), 0),
    "laplace": np.random.default_rng(2).laplace(size=200_000),
    "outlier": normal(3, outlier=60.0),
    "one-sided outlier": np.where(normal(4) > 4, 30.0, normal(4) * 0.1),
    "tiny": normal(5) * 1e-9,
    "negative": -np.abs(normal(6)),
    "uniform": np.random.default_rng(7).uniform(-1, 1, 200_000),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels, symmetric", [(256, False), (255, True)])
def test_mse_is_as_good_as_the_best_of_many_ranges(shape, levels, symmetric):
    array = SHAPES[shape]
    found = MseObserver(levels, symmetric).range((distribution(array),))
    low, high = (
        (found.low, found.high) if not symmetric else (-max(-found.low, found.high), max(-found.low, found.high))
    )
    mine = rounding_error(array, low, high, levels)
    low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    factors = np.linspace(0.02, 1, 99)
    best = min(rounding_error(array, low * f, high * f, levels) for f in factors)
    assert mine <= best * 1.01


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 1.0), st.sampled_from([16, 255, 256]))
def test_the_integrated_error_is_that_of_the_elements(seed, share, levels):
    array = normal(seed, 50_000)
    density = Density.of(distribution(array))
    low, high = float(array.min()) * share, float(array.max()) * share
    (found,) = squared_errors(density, np.array([low]), np.array([high]), levels)
    assert found == pytest.approx(rounding_error(array, low, high, levels), rel=0.03)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99, 100.0])
def test_percentile_leaves_out_the_largest_magnitudes(shape, percentile):
    array = SHAPES[shape]
    found = PercentileObserver(percentile).range((distribution(array),))
    wanted = float(np.quantile(np.abs(array), percentile / 100, method="inverted_cdf"))
    assert max(-found.low, found.high) == pytest.approx(wanted, rel=2e-3)
    if percentile == 100.0:
        assert (found.low, found.high) == (np.float32(array.min()), np.float32(array.max()))


def brute_divergence(array, levels, bins, count):
    """Migacz's search, element by element: KL of the first `count` bins against their merging into `levels`."""
    magnitudes = np.abs(array[np.abs(array) > np.abs(array).max() * 2.0**-14])
    masses, _ = np.histogram(magnitudes, bins=bins, range=(0, np.abs(array).max()))
    reference = masses[:count].astype(np.float64)
    reference[-1] += masses[count:].sum()
    spread = np.zeros(count)
    bounds = [i * count // levels for i in range(levels)] + [count]
    for left, right in itertools.pairwise(bounds):
        part = masses[left:right]
        if (part > 0).any():
            spread[left:right] = np.where(part > 0, part.sum() / (part > 0).sum(), 0)
    p, q = reference / reference.sum(), spread / spread.sum()
    q = np.maximum(q, np.where(p > 0, 1e-9, 0))
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


@pytest.mark.parametrize("shape", ["normal", "laplace", "outlier"])
def test_entropy_is_close_to_the_search_over_every_threshold(shape):
    array = SHAPES[shape]
    found = EntropyObserver(255).range((distribution(array),))
    largest = float(np.abs(array).max())
    chosen = round(max(-found.low, found.high) / largest * 2048)
    best = min(brute_divergence(array, 128, 2048, count) for count in range(128, 2049, 16))
    assert brute_divergence(array, 128, 2048, min(chosen, 2048)) <= best * 1.15 + 1e-4


@pytest.mark.parametrize(
    "observer", [EntropyObserver(), EntropyObserver(255), MseObserver(), MseObserver(255, True), PercentileObserver()]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_under_an_outlier_they_differ_from_min_max(observer, sign):
    array = normal(8, outlier=100.0 * sign)
    found = observer.range((distribution(array),))
    assert max(-found.low, found.high) < (90 if isinstance(observer, MseObserver) else 40)


def test_a_range_lies_within_the_extremes_and_covers_what_there_is():
    for shape, array in SHAPES.items():
        for observer in (EntropyObserver(), MseObserver(), PercentileObserver(), MseObserver(255, True)):
            found = observer.range((distribution(array),))
            assert array.min() - 1e-6 <= found.low <= found.high <= array.max() + 1e-6, (shape, observer)
            assert found.high > 0 or found.low < 0


@pytest.mark.parametrize("value", [0.0, 3.0, -2.5])
def test_a_constant_keeps_its_range(value):
    for observer in (EntropyObserver(), MseObserver(), PercentileObserver()):
        assert observer.range((distribution(np.full(100, value)),)) == MinMax(value, value, 1)


def test_nothing_seen():
    nothing = Distribution(MinMax(), Counter().histogram())
    for observer in (EntropyObserver(), MseObserver(), PercentileObserver()):
        assert observer.range((nothing,)).empty
    assert MinMaxObserver().range(Extremes.nothing()).empty and MeanObserver().range(Extremes.nothing()).empty


def test_mean_weighs_every_sample_the_same():
    parts = [Extremes.of(np.asarray(low), np.asarray(high)) for low, high in [(-1.0, 3.0), (-2.0, 4.0), (0.0, 11.0)]]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert MeanObserver().range(merged) == MinMax(-1.0, 6.0, 3)
    assert MinMaxObserver().range(merged) == MinMax(-2.0, 11.0, 3)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-1e6, 0, width=32), st.floats(0, 1e6, width=32)), min_size=1, max_size=40),
    st.randoms(),
)
def test_the_mean_does_not_depend_on_the_order(pairs, random):
    def merged(items):
        total = Extremes.nothing()
        for low, high in items:
            total = total.merge(Extremes.of(np.asarray(low, np.float64), np.asarray(high, np.float64)))
        return total.mean

    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert merged(pairs) == merged(shuffled)
    twice = merged(pairs * 2)
    assert (twice.low, twice.high) == (merged(pairs).low, merged(pairs).high)


def test_search_with_one_end_at_zero_stays_there():
    density = Density.of(distribution(SHAPES["relu"]))
    low, high = least_squares(density, density, 0.0, 5.0, levels=256, symmetric=False)
    assert low == 0.0 and 0 < high <= 5.0


@pytest.mark.parametrize("percentile", [50.0, 0.0, 100.5, -1.0])
def test_percentiles_that_are_none(percentile):
    with pytest.raises(ValueError, match="percentile is"):
        PercentileObserver(percentile)


def test_texts_name_what_the_range_depends_on():
    texts = [
        observer_for(c, percentile=99.9, levels=255, symmetric=True).text for c in ("mse", "entropy", "percentile")
    ]
    assert texts == ["mse{levels=255,symmetric=true}", "entropy{levels=255}", "percentile{percentile=99.9}"]
    assert observer_for("mean", percentile=99.9, levels=255, symmetric=True).text == "mean"
