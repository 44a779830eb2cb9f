"""The judge: is the candidate still the same model, as one number?

The relative loss of the candidate against the original, from the best evidence there is, in this order:

1. `metric`: the metric the user named, on labels or through a function of their own;
2. `labels`: labels in the data without a metric: accuracy for classes, R^2 or rank correlation for numbers;
3. `agreement`: for classifier-like outputs, the expected accuracy loss and, for language models, the expected
   cross-entropy increase (`irc.judge.agreement`);
4. `error`: the relative output error (`irc.judge.output_error`).

Outputs that the metric or the labels do not cover are judged by 3 and 4 in the case of labels, and not at all in the case of a
metric, which is taken at its word; of several outputs the worst decides. NaN or infinity where the original has none, and
a candidate that does not run, are a loss of 1 with the reason.

Labels decide once they could prove the budget (300 samples per half for 1 %). With fewer, a single flip is more than the
budget allows or hides: the accuracy is reported, and the expected accuracy loss decides, or what the labels
show to be lost with 95 % confidence, if that is more.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.errors import DataError, RunnerError, UsageError
from irc.judge.agreement import Agreement
from irc.judge.assessment import Assessment, Kind, Score, relative_loss
from irc.judge.budget import Budget
from irc.judge.class_probabilities import chunks, decisions, defined, entropies, log_probabilities
from irc.judge.classifier import ClassScores, class_scores, is_state, looks_like_classes
from irc.judge.halves import Half, split
from irc.judge.label_metrics import BUILT_IN, Accuracy, CrossEntropy, LabelMetric, label_rows, metric_for
from irc.judge.metric_function import MetricFunction, Outputs, Runnable, load_metric
from irc.judge.original_outputs import MEMORY_LIMIT, OriginalOutputs
from irc.judge.output_error import Disagreement, OutputError, RunningMean
from irc.judge.units import Array, is_float, non_finite, rows

if TYPE_CHECKING:
    from irc.calibration.data import DataSource, Sample

_USABLE = 0.1
"""Smallest R^2 or rank correlation of the original for which numeric labels are believed to belong to an output."""


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is measured: decided once, on the original alone."""

    kind: Kind
    readings: Mapping[str, ClassScores]
    metric: type[LabelMetric] | None = None
    output: str = ""
    notes: tuple[str, ...] = ()


