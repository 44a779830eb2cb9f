"""The judge: is the candidate still the same model, as one number?

The relative loss of the candidate against the original, from the best evidence there is, in this order:

1. `metric`: the metric the user named, on labels or through a function of their own;
2. `labels`: labels in the data without a metric: accuracy for classes, R^2 or rank correlation for numbers;
3. `agreement`: for classifier-like outputs, the expected accuracy loss and, for language models, the expected
   cross-entropy increase (`irc.judge.agreement`); for embeddings, the similarities of samples (`irc.judge.similarity`);
4. `error`: the relative output error (`irc.judge.output_error`).

A metric is taken at its word: nothing else decides. With labels, the outputs they do not cover are judged by 3 and 4.
Of several outputs the worst decides. NaN or infinity where the original has none, and a candidate that does not run,
are a loss of 1 with the reason.

Labels decide once they could prove the budget (about 300 samples per half for 1 %). With fewer, a single flip is more
than the budget or hides in it: the accuracy is reported, but the expected accuracy loss decides, or what the labels
show to be lost with 95 % confidence, if that is more.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx_ir as ir

from irc.errors import DataError, RunnerError, UsageError
from irc.judge.agreement import Agreement
from irc.judge.assessment import Assessment, Kind, Score, relative_loss
from irc.judge.budget import Budget
from irc.judge.classifier import class_scores, is_state
from irc.judge.embedding import is_embedding
from irc.judge.evidence import Evidence, find_evidence
from irc.judge.half_samples import HalfSamples
from irc.judge.halves import Half
from irc.judge.label_metrics import BUILT_IN, LabelMetric, label_rows
from irc.judge.metric_function import MetricError, MetricFunction, Runnable, load_metric
from irc.judge.original_outputs import MEMORY_LIMIT, OriginalOutputs
from irc.judge.output_error import Disagreement, OutputError, RunningMean
from irc.judge.similarity import Similarity
from irc.judge.units import Array, is_float, non_finite, rows

if TYPE_CHECKING:
    from irc.calibration.data import DataSource

Scorer = Agreement | Similarity | OutputError | Disagreement


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
        values = {value.name or "": value for value in model.graph.outputs}
        if output is not None and output not in values:
            raise UsageError(f"the model has no output {output!r}; {_advice(output, values)}")
        self._original, self._seed, self._label = original, seed, label
        self._budget = budget if budget is not None and budget.max_drop is not None else Budget()
        self._outputs = list(values)
        wanted = [output] if output is not None else self._outputs
        readings = {name: class_scores(values[name]) for name in wanted}
        self._embeddings = tuple(name for name in wanted if readings[name] is None and is_embedding(values[name]))
        self._readings = {name: reading for name, reading in readings.items() if reading is not None}
        # Caches for the next call are inner state: errors in them show in the scores that they lead to.
        self._judged = [name for name in wanted if name == output or not (self._readings and is_state(name))]
        self._function, self._metric = _resolve_metric(metric)
        reference = OriginalOutputs(original, limit=memory_limit)
        self._samples = HalfSamples(source, reference, self._judged, label)
        self._evidence: Evidence | None = None
        self._means: dict[str, dict[str, RunningMean]] = {}
        self._function_reference: float | None = None

    @property
    def evidence(self) -> Evidence:
        """What is measured; runs the original on the choice half the first time."""
        if self._evidence is None:
            if self._function is not None:
                self._evidence = Evidence("metric")
            else:
                self._evidence = find_evidence(
                    self._samples,
                    self._readings,
                    self._embeddings,
                    metric=self._metric,
                    explicit_label=self._label is not None,
                )
        return self._evidence

    @property
    def kind(self) -> Kind:
        """The kind of evidence candidates are judged by."""
        return self.evidence.kind

    def describe(self) -> str:
        """What is measured and on how many samples, in one line."""
        if self._function is not None:
            return f"the metric {self._function.name}, on its own data"
        metric = self.evidence.metric.name if self.evidence.metric is not None else ""
        what = {
            "metric": f"the metric {metric}",
            "labels": f"{metric} against the labels",
            "agreement": "agreement with the original",
            "error": "relative output error",
        }[self.kind]
        choice, acceptance = self._samples.halves
        count = f"{len(choice)} samples to choose, {len(acceptance)} to accept"
        if choice == acceptance:
            count = "a single sample, which both chooses and accepts"
        return f"{what}; {count}{'; generated samples' if self._synthetic else ''}"

    def assess(self, candidate: Runnable, *, half: str = "choice") -> Assessment:
        """Judges a candidate on one half of the samples, or on all.

        Args:
            candidate: The candidate, opened; the judge does not close it.
            half: "choice" for choosing among candidates, "acceptance" for the final word, "all" if nothing is chosen.

        Raises:
            DataError: If the labels do not fit the outputs, or the data changes between sweeps.
            MetricError: If the user's metric function fails.
            RunnerError: If the original does not run.
        """
        evidence = self.evidence
        if self._function is not None:
            return self._by_function(self._function, candidate, half)
        metric = evidence.label_metric(self._seed)
        scorers = self._scorers(half)
        for key, sample, outputs in self._samples.sweep(half):
            try:
                results = candidate.run(sample.feed, self._judged)
            except RunnerError as error:
                return self._rejected(half, f"the candidate does not run: {error}")
            for name in self._judged:
                found, reference = results.get(name), outputs[name]
                reason = _defect(name, found, reference, same_shape=metric is not None and name == evidence.output)
                if reason is not None or found is None:
                    return self._rejected(half, reason or "")
                mine = rows(reference, sample.feed)
                theirs = rows(found, sample.feed) if found.shape == reference.shape else None
                if name in scorers:
                    scorers[name].add(key, mine, theirs)
                if metric is not None and name == evidence.output and theirs is not None:
                    label = sample.labels[self._samples.label_key(sample) or ""]
                    metric.add(key, mine, theirs, label_rows(label, sample.feed))
        return self._conclude(half, metric, {name: scorer.scores() for name, scorer in scorers.items()})

    @property
    def _synthetic(self) -> bool:
        return bool(getattr(self._samples.source, "synthetic", False))

    def _scorers(self, half: str) -> dict[str, Scorer]:
        """One scorer per output; none where the user's metric alone counts."""
        evidence = self.evidence
        if evidence.kind == "metric":
            return {}
        means = self._output_means(half)
        scorers: dict[str, Scorer] = {}
        for name in self._judged:
            if name in evidence.readings:
                scorers[name] = Agreement(name, evidence.readings[name])
            elif name in evidence.embeddings and name != evidence.output:
                scorers[name] = Similarity(name)
            elif name in means:
                scorers[name] = OutputError(name, means[name], synthetic=self._synthetic)
            elif name != evidence.output:
                scorers[name] = Disagreement(name)
        return scorers

    def _output_means(self, half: str) -> dict[str, RunningMean]:
        """Means over a half of the outputs judged by their error."""
        evidence = self.evidence
        others = {*evidence.readings, *evidence.embeddings, evidence.output}
        wanted = [name for name in self._judged if name not in others]
        if half not in self._means:
            means: dict[str, RunningMean] = {}
            for _, sample, outputs in self._samples.sweep(half) if wanted else ():
                for name in wanted:
                    if is_float(outputs[name]):
                        for row in rows(outputs[name], sample.feed):
                            means.setdefault(name, RunningMean()).add(row)
            self._means[half] = means
        return self._means[half]

    def _conclude(self, half: str, metric: LabelMetric | None, found: dict[str, list[Score]]) -> Assessment:
        evidence, source = self.evidence, self._samples.source.name
        labelled = metric.scores() if metric is not None else []
        if metric is not None and not labelled:
            raise DataError(f"{source}: the {half} half has no label, or labels that never vary")
        deciding = [score for name, scores in found.items() if name != evidence.output for score in scores]
        notes = list(evidence.notes)
        if labelled:
            decisive, note = self._weigh(half, labelled[0], found.get(evidence.output, []))
            deciding.append(decisive)
            notes += note
        if not deciding:
            raise DataError(f"{source}: the {half} half has nothing to judge by: all outputs are empty or NaN")
        worst = max(deciding, key=lambda score: score.loss)
        others = (
            score for score in (*labelled, *(s for scores in found.values() for s in scores)) if score is not worst
        )
        return self._assessment(half, labelled[0] if labelled else worst, worst, (worst, *others), tuple(notes))

    def _weigh(self, half: str, score: Score, agreement: list[Score]) -> tuple[Score, list[str]]:
        """What decides on the labelled output: the labels, or the agreement where they are too few."""
        if self.kind == "metric" or not agreement:
            return score, []
        if self._assessment(half, score, score).can_prove(self._budget):
            return score, []
        worst = max(agreement, key=lambda s: s.loss)
        certain = score.least if score.least is not None else 0.0
        if certain > worst.loss:
            note = f"{score.n} labels are few, but show with 95 % confidence a loss of at least {100 * certain:.1f} %"
            return dataclasses.replace(score, loss=certain), [note]
        return worst, [f"{score.n} labels are too few to decide by {score.name}: the loss of {worst.name} decides"]

    def _assessment(
        self, half: str, reported: Score, deciding: Score, scores: tuple[Score, ...] = (), notes: tuple[str, ...] = ()
    ) -> Assessment:
        return Assessment(
            kind=self.kind,
            name=reported.name,
            reference=reported.reference,
            value=reported.value,
            criterion=deciding.name,
            loss=deciding.loss,
            bound=deciding.bound,
            n=deciding.n,
            trials=deciding.trials,
            half=cast(Half, half),
            synthetic=self._synthetic,
            base=deciding.reference,
            scores=scores,
            notes=notes,
        )

    def _rejected(self, half: str, reason: str) -> Assessment:
        metric = self._function or self.evidence.metric
        score = Score(metric.name if metric is not None else self.kind, self.evidence.output, 1.0, 0.0, 1.0, 1.0, 0)
        return dataclasses.replace(self._assessment(half, score, score), rejected=reason)

    def _by_function(self, function: MetricFunction, candidate: Runnable, half: str) -> Assessment:
        if self._function_reference is None:
            value, _ = function(self._original, self._outputs)
            if not np.isfinite(value):
                raise MetricError(f"metric {function.name} is {value} for the original; it must be a finite number")
            self._function_reference = value
        reference = self._function_reference
        try:
            value, calls = function(candidate, self._outputs)
        except RunnerError as error:
            return self._rejected(half, f"the candidate does not run: {error}")
        if not np.isfinite(value):
            return self._rejected(half, f"metric {function.name} is {value}; the original's is {reference:.4g}")
        loss = relative_loss(reference, value, higher_is_better=function.higher_is_better)
        score = Score(function.name, "", reference, value, loss, None, calls, None)
        return self._assessment(half, score, score, (score,))


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
    raise UsageError(f"--metric {metric!r} does not exist; {_advice(metric, BUILT_IN)}, or FILE.py:FUNCTION")


def _advice(name: str, known: dict[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there is {', '.join(known)}"


def _defect(name: str, candidate: Array | None, reference: Array, *, same_shape: bool) -> str | None:
    """Why an output of a candidate cannot be compared with the original's, or None."""
    if not isinstance(candidate, np.ndarray):
        return f"the candidate has no output {name!r}"
    if is_float(candidate) != is_float(reference):
        return f"output {name!r} is {candidate.dtype}; the original's is {reference.dtype}"
    if same_shape and candidate.shape != reference.shape:
        return f"output {name!r} has shape {list(candidate.shape)}; the original's is {list(reference.shape)}"
    count = non_finite(candidate, reference)
    return f"output {name!r} has {count} NaN or infinite numbers where the original has none" if count else None
