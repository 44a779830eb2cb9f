"""What the tests of passes that divide channels share: data with a few channels far larger than the rest, and contexts to decide in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pass_kit

from irc.application import SiteKey, apply_pass
from irc.backends.ort import OrtTarget
from irc.calibration import observe
from irc.calibration.data import FeedList, Sample
from irc.decisions import Decisions
from irc.ir import snapshot
from irc.ledger import PassRecord
from irc.pass_base import Context, Pass
from irc.pipeline import Step
from irc.testing.conformance import shared_runner

Array = np.ndarray[Any, Any]


def outliers(channels: int, *, factor: float = 60.0, seed: int = 3) -> Array:
    """One vector of magnitudes, every eighth of them larger by a factor."""
    found = np.random.default_rng(seed).uniform(0.5, 1.5, channels).astype(np.float32)
    found[1::8] *= factor
    return found


def samples(model: ir.Model, *, count: int = 16, scale: dict[str, Array] | None = None) -> list[pass_kit.Feed]:
    """Seeded feeds, inputs multiplied by what is given for them."""
    feeds = [pass_kit.feeds(model, symbol=8, seed=seed) for seed in range(count)]
    for feed in feeds:
        for name, factors in (scale or {}).items():
            feed[name] = feed[name] * factors
    return feeds


def context(feeds: Sequence[pass_kit.Feed], **fields: Any) -> Context:
    """A context with data."""
    source, runner = FeedList([Sample(feed) for feed in feeds]), shared_runner()
    found = Context(
        target=OrtTarget(),
        data=source,
        runner=runner,
        observe=lambda model, observables: observe(runner, model, source, observables),
    )
    return dataclasses.replace(found, **fields)


@dataclasses.dataclass
class Outcome:
    """A rewritten copy.

    Attributes:
        model: The copy.
        record: Its ledger record.
        decisions: What was decided.
    """

    model: ir.Model
    record: PassRecord
    decisions: Decisions

    @property
    def remarks(self) -> dict[str, str]:
        """Remarks by rewritten site."""
        return {entry.site: entry.reason for entry in self.record.rewritten}

    @property
    def skipped(self) -> dict[str, str]:
        """Reasons by site."""
        return {entry.site: entry.reason for entry in self.record.skipped}


def apply(pass_: Pass, model: ir.Model, ctx: Context, *, denied: Sequence[str] = ()) -> Outcome:
    """The pass applied to a copy."""
    copy = snapshot(model)

    def permit(key: SiteKey) -> str | None:
        return "denied" if key.site in denied else None

    return Outcome(copy, apply_pass(Step(pass_), copy, ctx, permit=permit).record, ctx.decisions)


def difference(before: ir.Model, after: ir.Model, feed: pass_kit.Feed) -> float:
    """Largest difference of the outputs relative to the largest magnitude."""
    worst = 0.0
    for a, b in zip(pass_kit.run(before, feed), pass_kit.run(after, feed), strict=True):
        worst = max(worst, float(np.abs(a - b).max() / np.abs(a).max()))
    return worst