class Judge:
    """Judges candidates against one original on one set of samples.

    Args:
        model: The original's graph, to tell what its outputs are.
        original: The original, opened; its outputs are computed once per sample.
        source: The samples, with or without labels.
        metric: "accuracy", "f1", "cross-entropy", "spearman", "FILE.py:FUNCTION", or a function `f(run) -> float`.
        label: Key of the labels in the data, if there are several.
        output: The output to judge; all of them by default.
        budget: What the labels must be able to prove in order to decide; at most 1 % relative loss by default.
        seed: Seed of the bootstrap.
        memory_limit: Bytes of the original's outputs kept between candidates.

    Raises:
        UsageError: If the metric or the output does not exist.
    """

    def __init__(
        self,
        model: ir.Model,
        original: Runnable,
        source: DataSource,
        *,
        metric: str | Callable[..., float] | None = None,
        label: str | None = None,
        output: str | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self._original, self._source, self._label, self._seed = original, source, label, seed
        self._budget = budget if budget is not None and budget.max_drop is not None else Budget()
        self._outputs = [value.name or "" for value in model.graph.outputs]
        self._chosen = output
        if output is not None and output not in self._outputs:
            close = difflib.get_close_matches(output, self._outputs, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(self._outputs)}"
            raise UsageError(f"the model has no output {output!r}; {advice}")
        values = {value.name or "": value for value in model.graph.outputs}
        readings = {name: class_scores(values[name]) for name in ([output] if output else self._outputs)}
        self._graph_readings = {name: reading for name, reading in readings.items() if reading is not None}
        # Caches for the next call are inner state: errors in them show in the scores that they lead to.
        self._judged = [n for n in readings if n == output or not (self._graph_readings and is_state(n))]
        self._function, self._metric = _resolve_metric(metric)
        self._reference = OriginalOutputs(original, limit=memory_limit)
        self._halves: tuple[frozenset[str], frozenset[str]] | None = None
        self._decided: _Plan | None = None
        self._means: dict[str, dict[str, RunningMean]] = {}
        self._function_reference: float | None = None

    # -- what is measured ---------------------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        """The evidence candidates are judged by."""
        return self._plan().kind

    def describe(self) -> str:
        """What is measured and on how many samples, in one line."""
        plan = self._plan()
        if self._function is not None:
            return f"the metric {self._function.name}"
        names = {
            "error": "relative output error",
            "agreement": "agreement with the original (expected accuracy loss)",
            "labels": f"{plan.metric.name if plan.metric else ''} against the labels",
            "metric": f"the metric {plan.metric.name if plan.metric else ''}",
        }
        choice, acceptance = self._split()
        samples = f"{len(choice)} samples to choose, {len(acceptance)} to accept"
        if choice == acceptance:
            samples = "1 sample, which both chooses and accepts"
        return f"{names[plan.kind]}; {samples}{'; generated samples' if self._synthetic else ''}"

    @property
    def _synthetic(self) -> bool:
        return bool(getattr(self._source, "synthetic", False))

    def _split(self) -> tuple[frozenset[str], frozenset[str]]:
        if self._halves is None:
            self._halves = split(sample.key for sample in self._source.samples())
            if not self._halves[0]:
                raise DataError(f"{self._source.name}: there are no samples to judge on")
        return self._halves

    def _plan(self) -> _Plan:
        if self._decided is None:
            self._decided = self._decide()
        return self._decided

    def _decide(self) -> _Plan:
        if self._function is not None:
            return _Plan("metric", {})
        readings = self._believed_readings()
        sample, outputs = next(self._sweep("choice"))
        key = self._label_key(sample)
        if self._metric is not None:
            if key is None:
                raise UsageError(
                    f"--metric {self._metric} needs labels; put an array that is not a model input into the data"
                )
            return self._named_plan(BUILT_IN[self._metric], sample.labels[key], outputs, readings)
        notes: tuple[str, ...] = ()
        if key is not None:
            found = self._labelled_plan(key, sample.labels[key], outputs, readings)
            if found is not None:
                return found
            shape = list(sample.labels[key].shape)
            if self._label is not None:
                raise DataError(f"label {key!r} {shape} fits no output; name a metric, or leave --label out")
            notes = (f"label {key!r} {shape} fits no output and is not used",)
        return _Plan("agreement" if readings else "error", readings, notes=notes)

    def _believed_readings(self) -> dict[str, ClassScores]:
        """The classifier-like outputs; bare logits only if the original's numbers look like a classifier's."""
        found = {name: reading for name, reading in self._graph_readings.items() if reading.confirmed}
        for name, reading in self._graph_readings.items():
            if reading.confirmed:
                continue
            entropy, count, seen, classes = 0.0, 0, set[int](), 2
            for sample, outputs in self._sweep("choice"):
                for row in rows(outputs[name], sample.feed):
                    matrix = decisions(row, reading)
                    classes = matrix.shape[1]
                    for part in chunks(matrix):
                        log_p = log_probabilities(matrix[part][defined(matrix[part])], reading)
                        entropy += float(entropies(log_p).sum())
                        count += len(log_p)
                        seen |= set(np.unique(log_p.argmax(axis=1)).tolist())
            if count and looks_like_classes(entropy / count, classes, len(seen), count):
                found[name] = reading
        return {name: found[name] for name in self._graph_readings if name in found}

    def _label_key(self, sample: Sample) -> str | None:
        if self._label is not None:
            if self._label not in sample.labels:
                found = ", ".join(sorted(sample.labels)) or "none"
                raise DataError(f"{self._source.name}: there is no label {self._label!r}; labels found: {found}")
            return self._label
        if len(sample.labels) > 1:
            if self._metric is None:
                raise DataError(
                    f"{self._source.name}: several labels ({', '.join(sorted(sample.labels))}); name one with --label"
                )
            raise UsageError(
                f"--metric {self._metric}: several labels ({', '.join(sorted(sample.labels))}); name one with --label"
            )
        return next(iter(sample.labels), None)

    def _named_plan(
        self, metric: type[LabelMetric], label: Array, outputs: Outputs, readings: Mapping[str, ClassScores]
    ) -> _Plan:
        """The plan for a built-in metric: the first output it can be computed on."""
        if metric not in (BUILT_IN["spearman"],):
            for name in self._judged:
                reading = readings.get(name) or self._graph_readings.get(name)
                reading = reading if reading is not None else _presumed_reading(outputs[name], label)
                if reading is not None and metric_for(label, outputs[name], reading) == [Accuracy]:
                    return _Plan("metric", {**readings, name: reading}, metric, name)
                if metric is not CrossEntropy and metric_for(label, outputs[name], None) == [Accuracy]:
                    return _Plan("metric", readings, metric, name)
            shapes = ", ".join(f"{name} {list(outputs[name].shape)}" for name in self._judged)
            raise DataError(
                f"--metric {metric.name}: labels of shape {list(label.shape)} and type {label.dtype} fit no output ({shapes})"
            )
        sizes = [n for n in self._judged if is_float(outputs[n])] or self._judged
        fitting = [n for n in sizes if metric in metric_for(label, outputs[n], None)]
        return _Plan("metric", readings, metric, (fitting or sizes)[0])

    def _labelled_plan(
        self, key: str, label: Array, outputs: Outputs, readings: Mapping[str, ClassScores]
    ) -> _Plan | None:
        """The plan for labels without a metric: the first output they belong to."""
        for name in sorted(self._judged, key=lambda n: n not in readings):
            for metric in metric_for(label, outputs[name], readings.get(name)):
                plan = _Plan("labels", readings, metric, name)
                if metric is Accuracy or self._original_score(plan, key) >= _USABLE:
                    return plan
        return None

    def _original_score(self, plan: _Plan, key: str) -> float:
        assert plan.metric is not None
        metric = plan.metric(plan.output, plan.readings.get(plan.output), seed=self._seed)
        for sample, outputs in self._sweep("choice"):
            mine = rows(outputs[plan.output], sample.feed)
            metric.add(_unit_key(sample, key), mine, mine, label_rows(sample.labels[key], sample.feed))
        scores = metric.scores()
        return scores[0].reference if scores else 0.0

    # -- samples ------------------------------------------------------------------------------------------------------

    def _sweep(self, half: Half) -> Iterator[tuple[Sample, Outputs]]:
        """Samples of a half with the original's outputs; equal samples (labels included) once."""
        choice, acceptance = self._split()
        wanted = {"choice": choice, "acceptance": acceptance, "all": choice | acceptance}.get(half)
        if wanted is None:
            raise UsageError(f"half is {half!r}; it must be choice, acceptance or all")
        seen: set[str] = set()
        keys: set[str] = set()
        for sample in self._source.samples():
            keys.add(sample.key)
            if sample.key in wanted and (key := _unit_key(sample, *sorted(sample.labels))) not in seen:
                seen.add(key)
                yield sample, self._reference(sample, self._judged)
        if keys != choice | acceptance:
            raise DataError(
                f"{self._source.name}: the samples differ from one sweep to the next; seed whatever is random in it"
            )

    def _mean(self, half: Half, plan: _Plan) -> dict[str, RunningMean]:
        """Means over a half of the outputs judged by their error."""
        if half not in self._means:
            means: dict[str, RunningMean] = {}
            if any(name not in plan.readings for name in self._judged):
                for sample, outputs in self._sweep(half):
                    for name in self._judged:
                        if name not in plan.readings and is_float(outputs[name]):
                            mean = means.setdefault(name, RunningMean())
                            for row in rows(outputs[name], sample.feed):
                                mean.add(row)
            self._means[half] = means
        return self._means[half]

    # -- judging ------------------------------------------------------------------------------------------------------

    def assess(self, candidate: Runnable, *, half: Half = "choice") -> Assessment:
        """Judges a candidate on one half of the samples, or on all.

        Args:
            candidate: The candidate, opened; the judge does not close it.
            half: "choice" for choosing among candidates, "acceptance" for the final word, "all" if nothing is chosen.

        Raises:
            DataError: If the labels do not fit the outputs, or the data changes between sweeps.
            MetricError: If the user's metric function fails.
            RunnerError: If the original does not run.
        """
        plan = self._plan()
        if self._function is not None:
            return self._by_function(self._function, candidate, half)
        metric = plan.metric(plan.output, plan.readings.get(plan.output), seed=self._seed) if plan.metric else None
        scorers = self._scorers(half, plan)
        for sample, outputs in self._sweep(half):
            try:
                results = candidate.run(sample.feed, self._judged)
            except RunnerError as error:
                return self._rejected(plan, half, f"the candidate does not run: {error}")
            key = _unit_key(sample, *([self._label_key(sample) or ""] if plan.metric else []))
            for name in self._judged:
                reason = _defect(name, results.get(name), outputs[name])
                if reason is not None:
                    return self._rejected(plan, half, reason)
                mine = rows(outputs[name], sample.feed)
                same = results[name].shape == outputs[name].shape
                theirs = rows(results[name], sample.feed) if same else None
                if name in scorers:
                    scorers[name].add(key, mine, theirs)
                if metric is not None and name == plan.output:
                    if theirs is None:
                        return self._rejected(plan, half, _shapes(name, results[name], outputs[name]))
                    label = sample.labels[self._label_key(sample) or ""]
                    metric.add(key, mine, theirs, label_rows(label, sample.feed))
        return self._conclude(plan, half, metric, {name: scorer.scores() for name, scorer in scorers.items()})

    def _scorers(self, half: Half, plan: _Plan) -> dict[str, Agreement | OutputError | Disagreement]:
        """One scorer per output that is not left to the metric alone."""
        if plan.kind == "metric":
            return {}
        scorers: dict[str, Agreement | OutputError | Disagreement] = {}
        means = self._mean(half, plan)
        for name in self._judged:
            if name in plan.readings:
                scorers[name] = Agreement(name, plan.readings[name])
            elif name == plan.output:
                continue
            elif name in means:
                scorers[name] = OutputError(name, means[name])
            else:
                scorers[name] = Disagreement(name)
        return scorers

    def _conclude(
        self, plan: _Plan, half: Half, metric: LabelMetric | None, found: dict[str, list[Score]]
    ) -> Assessment:
        notes = list(plan.notes)
        reported = metric.scores()[:1] if metric is not None else []
        if metric is not None and not reported:
            raise DataError(f"{self._source.name}: the {half} half has no labelled sample, or labels that never vary")
        deciding = [score for name, scores in found.items() if name != plan.output for score in scores]
        if reported:
            score = reported[0]
            alternative = found.get(plan.output, [])
            if (
                plan.kind == "labels"
                and alternative
                and not self._assessment(plan, half, score, score, ()).can_prove(self._budget)
            ):
                worst = max(alternative, key=lambda s: s.loss)
                certain = score.least if score.least is not None else 0.0
                decisive = worst if worst.loss >= certain else dataclasses.replace(score, loss=certain)
                deciding.append(decisive)
                notes.append(
                    f"{score.n} labels are too few to decide by {score.name}: decided by the loss of {worst.name}"
                    if decisive is worst
                    else f"{score.n} labels are few, but show a loss of at least {100 * certain:.1f} %"
                )
            else:
                deciding.append(score)
        if not deciding:
            raise DataError(f"{self._source.name}: the {half} half has no output to judge by: all are empty or NaN")
        worst = max(deciding, key=lambda score: score.loss)
        others = [s for s in (*reported, *(s for scores in found.values() for s in scores)) if s is not worst]
        return self._assessment(plan, half, reported[0] if reported else worst, worst, (worst, *others), tuple(notes))

    def _assessment(
        self,
        plan: _Plan,
        half: Half,
        reported: Score,
        deciding: Score,
        scores: tuple[Score, ...],
        notes: tuple[str, ...] = (),
    ) -> Assessment:
        return Assessment(
            kind=plan.kind,
            name=reported.name,
            reference=reported.reference,
            value=reported.value,
            criterion=deciding.name,
            loss=deciding.loss,
            bound=deciding.bound,
            n=deciding.n,
            trials=deciding.trials,
            half=half,
            synthetic=self._synthetic,
            base=deciding.reference,
            scores=scores,
            notes=notes,
        )

    def _rejected(self, plan: _Plan, half: Half, reason: str) -> Assessment:
        score = Score(plan.metric.name if plan.metric else plan.kind, plan.output, 1.0, 0.0, 1.0, 1.0, 0)
        return dataclasses.replace(self._assessment(plan, half, score, score, ()), rejected=reason)

    def _by_function(self, function: MetricFunction, candidate: Runnable, half: Half) -> Assessment:
        if self._function_reference is None:
            self._function_reference, _ = function(self._original, self._outputs)
            if not np.isfinite(self._function_reference):
                raise UsageError(
                    f"metric {function.name} is {self._function_reference} for the original; there is nothing to compare with"
                )
        plan = self._plan()
        reference = self._function_reference
        try:
            value, calls = function(candidate, self._outputs)
        except RunnerError as error:
            return self._rejected(plan, half, f"the candidate does not run: {error}")
        if not np.isfinite(value):
            return self._rejected(
                plan, half, f"metric {function.name} is {value} for the candidate, {reference:.4g} for the original"
            )
        loss = relative_loss(reference, value, higher_is_better=function.higher_is_better)
        score = Score(function.name, "", reference, value, loss, None, calls, None)
        return self._assessment(plan, half, score, score, (score,))


def _resolve_metric(metric: str | Callable[..., float] | None) -> tuple[MetricFunction | None, str | None]:
    """The metric function, or the name of a built-in metric."""
    if metric is None:
        return None, None
    if callable(metric):
        return MetricFunction(metric, getattr(metric, "__name__", type(metric).__name__)), None
    if metric in BUILT_IN:
        return None, metric
    if ":" in metric:
        return load_metric(metric), None
    close = difflib.get_close_matches(metric, BUILT_IN, n=1)
    advice = f"did you mean {close[0]!r}?" if close else f"it is one of {', '.join(BUILT_IN)} or FILE.py:FUNCTION"
    raise UsageError(f"--metric {metric!r} does not exist; {advice}")


def _presumed_reading(output: Array, label: Array) -> ClassScores | None:
    """How an output must be read for class labels to fit, where the graph does not tell."""
    if not is_float(output) or output.ndim == 0 or label.size == 0:
        return None
    if label.size == output.size and label.shape != output.shape or output.ndim == 1:
        return None
    for axis in (1 - output.ndim, -1) if output.ndim >= 4 else (-1,):
        classes = output.shape[axis]
        if classes >= 2 and (label.size * classes == output.size or label.shape == output.shape):
            values = np.asarray(output, np.float64)
            normal = bool((values >= 0).all() and np.allclose(values.sum(axis=axis), 1.0, atol=1e-3))
            return ClassScores(axis, "probabilities" if normal else "logits", confirmed=True)
    return None


def _unit_key(sample: Sample, *labels: str) -> str:
    """What tells samples apart: the feed's hash and the labels."""
    digest = hashlib.sha256()
    for name in labels:
        digest.update(np.ascontiguousarray(sample.labels[name]).tobytes())
    return f"{sample.key}:{digest.hexdigest()[:16]}"


def _defect(name: str, candidate: Any, reference: Array) -> str | None:
    """Why an output of a candidate is not fit to be compared, or None."""
    if candidate is None or not hasattr(candidate, "dtype"):
        return f"the candidate has no output {name!r}"
    if is_float(candidate) != is_float(reference):
        return f"output {name!r} is {candidate.dtype}; the original's is {reference.dtype}"
    count = non_finite(candidate, reference)
    if count:
        return f"output {name!r} has {count} NaN or infinite numbers where the original has none"
    return None


def _shapes(name: str, candidate: Array, reference: Array) -> str:
    return f"output {name!r} has shape {list(candidate.shape)}; the original's is {list(reference.shape)}"
