"""What data tell of residual branches in the original: their mean, how much they change what they are added to, their shapes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration import DataSource, FeedList, Observable, Sample, observe
from irc.calibration.statistics import Moments
from irc.judge.halves import split
from irc.pass_base import Context
from irc.passes.pruning.layers.residual_branches import Branch
from irc.runner import Runner

Array = np.ndarray[Any, Any]
INFLUENCE_SAMPLES = 16
VALUES_AT_ONCE = 24
"""How many branches' shortcuts and sums are fetched from the runtime together."""


@dataclasses.dataclass(frozen=True)
class SampleHalves:
    """Samples to fit on and others to choose on, by content.

    Attributes:
        fit: For means.
        held: For output errors.
    """

    fit: FeedList
    held: FeedList

    @classmethod
    def of(cls, source: DataSource, limit: int) -> SampleHalves:
        """The first samples of either half; a single sample is in both.

        Args:
            source: The samples.
            limit: At most so many per half.
        """
        samples: dict[str, Sample] = {}
        for sample in itertools.islice(source.samples(), 4 * limit):
            samples.setdefault(sample.key, sample)
        halves = split(samples)

        def part(keys: Iterable[str]) -> FeedList:
            chosen = frozenset(keys)
            found = [sample for key, sample in samples.items() if key in chosen]
            return FeedList(found[:limit], name=source.name, synthetic=source.synthetic)

        return cls(part(halves[0]), part(halves[1]))


def channel_means(model: ir.Model, branches: Sequence[Branch], samples: FeedList, ctx: Context) -> dict[Branch, Array]:
    """The mean of every channel of every branch, float64, `[C]` with as many trailing axes of 1 as it takes to add it.

    Branches whose channels are not known, vary in number or have no finite mean are left out.
    """
    asked = {
        branch: Observable(branch.value.name or "", "moments", branch.axis)
        for branch in branches
        if branch.axis is not None and branch.value.shape is not None and branch.value.name
    }
    assert isinstance(ctx.runner, Runner)
    found = observe(ctx.runner, model, samples, list(asked.values()), progress=ctx.progress).found
    means: dict[Branch, Array] = {}
    for branch, observable in asked.items():
        moments = found.get(observable)
        if isinstance(moments, Moments) and not moments.empty and np.isfinite(moments.mean).all():
            assert branch.value.shape is not None and branch.axis is not None
            behind = len(branch.value.shape) - 1 - branch.axis
            means[branch] = moments.mean.reshape(-1, *(1 for _ in range(behind)))
    return means


@dataclasses.dataclass
class BranchEffects:
    """What branches do to their shortcuts.

    Attributes:
        influence: 1 minus the mean cosine of a position's channels in the shortcut and in the sum, 0 to 2: the block influence
            of Men et al., ShortGPT, arXiv:2403.03853, equation 1.
        unequal: Branches whose shortcut and sum differ in shape on some sample.
    """

    influence: dict[Branch, float] = dataclasses.field(default_factory=dict)
    unequal: set[Branch] = dataclasses.field(default_factory=set)


def branch_effects(model: ir.Model, branches: Sequence[Branch], samples: FeedList, ctx: Context) -> BranchEffects:
    """Runs a few samples and compares the shortcut of every branch with the sum it enters."""
    effects = BranchEffects()
    public = {value.name for value in model.graph.inputs}
    assert isinstance(ctx.runner, Runner)
    for start in range(0, len(branches), VALUES_AT_ONCE):
        part = branches[start : start + VALUES_AT_ONCE]
        values = dict.fromkeys(value.name or "" for branch in part for value in (branch.shortcut, branch.joined))
        names = [name for name in values if name not in public]
        cosines: dict[Branch, list[float]] = {branch: [] for branch in part}
        with ctx.runner.open(model, extra_outputs=names) as opened:
            for sample in itertools.islice(samples.samples(), INFLUENCE_SAMPLES):
                found = {**sample.feed, **opened.run(sample.feed, names)}
                for branch in part:
                    x, y = found[branch.shortcut.name or ""], found[branch.joined.name or ""]
                    if x.shape != y.shape:
                        effects.unequal.add(branch)
                    elif x.size:
                        axis = branch.axis if branch.axis is not None and branch.axis < x.ndim else -1
                        cosines[branch].append(_mean_cosine(x, y, axis))
        for branch, found_cosines in cosines.items():
            effects.influence[branch] = 1.0 - float(np.mean(found_cosines)) if found_cosines else 0.0
    return effects


def _mean_cosine(x: Array, y: Array, axis: int) -> float:
    a, b = (np.asarray(v, np.float64) for v in (x, y))
    if not a.ndim:
        a, b = a.reshape(1), b.reshape(1)
    norms = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.where(norms > 0, (a * b).sum(axis=axis) / norms, 1.0)
    return float(np.nan_to_num(cosine).mean())
