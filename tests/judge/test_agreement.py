"""Expected accuracy loss and cross-entropy increase against the formulas written out."""

import numpy as np
import pytest
from judge_cases import softmax

from irc.judge.agreement import Agreement
from irc.judge.assessment import Score
from irc.judge.classifier import ClassScores


def scores(reading: ClassScores, reference: np.ndarray, candidate: np.ndarray | None) -> list[Score]:
    """Scores of a batch whose rows are units."""
    agreement = Agreement("y", reading)
    agreement.add("sample", list(reference), None if candidate is None else list(candidate))
    return agreement.scores()


LOGITS = ClassScores(-1, "logits", True)


def test_a_flip_costs_the_confidence_it_gives_up() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.9, 0.05, 0.05]]))
    candidate = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [5.0, 0.0, 0.0]])  # flips the first two to class 1
    (score,) = scores(LOGITS, logits, candidate)
    assert score.loss == pytest.approx((0.5 + 0.1) / (0.7 + 0.5 + 0.9))
    assert score.reference == pytest.approx(0.7)
    assert score.value == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert score.remarks == ("same top-1 on 33.33 %",)
    assert (score.n, score.trials) == (3, 3)


def test_a_flip_between_equal_classes_is_free_but_seen() -> None:
    (score,) = scores(LOGITS, np.array([[1.0, 1.0, 0.0]]), np.array([[0.9, 1.0, 0.0]]))
    assert score.loss == 0.0
    assert score.remarks == ("same top-1 on 0 %",)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log-probabilities"])
def test_all_kinds_of_scores_say_the_same(kind: str) -> None:
    generator = np.random.default_rng(0)
    p, q = softmax(generator.normal(size=(50, 6)) * 2), softmax(generator.normal(size=(50, 6)) * 2)
    shown = {"logits": lambda v: np.log(v) + 3, "probabilities": lambda v: v, "log-probabilities": np.log}[kind]
    (score,) = scores(ClassScores(-1, kind, True), shown(p), shown(q))  # type: ignore[arg-type]
    every, best = np.arange(50), p.argmax(1)
    assert score.loss == pytest.approx((p[every, best] - p[every, q.argmax(1)]).sum() / p[every, best].sum())


def test_sigmoid_is_two_classes() -> None:
    (score,) = scores(ClassScores(-1, "sigmoid", True), np.array([[0.9], [0.3]]), np.array([[0.4], [0.1]]))
    assert score.loss == pytest.approx((0.9 - 0.1) / (0.9 + 0.7))


def test_segmentation_decides_per_pixel_along_the_channels() -> None:
    generator = np.random.default_rng(0)
    y, z = generator.normal(size=(2, 1, 5, 3, 4))
    (score,) = scores(ClassScores(-3, "logits", True), y, z)
    p = softmax(np.moveaxis(y[0], 0, -1).reshape(-1, 5))
    chosen = np.moveaxis(z[0], 0, -1).reshape(-1, 5).argmax(1)
    assert score.trials == 12 and score.n == 1
    assert score.loss == pytest.approx(1 - p[np.arange(12), chosen].sum() / p.max(1).sum())


def test_language_models_are_judged_as_distributions_too() -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(size=(4, 7, 9))
    z = y + 0.1 * generator.normal(size=y.shape)
    accuracy, entropy = scores(ClassScores(-1, "logits", True, sequence=True), y, z)
    p, q = softmax(y), softmax(z)
    assert entropy.loss == pytest.approx((p * np.log(p / q)).sum() / -(p * np.log(p)).sum())
    assert entropy.value - entropy.reference == pytest.approx((p * np.log(p / q)).sum() / 28)
    assert accuracy.trials == 28 and accuracy.n == 4


def test_decisive_token_classifiers_are_not_judged_by_their_tiny_entropy() -> None:
    y = np.full((4, 7, 9), -10.0)
    y[..., 2] = 5.0
    found = scores(ClassScores(-1, "logits", True, sequence=True), y, y + np.linspace(0, 2, 9))
    assert [score.name for score in found] == ["expected accuracy"]
    assert found[0].loss == 0.0


def test_another_shape_loses_everything() -> None:
    (score,) = scores(LOGITS, np.eye(3), None)
    assert score.loss == 1.0


def test_masked_logits_and_undefined_rows() -> None:
    y = np.array([[1.0, -np.inf, 0.0], [np.nan, 0.0, 1.0]])
    (score,) = scores(LOGITS, y, np.array([[1.0, -np.inf, 2.0], [0.0, 0.0, 1.0]]))
    assert score.trials == 1
    p = softmax(np.array([1.0, 0.0]))
    assert score.loss == pytest.approx((p[0] - p[1]) / p[0])


def test_large_outputs_in_chunks_equal_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    y, z = generator.normal(size=(2, 1, 40, 9))
    reading = ClassScores(-1, "logits", True, sequence=True)
    whole = scores(reading, y, z)
    monkeypatch.setattr("irc.judge.class_probabilities._CHUNK", 30)
    for a, b in zip(whole, scores(reading, y, z), strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-12)
