import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.judge.output_error import Disagreement, OutputError, RunningMean
from irc.judge.units import rows


def error_of(reference: list[np.ndarray], candidate: list[np.ndarray | None]) -> float:
    mean = RunningMean()
    for array in reference:
        mean.add(array)
    scorer = OutputError("y", mean)
    for i, (y, z) in enumerate(zip(reference, candidate, strict=True)):
        scorer.add(str(i), [y], None if z is None else [z])
    (score,) = scorer.scores()
    return score.loss


def test_error_is_one_minus_r_squared_about_the_mean_over_samples() -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(size=(40, 5)) * [1, 2, 3, 4, 5] + 100.0
    z = y + 0.1 * generator.normal(size=y.shape)
    expected = ((y - z) ** 2).sum() / (y.var(axis=0, ddof=1).sum() * 40)
    assert error_of(list(y), list(z)) == pytest.approx(expected)


def test_twenty_decibels_are_one_percent() -> None:
    generator = np.random.default_rng(0)
    y, noise = generator.normal(size=(2, 4000, 3))
    assert error_of(list(y), list(y + 0.1 * noise)) == pytest.approx(0.01, rel=0.05)


def test_predicting_the_mean_explains_nothing() -> None:
    y = np.random.default_rng(0).normal(size=(200, 3)) + 7
    assert error_of(list(y), [y.mean(axis=0)] * 200) == pytest.approx(1.0, rel=0.01)


@given(st.lists(st.integers(1, 6), min_size=2, max_size=8).filter(lambda t: len(set(t)) > 1), st.integers(0, 100))
def test_ragged_axes_are_averaged_and_order_does_not_matter(lengths: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    arrays = [generator.normal(size=(t, 3)) + 5 for t in lengths]
    means = []
    for order in (arrays, arrays[::-1]):
        mean = RunningMean()
        for array in order:
            mean.add(array)
        means.append(mean.deviation(np.zeros((2, 3))))
    assert means[0] == pytest.approx(means[1], rel=1e-9)
    stacked = np.concatenate(arrays)
    n = len(stacked)
    assert means[0] == pytest.approx(2 * (stacked.mean(axis=0) ** 2).sum() * n / (n - 1))


def test_arrays_of_different_rank_have_one_mean() -> None:
    mean = RunningMean()
    for array in (np.ones((2, 3)), np.full(4, 3.0), np.full((1, 2), 2.0)):
        mean.add(array)
    n, total = 12, 6 + 12 + 4
    assert mean.deviation(np.zeros(1)) == pytest.approx((total / n) ** 2 * n / (n - 1))


def test_one_sample_is_measured_about_its_own_mean() -> None:
    y = np.array([10.0, 12.0])
    assert error_of([y], [y + 0.1]) == pytest.approx(0.02 / 2.0)


def test_constant_outputs_are_measured_against_their_energy() -> None:
    y = np.array([[3.0, 4.0]])
    assert error_of([y, y], [y, y + np.array([0.0, 0.5])]) == pytest.approx(0.25 / 50)
    zero = np.zeros((1, 2))
    assert error_of([zero, zero], [zero, zero]) == 0.0
    assert error_of([zero, zero], [zero, zero + 1e-3]) == 1.0


def test_infinities_of_the_original_are_left_out() -> None:
    y = np.array([[1.0, -np.inf], [2.0, -np.inf], [4.0, 0.0]])
    assert error_of(list(y), list(np.where(np.isfinite(y), y, -1e4))) == 0.0


def test_another_shape_is_all_error() -> None:
    y = [np.array([1.0, 2.0]), np.array([3.0, 5.0])]
    assert error_of(y, [None, None]) == pytest.approx(1.0)


def test_integers_and_strings_count_what_differs() -> None:
    scorer = Disagreement("ids")
    scorer.add("a", [np.array([1, 2, 3, 4])], [np.array([1, 2, 3, 5])])
    scorer.add("b", [np.array(["x", "y"], dtype=object)], [np.array(["x", "y"], dtype=object)])
    scorer.add("c", [np.array([1, 2])], None)
    (score,) = scorer.scores()
    assert score.loss == pytest.approx(3 / 8)
    assert (score.n, score.trials) == (3, 8)


def test_vectors_of_strings_are_compared_element_by_element() -> None:
    scorer = Disagreement("label")
    feed = {"x": np.zeros((3, 2))}
    reference, candidate = (np.array(text.split(), dtype=object) for text in ("cat dog dog", "cat dog cow"))
    scorer.add("a", rows(reference, feed), rows(candidate, feed))
    (score,) = scorer.scores()
    assert (score.value, score.trials) == (pytest.approx(2 / 3), 3)


def test_of_generated_samples_the_error_is_relative_to_the_energy():
    """A random network answers noise with nearly one answer: its variance says nothing about int8."""
    generator = np.random.default_rng(0)
    scores = {}
    for synthetic in (False, True):
        mean = RunningMean()
        rows = [5.0 + 0.01 * generator.standard_normal((1, 8)).astype(np.float32) for _ in range(16)]
        for row in rows:
            mean.add(row)
        error = OutputError("y", mean, synthetic=synthetic)
        for i, row in enumerate(rows):
            error.add(str(i), [row], [row + 0.01 * generator.standard_normal((1, 8)).astype(np.float32)])
        (scores[synthetic],) = error.scores()
    assert scores[False].loss > 0.5 and scores[True].loss < 1e-4
    assert scores[True].name == "explained output energy"
