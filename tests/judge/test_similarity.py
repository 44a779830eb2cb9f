import numpy as np
import pytest

from irc.judge.assessment import Score
from irc.judge.similarity import Similarity


def score_of(reference: np.ndarray, candidate: np.ndarray) -> Score:
    scorer = Similarity("e")
    for i, (y, z) in enumerate(zip(reference, candidate, strict=True)):
        scorer.add(f"{i:04}", [y], [z])
    (score,) = scorer.scores()
    return score


def unit(array: np.ndarray) -> np.ndarray:
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def test_is_the_attenuation_by_the_mean_squared_error_of_similarities() -> None:
    generator = np.random.default_rng(0)
    y = unit(generator.normal(size=(30, 16)))
    z = unit(y + 0.1 * generator.normal(size=y.shape))
    i, j = np.triu_indices(30, 1)
    s, t = (y @ y.T)[i, j], (z @ z.T)[i, j]
    expected = 1 - 1 / np.sqrt(1 + ((s - t) ** 2).mean() / ((1 - s.mean()) ** 2 / 12))
    assert score_of(y, z).loss == pytest.approx(expected)


def test_predicts_the_loss_of_rank_correlation_with_related_pairs() -> None:
    """Pairs of graded similarity, a noisy human score, and a noisy candidate: the loss is what the formula says."""
    from irc.judge.label_metrics import rank_correlation

    generator = np.random.default_rng(0)
    first, other = unit(generator.normal(size=(2, 4000, 128)))
    wanted = generator.uniform(0, 1, size=(4000, 1))
    second = unit(wanted * first + np.sqrt(1 - wanted**2) * other)
    noisy = [unit(v + 0.03 * generator.normal(size=v.shape)) for v in (first, second)]
    human = wanted[:, 0] + 0.15 * generator.normal(size=4000)
    before, after = ((a * b).sum(axis=1) for a, b in ((first, second), noisy))
    lost = 1 - rank_correlation(after, human) / rank_correlation(before, human)
    predicted = score_of(first[:300], noisy[0][:300]).loss
    assert 0.5 * lost < predicted < 3 * lost


def test_scale_and_bound() -> None:
    y = np.random.default_rng(0).normal(size=(40, 16))
    same = score_of(y, y)
    assert same.loss == 0.0 and 0.0 < same.bound < 1e-5  # type: ignore[operator]
    assert score_of(y, 1.05 * y).loss > 0.0  # lengths count: they are compared with the original's
    worse = score_of(y, y + 0.2 * np.random.default_rng(1).normal(size=y.shape))
    assert worse.bound > worse.loss > 0.0  # type: ignore[operator]


def test_tokens_of_one_sample_are_one_unit() -> None:
    y = np.random.default_rng(0).normal(size=(10, 20, 16))
    assert score_of(y, y).n == 10


def test_few_samples_fall_back_on_the_relative_error() -> None:
    y = np.eye(2, 8)
    score = score_of(y, 0.9 * y)
    assert score.loss == pytest.approx(0.01) and score.bound == 1.0


def test_another_shape_loses_everything() -> None:
    scorer = Similarity("e")
    for i, y in enumerate(unit(np.random.default_rng(0).normal(size=(20, 16)))):
        scorer.add(str(i), [y], None)
    (score,) = scorer.scores()
    assert score.loss > 0.1
