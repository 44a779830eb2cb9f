"""Samples for fitting and samples held out, several at a time where the model takes them so.

Which sample is for what goes by content: order, file names and repeats do not matter. Samples of equal shape are joined along their
first axis where all inputs have a free one, and where a trial shows that the model gives the outputs of each, one behind the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.data import Feed, Sample
from irc.errors import DataError, RunnerError
from irc.pass_base import Context
from irc.runner import Runner

SAMPLES = 1024
HELD_SHARE = 0.2
MOST_TOGETHER = 64
BATCH_BYTES = 16 << 20
"""Of inputs, activations and outputs of one batch, as far as inputs and outputs tell."""
_TRIAL_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Samples that are run at once.

    Attributes:
        feed: Their inputs.
        samples: How many they are.
        seed: Of random positions in its values, by content.
    """

    feed: Feed
    samples: int
    seed: int


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """What a model is repaired with.

    Attributes:
        fit: For fitting.
        held: For choosing between fits; the same as `fit` where there is one sample.
        held_out: The samples of `held`, one by one, without labels.
    """

    fit: Sequence[Batch]
    held: Sequence[Batch]
    held_out: Sequence[Sample] = ()

    @property
    def apart(self) -> bool:
        """Whether any sample is held out."""
        return self.held is not self.fit

    @property
    def fit_samples(self) -> int:
        """Number of samples for fitting."""
        return sum(batch.samples for batch in self.fit)

    @property
    def held_samples(self) -> int:
        """Number of samples held out."""
        return sum(batch.samples for batch in self.held)

    @classmethod
    def of(cls, model: ir.Model, ctx: Context, *, samples: int = SAMPLES, together: int = MOST_TOGETHER) -> Batches:
        """Takes samples of a context's data, and tells the context which of them are fitted to.

        Args:
            model: Runs on them; unchanged.
            ctx: Data and runner.
            samples: At most this many, those of the smallest hashes.
            together: Most of a batch.

        Raises:
            DataError: If there is no sample, or the data differ from one sweep to the next.
        """
        assert ctx.runner is not None
        wanted = _chosen(ctx, samples)
        kept: dict[str, Sample] = {}
        for sample in ctx.data.samples():
            if sample.key in wanted:
                kept.setdefault(sample.key, sample)
        if len(kept) < len(wanted):
            raise DataError(
                f"{ctx.data.name}: the samples differ from one sweep to the next; seed whatever is random in it"
            )
        ordered = [kept[key] for key in sorted(kept)]
        step = round(1 / HELD_SHARE)
        held = ordered[step - 1 :: step] or ordered[-1:]
        fit = [sample for sample in ordered if sample not in held] or ordered
        ctx.fitted.update(sample.key for sample in fit)
        size = _together(model, ctx.runner, ordered, together)
        unlabelled = [Sample(sample.feed, origin=sample.origin) for sample in held]
        fitted = _joined(fit, size)
        return cls(fitted, _joined(held, size) if len(ordered) > 1 else fitted, unlabelled)


def _chosen(ctx: Context, samples: int) -> frozenset[str]:
    keys = sorted({sample.key for sample in ctx.data.samples()} - ctx.reserved)
    if not keys:
        raise DataError(f"{ctx.data.name}: there are no samples to repair the model with")
    return frozenset(keys[:samples])


def _together(model: ir.Model, runner: Runner, samples: Sequence[Sample], most: int) -> int:
    """How many samples may be joined."""
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        if value.shape is None or not len(value.shape) or isinstance(value.shape[0], int):
            return 1
    groups: dict[Any, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(_shapes(sample.feed), []).append(sample)
    pair = max(groups.values(), key=len)[:2]
    if len(pair) < 2 or any(array.ndim == 0 for array in pair[0].feed.values()):
        return 1
    with runner.open(model) as opened:
        apart = [opened.run(sample.feed) for sample in pair]
        try:
            joined = opened.run(_concatenated([sample.feed for sample in pair]))
        except RunnerError as error:
            if error.crashed:
                raise
            return 1
    for name, found in joined.items():
        parts = [np.asarray(outputs[name]) for outputs in apart]
        if any(part.ndim == 0 for part in parts) or len({part.shape[1:] for part in parts}) > 1:
            return 1
        expected, found = np.concatenate(parts), np.asarray(found)
        largest = float(np.abs(expected).max(initial=0))
        if found.shape != expected.shape or not np.isfinite(largest):
            return 1
        if not np.allclose(found, expected, rtol=_TRIAL_TOLERANCE, atol=_TRIAL_TOLERANCE * largest):
            return 1
    read = max(sum(array.nbytes for array in sample.feed.values()) for sample in samples)
    given = max(sum(np.asarray(output).nbytes for output in outputs.values()) for outputs in apart)
    return int(max(1, min(most, BATCH_BYTES // max(16 * read, given, 1))))


def _joined(samples: Sequence[Sample], size: int) -> list[Batch]:
    groups: dict[Any, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(_shapes(sample.feed), []).append(sample)
    found = []
    for group in groups.values():
        for start in range(0, len(group), size):
            part = group[start : start + size]
            feed = _concatenated([sample.feed for sample in part]) if len(part) > 1 else part[0].feed
            found.append(Batch(feed, len(part), int(part[0].key[:16], 16)))
    return found


def _concatenated(feeds: Sequence[Feed]) -> Feed:
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def _shapes(feed: Feed) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, array.shape) for name, array in sorted(feed.items()))
