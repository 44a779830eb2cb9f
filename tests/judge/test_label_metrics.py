import numpy as np
import pytest
from judge_cases import softmax

from irc.errors import DataError
from irc.judge.assessment import Score
from irc.judge.bounds import binomial_upper
from irc.judge.classifier import ClassScores
from irc.judge.label_metrics import (
    F1,
    Accuracy,
    CrossEntropy,
    ExplainedVariance,
    LabelMetric,
    Spearman,
    class_indices,
    label_rows,
    metric_for,
    rank_correlation,
)

LOGITS = ClassScores(-1, "logits", True)


def score_of(
    metric: type[LabelMetric], y: np.ndarray, z: np.ndarray, labels: np.ndarray, reading: ClassScores | None = LOGITS
) -> Score:
    found = metric("y", reading)
    for i in range(len(y)):
        found.add(f"{i:04}", [y[i]], [z[i]], [np.asarray(labels[i])])
    (score,) = found.scores()
    return score


def one_hot(classes: list[int], count: int = 3) -> np.ndarray:
    return np.eye(count)[classes]


def test_accuracy_counts_hits_and_bounds_the_lost_decisions() -> None:
    labels = np.array([0, 1, 2, 0, 1])
    score = score_of(Accuracy, one_hot([0, 1, 2, 0, 0]), one_hot([0, 1, 1, 0, 1]), labels)
    assert (score.reference, score.value, score.loss) == (0.8, 0.8, 0.0)
    assert score.remarks == ("1 decisions lost, 1 won",)
    assert (score.n, score.trials) == (5, 4)  # only decisions that were right can be lost


def test_accuracy_without_a_flip_leaves_three_in_n() -> None:
    labels = np.zeros(300, int)
    y = one_hot([0] * 300)
    score = score_of(Accuracy, y, y, labels)
    assert score.loss == 0.0 and score.bound == pytest.approx(binomial_upper(0, 300))
    assert score.least == 0.0


def test_a_clear_loss_is_certain() -> None:
    score = score_of(Accuracy, one_hot([0] * 50), one_hot([1] * 25 + [0] * 25), np.zeros(50, int))
    assert score.loss == 0.5 and 0.3 < score.least < 0.5  # type: ignore[operator]


def test_negative_labels_are_left_out_and_one_hot_labels_read() -> None:
    y = one_hot([0, 1, 2])
    assert score_of(Accuracy, y, y, np.array([0, -100, 1])).reference == 0.5
    assert score_of(Accuracy, y, y, one_hot([0, 1, 1])).reference == pytest.approx(2 / 3)


def test_integer_outputs_are_compared_with_integer_labels() -> None:
    y = np.array([[1, 2], [3, 4]])
    assert score_of(Accuracy, y, y + np.array([[0, 0], [0, 1]]), y, reading=None).value == 0.75


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.array([0, 3]), "label 3 does not exist: the output has classes 0 to 2"),
        (np.array([0, 1, 2]), r"labels of shape \[3\] do not fit 2 decisions among 3 classes"),
        (np.array([0.5, 1.0]), "class labels must be integers; found float64 with 0.5"),
    ],
)
def test_labels_that_fit_no_class_are_refused(label: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        class_indices(label, 2, 3)


def test_binary_f1_is_that_of_class_one() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0])
    score = score_of(F1, one_hot([1, 1, 0, 0, 0, 1], 2), one_hot([1, 0, 0, 0, 0, 0], 2), labels)
    assert score.reference == pytest.approx(2 * 2 / (3 + 3))
    assert score.value == pytest.approx(2 * 1 / (3 + 1))


def test_f1_of_more_classes_is_their_mean_even_if_only_two_occur() -> None:
    labels = np.array([0, 0, 1])
    score = score_of(F1, one_hot([0, 1, 1]), one_hot([0, 0, 1]), labels)
    assert score.reference == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert score.value == 1.0 and score.loss == pytest.approx(-0.5)
    assert score.bound >= score.loss  # type: ignore[operator]


def test_cross_entropy_is_lower_is_better() -> None:
    generator = np.random.default_rng(0)
    y, labels = generator.normal(size=(30, 4)), generator.integers(0, 4, 30)
    z = y + generator.normal(size=y.shape)
    mine, theirs = (-np.log(softmax(v)[np.arange(30), labels]).mean() for v in (y, z))
    score = score_of(CrossEntropy, y, z, labels)
    assert (score.reference, score.value) == pytest.approx((mine, theirs))
    assert score.loss == pytest.approx((theirs - mine) / mine)
    assert score.bound > score.loss  # type: ignore[operator]


