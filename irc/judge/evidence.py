"""What candidates are judged by: decided once, from the graph, the data and the original's own outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from irc.errors import DataError, UsageError
from irc.judge.assessment import Kind
from irc.judge.class_probabilities import chunks, decisions, defined, entropies, log_probabilities
from irc.judge.classifier import ClassScores, looks_like_classes
from irc.judge.half_samples import HalfSamples
from irc.judge.label_metrics import BUILT_IN, Accuracy, CrossEntropy, LabelMetric, Spearman, label_rows, metric_for
from irc.judge.metric_function import Outputs
from irc.judge.units import Array, is_float, rows

USABLE = 0.1
"""Smallest R^2 or rank correlation of the original for which numeric labels are believed to belong to an output."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is measured.

    Attributes:
        kind: The evidence.
        readings: Outputs read as class scores.
        embeddings: Outputs compared by their similarities.
        metric: Metric against labels, if any.
        output: The output the labels belong to.
        notes: What the user should know about the choice.
    """

    kind: Kind
    readings: Mapping[str, ClassScores] = dataclasses.field(default_factory=dict)
    embeddings: tuple[str, ...] = ()
    metric: type[LabelMetric] | None = None
    output: str = ""
    notes: tuple[str, ...] = ()

    def label_metric(self, seed: int) -> LabelMetric | None:
        """A fresh metric against labels, or None."""
        return self.metric(self.output, self.readings.get(self.output), seed=seed) if self.metric is not None else None


def find_evidence(
    samples: HalfSamples,
    graph_readings: Mapping[str, ClassScores],
    embeddings: tuple[str, ...],
    *,
    metric: str | None,
    explicit_label: bool,
) -> Evidence:
    """The best evidence there is, decided on the choice half.

    Args:
        samples: The samples.
        graph_readings: Outputs that the graph shows to be classifier-like.
        embeddings: Outputs that the graph shows to be embeddings.
        metric: A built-in metric the user named.
        explicit_label: Whether the user named the label, so that one which fits no output is an error.

    Raises:
        UsageError: If the metric needs labels and there are none.
        DataError: If labels fit no output.
    """
    readings = believed_readings(samples, graph_readings)
    _, sample, outputs = next(samples.sweep("choice"))
    key = samples.label_key(sample)
    if metric is not None:
        if key is None:
            raise UsageError(f"--metric {metric} needs labels; put an array that is not a model input into the data")
        return _named(BUILT_IN[metric], sample.labels[key], outputs, {**graph_readings, **readings})
    notes: tuple[str, ...] = ()
    if key is not None:
        found = _labelled(samples, key, sample.labels[key], outputs, readings)
        if found is not None:
            return dataclasses.replace(found, embeddings=embeddings)
        label = f"label {key!r} {sample.labels[key].dtype}{list(sample.labels[key].shape)} fits no output"
        if explicit_label:
            raise DataError(
                f"{samples.source.name}: {label} ({_shapes(outputs)}); name a --metric, or leave --label out"
            )
        notes = (f"{label} and is not used",)
    return Evidence("agreement" if readings or embeddings else "error", readings, embeddings, notes=notes)


def believed_readings(samples: HalfSamples, graph_readings: Mapping[str, ClassScores]) -> dict[str, ClassScores]:
    """The outputs read as class scores: bare logits only if the original's numbers look like a classifier's."""
    doubtful = {name: reading for name, reading in graph_readings.items() if not reading.confirmed}
    entropy, count, classes = (dict.fromkeys(doubtful, 0.0) for _ in range(3))
    seen: dict[str, set[int]] = {name: set() for name in doubtful}
    for _, sample, outputs in samples.sweep("choice") if doubtful else ():
        for name, reading in doubtful.items():
            for row in rows(outputs[name], sample.feed):
                matrix = decisions(row, reading)
                classes[name] = matrix.shape[1]
                for part in chunks(matrix):
                    log_p = log_probabilities(matrix[part][defined(matrix[part])], reading)
                    entropy[name] += float(entropies(log_p).sum())
                    count[name] += len(log_p)
                    seen[name] |= set(np.unique(log_p.argmax(axis=1)).tolist())
    believed = {
        name
        for name in doubtful
        if count[name]
        and looks_like_classes(entropy[name] / count[name], int(classes[name]), len(seen[name]), int(count[name]))
    }
    return {name: r for name, r in graph_readings.items() if r.confirmed or name in believed}


def _named(metric: type[LabelMetric], label: Array, outputs: Outputs, readings: Mapping[str, ClassScores]) -> Evidence:
    """The evidence of a built-in metric: the first output it can be computed on."""
    if metric is Spearman:
        sizes = [name for name in outputs if is_float(outputs[name])] or list(outputs)
        fitting = [name for name in sizes if Spearman in metric_for(label, outputs[name], None)]
        return Evidence("metric", readings, metric=metric, output=(fitting or sizes)[0])
    for name, output in outputs.items():
        reading = readings.get(name) or _presumed_reading(output, label)
        if reading is not None and metric_for(label, output, reading) == [Accuracy]:
            return Evidence("metric", {**readings, name: reading}, metric=metric, output=name)
        if metric is not CrossEntropy and metric_for(label, output, None) == [Accuracy]:
            return Evidence("metric", readings, metric=metric, output=name)
    raise DataError(
        f"--metric {metric.name}: labels {label.dtype}{list(label.shape)} fit no output ({_shapes(outputs)})"
    )


def _labelled(
    samples: HalfSamples, key: str, label: Array, outputs: Outputs, readings: Mapping[str, ClassScores]
) -> Evidence | None:
    """The evidence of labels without a metric: the first output they belong to, classifiers first."""
    for name in sorted(outputs, key=lambda name: name not in readings):
        for metric in metric_for(label, outputs[name], readings.get(name)):
            evidence = Evidence("labels", readings, metric=metric, output=name)
            if metric is Accuracy or _original_value(samples, evidence, key) >= USABLE:
                return evidence
    return None


def _original_value(samples: HalfSamples, evidence: Evidence, key: str) -> float:
    """The metric of the original itself, on the choice half."""
    metric = evidence.label_metric(0)
    assert metric is not None
    for unit, sample, outputs in samples.sweep("choice"):
        mine = rows(outputs[evidence.output], sample.feed)
        metric.add(unit, mine, mine, label_rows(sample.labels[key], sample.feed))
    scores = metric.scores()
    return scores[0].reference if scores else 0.0


def _presumed_reading(output: Array, label: Array) -> ClassScores | None:
    """How an output must be read for class labels to fit, where the graph does not tell."""
    if not is_float(output) or output.ndim < 2 or label.size == 0:
        return None
    for axis in (1 - output.ndim, -1) if output.ndim >= 4 else (-1,):
        classes = output.shape[axis]
        if classes >= 2 and (label.size * classes == output.size or label.shape == output.shape):
            values = np.asarray(output, np.float64)
            normal = bool((values >= 0).all() and np.allclose(values.sum(axis=axis), 1.0, atol=1e-3))
            return ClassScores(axis, "probabilities" if normal else "logits", confirmed=True)
    return None


def _shapes(outputs: Outputs) -> str:
    return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in outputs.items())
