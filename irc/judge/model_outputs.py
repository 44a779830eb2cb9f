"""How far a model's outputs are from the float model's, as one number, on a few samples that many candidates share."""

from __future__ import annotations

import math

import onnx_ir as ir

from irc.calibration.data import DataSource
from irc.calibration.sources import take
from irc.judge.classifier import is_state
from irc.judge.metric_function import Runnable
from irc.judge.original_outputs import OriginalOutputs
from irc.judge.output_error import Disagreement, OutputError, RunningMean
from irc.judge.units import is_float, non_finite, rows


class ModelOutputs:
    """The outputs of one original, and the error of candidates against them.

    Caches for the next call ("present.0.key") are left out where there are other outputs: they are inner state.

    Args:
        model: The original's graph.
        original: The original, opened.
        source: The samples.
        limit: How many of them to use, the first ones.

    Raises:
        RunnerError: If the original does not run.
    """

    def __init__(self, model: ir.Model, original: Runnable, source: DataSource, *, limit: int) -> None:
        tensors = [value.name or "" for value in model.graph.outputs if isinstance(value.type, ir.TensorType)]
        names = [name for name in tensors if not is_state(name)] or tensors
        self._samples = take(source, limit)
        self._synthetic = source.synthetic
        self._reference = OriginalOutputs(original)
        means = {name: RunningMean() for name in names}
        floating = dict.fromkeys(names, True)
        self._asked = names
        for sample in self._samples:
            found = self._reference(sample.key, sample.feed, names)
            for name in names:
                floating[name] = floating[name] and is_float(found[name])
                if floating[name]:
                    for row in rows(found[name], sample.feed):
                        means[name].add(row)
        self._means = {name: means[name] for name in names if floating[name]}
        self._names = list(self._means) or names

    def error(self, candidate: Runnable) -> float | None:
        """The relative error of the worst output: 0 is exact, infinity for NaN or infinity out of place; None without outputs.

        Raises:
            RunnerError: If the candidate does not run.
        """
        scorers = {
            name: OutputError(name, self._means[name], synthetic=self._synthetic)
            if name in self._means
            else Disagreement(name)
            for name in self._names
        }
        for sample in self._samples:
            reference = self._reference(sample.key, sample.feed, self._asked)
            results = candidate.run(sample.feed, self._names)
            for name, scorer in scorers.items():
                if non_finite(results[name], reference[name]):
                    return math.inf
                mine = rows(reference[name], sample.feed)
                same = results[name].shape == reference[name].shape
                scorer.add(sample.key, mine, rows(results[name], sample.feed) if same else None)
        losses = [score.loss for scorer in scorers.values() for score in scorer.scores()]
        return max(losses, default=None)
