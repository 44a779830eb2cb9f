"""Metrics against labels: accuracy, F1, cross-entropy, explained variance and rank correlation of both models.

Class labels are indices (one per decision), or one-hot with the shape of the scores; negative labels are left out (-100
by convention). Every metric takes one unit of the batch at a time and pairs the two models on it.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from irc.errors import DataError
from irc.judge.assessment import Score, relative_loss
from irc.judge.bounds import binomial_lower, bootstrap_bound, continuous_bound, counted_bound
from irc.judge.class_probabilities import chunks, decisions, log_probabilities
from irc.judge.classifier import ClassScores
from irc.judge.units import Array, Floats, UnitTable, as_float, batch_size, rows

Integers = npt.NDArray[np.int64]


def label_rows(label: Array, feed: Mapping[str, Array]) -> list[Array]:
    """A label array as one array per unit, padding removed like that of the outputs."""
    if batch_size(feed) == 1 and (label.ndim == 0 or label.shape[0] != 1):
        label = label[None]
    return rows(label, feed)


def class_indices(label: Array, count: int, classes: int) -> Integers:
    """Class indices [count] of one unit; -1 where a decision has no label.

    Raises:
        DataError: If the label has another size, is not an integer, or names a class that does not exist.
    """
    if label.size == count * classes and label.size != count:
        return np.asarray(label.reshape(count, classes).argmax(axis=1), np.int64)
    if label.size != count:
        raise DataError(f"labels of shape {list(label.shape)} do not fit {count} decisions among {classes} classes")
    flat = label.reshape(-1)
    if flat.dtype.kind not in "bui" and not (flat == np.floor(flat)).all():
        raise DataError(f"class labels must be integers; found {flat.dtype} with {flat[flat != np.floor(flat)][0]}")
    indices = flat.astype(np.int64)
    if count and indices.max() >= classes:
        raise DataError(f"label {indices.max()} does not exist: the output has classes 0 to {classes - 1}")
    return np.where(indices < 0, -1, indices)


def _paired(
    reference: Sequence[Array], candidate: Sequence[Array], labels: Sequence[Array]
) -> Iterator[tuple[Array, Array, Array]]:
    """Units of both models with their labels."""
    if len(labels) != len(reference):
        raise DataError(f"a sample has {len(labels)} rows of labels for {len(reference)} rows of the output")
    return zip(reference, candidate, labels, strict=True)


class LabelMetric(abc.ABC):
    """A metric summed up over units of both models.

    Args:
        output: Name of the output.
        reading: How to read it as class scores; None where it is not.
        seed: Seed of the bootstrap.
    """

    name: str
    higher_is_better = True

    def __init__(self, output: str, reading: ClassScores | None, *, seed: int = 0) -> None:
        self._output, self._reading, self._seed = output, reading, seed

    @abc.abstractmethod
    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array], labels: Sequence[Array]) -> None:
        """Adds one sample: its units of the original, the candidate and the labels."""

    @abc.abstractmethod
    def scores(self) -> list[Score]:
        """The metric of both models; empty without a labelled unit."""

    def _score(self, reference: float, value: float, bound: float, n: int, trials: int) -> Score:
        loss = relative_loss(reference, value, higher_is_better=self.higher_is_better)
        return Score(self.name, self._output, reference, value, loss, bound, n, trials)

    def _predictions(self, row: Array, label: Array) -> tuple[Integers, Integers]:
        """Predicted and labelled class of every labelled decision of a unit."""
        if self._reading is None:
            if row.size != label.size:
                raise DataError(f"labels of shape {list(label.shape)} do not fit outputs of shape {list(row.shape)}")
            return np.asarray(row.reshape(-1), np.int64), np.asarray(label.reshape(-1), np.int64)
        matrix = decisions(row, self._reading)
        wanted = class_indices(label, *matrix.shape)
        kept = wanted >= 0
        return matrix.argmax(axis=1)[kept], wanted[kept]


class Accuracy(LabelMetric):
    """Share of decisions equal to their label; bounded by the exact rate of decisions that got worse."""

    name = "accuracy"

    def __init__(self, output: str, reading: ClassScores | None, *, seed: int = 0) -> None:
        super().__init__(output, reading, seed=seed)
        self._table = UnitTable(5)

    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array], labels: Sequence[Array]) -> None:
        """Adds the hits of both models and the decisions on which they differ."""
        for row, (original, other, label) in enumerate(_paired(reference, candidate, labels)):
            mine, wanted = self._predictions(original, label)
            theirs, _ = self._predictions(other, label)
            right, still = mine == wanted, theirs == wanted
            counts = (len(wanted), right.sum(), still.sum(), (right & ~still).sum(), (~right & still).sum())
            self._table.set(key, row, *map(float, counts))

    def scores(self) -> list[Score]:
        """The accuracy of both models."""
        count, right, still, worse, better = self._table.columns()
        trials = int(count.sum())
        if trials == 0:
            return []
        scale = right if right.sum() > 0 else count
        worth, lost, gained = int(scale.sum()), int(worse.sum()), int(better.sum())
        bound = counted_bound(right - still, scale, losses=lost, gains=gained, harm=float(lost), trials=worth)
        least = binomial_lower(lost, worth) - gained / worth
        score = self._score(
            float(right.sum()) / trials, float(still.sum()) / trials, bound, int((count > 0).sum()), worth
        )
        remark = f"{lost} decisions lost, {gained} won"
        return [dataclasses.replace(score, least=least, remarks=(remark,))]


class F1(LabelMetric):
    """F1 of class 1 where there are two classes, else the mean F1 of the classes that occur in the labels."""

    name = "F1"

    def __init__(self, output: str, reading: ClassScores | None, *, seed: int = 0) -> None:
        super().__init__(output, reading, seed=seed)
        self._units: dict[tuple[str, int], tuple[Integers, Integers, Integers]] = {}
        self._classes = 0

    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array], labels: Sequence[Array]) -> None:
        """Keeps the predicted and labelled classes."""
        for row, (original, other, label) in enumerate(_paired(reference, candidate, labels)):
            mine, wanted = self._predictions(original, label)
            self._units[key, row] = (wanted, mine, self._predictions(other, label)[0])
            if self._reading is not None:
                self._classes = max(self._classes, decisions(original, self._reading).shape[1])

    def scores(self) -> list[Score]:
        """The F1 of both models."""
        units = [self._units[key] for key in sorted(self._units)]
        columns = [np.concatenate(column) for column in zip(*units, strict=True)] if units else []
        if not columns or not len(columns[0]):
            return []
        wanted, mine, theirs = columns
        unit = np.repeat(np.arange(len(units)), [len(u[0]) for u in units])
        classes = max(self._classes, int(max(column.max() for column in columns)) + 1)

        def f1(predicted: Integers, draw: Integers) -> float:
            weight = draw[unit].astype(np.float64)
            hits = np.bincount(wanted, weight * (wanted == predicted), classes)
            occurring = np.bincount(wanted, weight, classes)
            total = occurring + np.bincount(predicted, weight, classes)
            each = 2 * hits / np.where(total > 0, total, 1.0)
            if classes <= 2:
                return float(each[-1]) if classes == 2 else 0.0
            return float(each[occurring > 0].mean())

        def loss(draw: Integers) -> float:
            return relative_loss(f1(mine, draw), f1(theirs, draw))

        once = np.ones(len(units), np.int64)
        bound = bootstrap_bound(loss, len(units), seed=self._seed)
        return [self._score(f1(mine, once), f1(theirs, once), bound, len(units), len(wanted))]


class CrossEntropy(LabelMetric):
    """Mean -log p(label), in nats per decision; lower is better."""

    name = "cross-entropy"
    higher_is_better = False

    def __init__(self, output: str, reading: ClassScores | None, *, seed: int = 0) -> None:
        super().__init__(output, reading, seed=seed)
        self._table = UnitTable(3)

    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array], labels: Sequence[Array]) -> None:
        """Adds the cross-entropies of one sample."""
        for row, (original, other, label) in enumerate(_paired(reference, candidate, labels)):
            count, mine = self._entropy(original, label)
            self._table.set(key, row, count, mine, self._entropy(other, label)[1])

    def _entropy(self, row: Array, label: Array) -> tuple[int, float]:
        assert self._reading is not None
        matrix = decisions(row, self._reading)
        wanted = class_indices(label, *matrix.shape)
        total = 0.0
        for part in chunks(matrix):
            index = wanted[part]
            log_p = log_probabilities(matrix[part], self._reading)
            total -= float(log_p[np.arange(len(index)), index][index >= 0].sum())
        return int((wanted >= 0).sum()), total

    def scores(self) -> list[Score]:
        """The cross-entropy of both models."""
        count, mine, theirs = self._table.columns()
        trials = float(count.sum())
        if trials == 0:
            return []
        bound = continuous_bound(theirs - mine, mine if mine.sum() > 0 else count)
        return [self._score(float(mine.sum()) / trials, float(theirs.sum()) / trials, bound, len(count), 0)]


class ExplainedVariance(LabelMetric):
    """R^2 against numeric labels of the output's own size: 1 - sum (y - label)^2 / sum (label - mean label)^2."""

    name = "R^2"

    def __init__(self, output: str, reading: ClassScores | None, *, seed: int = 0) -> None:
        super().__init__(output, reading, seed=seed)
        self._table = UnitTable(5)

    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array], labels: Sequence[Array]) -> None:
        """Adds the squared errors of one sample."""
        for row, (original, other, label) in enumerate(_paired(reference, candidate, labels)):
            if original.size != label.size:
                raise DataError(
                    f"labels of shape {list(label.shape)} do not fit outputs of shape {list(original.shape)}"
                )
            wanted = as_float(label).reshape(-1)
            errors = (((as_float(y).reshape(-1) - wanted) ** 2).sum() for y in (original, other))
            self._table.set(key, row, wanted.size, wanted.sum(), (wanted**2).sum(), *errors)

    def scores(self) -> list[Score]:
        """The R^2 of both models."""
        size, total, squares, mine, theirs = self._table.columns()
        if not len(size):
            return []
        mean = total.sum() / size.sum()
        variance = squares - 2 * mean * total + size * mean**2
        explained = variance - mine
        everything = float(variance.sum())
        if everything <= 0.0:
            return []
        bound = continuous_bound(theirs - mine, explained if explained.sum() > 0 else variance)
        return [
            self._score(1 - float(mine.sum()) / everything, 1 - float(theirs.sum()) / everything, bound, len(size), 0)
        ]