def test_explained_variance_pairs_the_errors() -> None:
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(50, 2))
    y = labels + 0.3 * generator.normal(size=(50, 2))
    z = y + 0.1
    score = score_of(ExplainedVariance, y, z, labels, reading=None)
    total = ((labels - labels.mean()) ** 2).sum()
    assert score.reference == pytest.approx(1 - ((y - labels) ** 2).sum() / total)
    assert score.value == pytest.approx(1 - ((z - labels) ** 2).sum() / total)
    assert score.bound > score.loss  # type: ignore[operator]


def test_rank_correlation_with_ties() -> None:
    # By hand: ranks 1, 2.5, 2.5, 4 and 1.5, 1.5, 3, 4.
    assert rank_correlation(np.array([1.0, 5, 5, 9]), np.array([2.0, 2, 7, 8])) == pytest.approx(3.75 / 4.5)
    assert rank_correlation(np.arange(9.0), np.exp(np.arange(9.0))) == pytest.approx(1.0)
    assert rank_correlation(np.ones(3), np.arange(3.0)) == 0.0


def test_spearman_of_embeddings_is_that_of_the_cosine_of_pairs() -> None:
    generator = np.random.default_rng(0)
    pairs = generator.normal(size=(40, 2, 8))
    cosine = np.array([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
    metric = Spearman("y", None)
    for i, pair in enumerate(pairs):
        metric.add(f"{i:04}", list(pair), list(-pair * [[1], [-1]]), [np.array([cosine[i] ** 3])])
    (score,) = metric.scores()
    assert score.reference == pytest.approx(1.0) and score.value == pytest.approx(-1.0)
    assert score.loss == pytest.approx(2.0)


def test_spearman_needs_one_number_per_label() -> None:
    with pytest.raises(DataError, match="one number per label; 1 x 3 numbers have 1 label"):
        score_of(Spearman, np.ones((2, 3)), np.ones((2, 3)), np.ones(2), reading=None)


def test_rows_of_labels_must_match_rows_of_the_output() -> None:
    with pytest.raises(DataError, match="2 rows of labels for 1 rows of the output"):
        Accuracy("y", LOGITS).add("k", [np.eye(3)], [np.eye(3)], [np.array(0), np.array(1)])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_label_of_one_sample_in_any_shape(shape: tuple[int, ...]) -> None:
    (row,) = label_rows(np.full(shape, 2), {"x": np.zeros((1, 3))})
    assert row.size == 1


def test_token_labels_with_and_without_the_batch_axis_lose_their_padding() -> None:
    feed = {"ids": np.zeros((1, 4), np.int64), "attention_mask": np.array([[1, 1, 1, 0]])}
    for label in (np.arange(4), np.arange(4)[None]):
        (row,) = label_rows(label, feed)
        assert row.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("label", "output", "reading", "expected"),
    [
        (np.array([3]), np.zeros((1, 10), np.float32), LOGITS, [Accuracy]),
        (np.array([3.0]), np.zeros((1, 10), np.float32), LOGITS, [Accuracy]),
        (np.array([0.3]), np.zeros((1, 10), np.float32), LOGITS, []),
        (np.zeros((1, 8, 8), int), np.zeros((1, 5, 8, 8), np.float32), ClassScores(-3, "logits", False), [Accuracy]),
        (np.array([0.3]), np.zeros((1, 1), np.float32), None, [ExplainedVariance, Spearman]),
        (np.zeros((1, 4)), np.zeros((1, 4), np.float32), None, [ExplainedVariance]),
        (np.array([0.3]), np.zeros((2, 384), np.float32), None, [Spearman]),
        (np.array([3]), np.zeros((1,), np.int64), None, [Accuracy]),
        (np.array([3, 4, 5]), np.zeros((1, 10), np.float32), LOGITS, []),
        (np.array(["a"]), np.zeros((1, 1), np.float32), None, []),
    ],
)
def test_labels_without_a_metric_choose_one(
    label: np.ndarray, output: np.ndarray, reading: ClassScores | None, expected: list[type[LabelMetric]]
) -> None:
    assert metric_for(label, output, reading) == expected