class Spearman(LabelMetric):
    """Rank correlation with numeric labels of one number per sample.

    The number is the output itself, or, for an embedding, the cosine of the two rows of a sample that is a pair (a feed
    of batch size 2 with one label).
    """

    name = "Spearman correlation"

    def __init__(self, output: str, reading: ClassScores | None, *, seed: int = 0) -> None:
        super().__init__(output, reading, seed=seed)
        self._table = UnitTable(3)

    def add(self, key: str, reference: Sequence[Array], candidate: Sequence[Array], labels: Sequence[Array]) -> None:
        """Adds the scores of one sample."""
        wanted = np.concatenate([as_float(label).reshape(-1) for label in labels])
        mine, theirs = (self._numbers(outputs, len(wanted)) for outputs in (reference, candidate))
        for row, values in enumerate(zip(wanted, mine, theirs, strict=True)):
            self._table.set(key, row, *values)

    def _numbers(self, outputs: Sequence[Array], count: int) -> Floats:
        vectors = [as_float(row).reshape(-1) for row in outputs]
        if self._reading is not None and all(len(vector) == 2 for vector in vectors):
            vectors = [vector[1:] - vector[:1] for vector in vectors]
        if len(vectors) == 2 and count == 1:
            norms = float(np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1]))
            return np.array([float(vectors[0] @ vectors[1]) / norms if norms else 0.0])
        flat = np.concatenate(vectors)
        if len(flat) != count:
            raise DataError(
                f"spearman needs one number per label; {len(outputs)} x {vectors[0].size} numbers have {count} label(s)"
            )
        return flat

    def scores(self) -> list[Score]:
        """The rank correlation of both models."""
        wanted, mine, theirs = self._table.columns()
        if len(wanted) < 2:
            return []

        def loss(draw: Integers) -> float:
            drawn = np.repeat(np.arange(len(draw)), draw)
            return relative_loss(
                rank_correlation(mine[drawn], wanted[drawn]), rank_correlation(theirs[drawn], wanted[drawn])
            )

        bound = bootstrap_bound(loss, len(wanted), seed=self._seed)
        return [
            self._score(
                rank_correlation(mine, wanted), rank_correlation(theirs, wanted), bound, len(wanted), len(wanted)
            )
        ]


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where one of the two is constant."""
    a, b = (ranks - ranks.mean() for ranks in (_ranks(first), _ranks(second)))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else 0.0


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts).astype(np.float64)
    return np.asarray((last - (counts - 1) / 2)[inverse])


BUILT_IN: dict[str, type[LabelMetric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "cross-entropy": CrossEntropy,
    "spearman": Spearman,
}
"""The spellings of `--metric`."""


def metric_for(label: Array, output: Any, reading: ClassScores | None) -> list[type[LabelMetric]]:
    """The metrics that labels without `--metric` speak for on an output, the first choice first.

    Integer labels with one class per decision mean accuracy; numbers of the output's own size mean R^2, then rank
    correlation.

    Args:
        label: The label of one sample.
        output: The output for that sample.
        reading: How the output is read as class scores, or None.
    """
    if reading is not None:
        positions = output.size // (1 if reading.scores == "sigmoid" else output.shape[reading.axis])
        whole = label.dtype.kind in "bui" or bool((label == np.floor(label)).all())
        if whole and (label.size == positions or label.shape == output.shape):
            return [Accuracy]
        return []
    if output.dtype.kind in "bui":
        return [Accuracy] if label.dtype.kind in "bui" and label.size == output.size else []
    if label.dtype.kind not in "buif":
        return []
    if label.size == output.size:
        return [ExplainedVariance, Spearman] if label.size == output.shape[0] else [ExplainedVariance]
    if label.size == 1 and output.ndim == 2 and output.shape[0] == 2:
        return [Spearman]
    return []
