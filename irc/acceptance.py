"""The candidate that a build goes on with: within the accuracy budget, and without what does not pay.

The full candidate is judged first. Where it misses the budget, a search chooses a variant for every site, if passes offer
any; where that finds nothing, or nothing is offered, the guard takes sites back, worst first. What was accepted is timed,
and sites that are slower for being rewritten are left in float.

Samples that a model was trained on are answered with wide margins, and a few of them do not show what is lost on others.
So where the samples are too few to prove the budget, the outputs must stay close to the original's as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from irc.application import SiteKey
from irc.candidates import Candidates
from irc.guard import guard
from irc.ledger import Ledger
from irc.timed_placement import leave_slower_in_float
from irc.variant_search import search as search_variants

if TYPE_CHECKING:
    from irc.judge import Assessment, Budget, Judge
    from irc.pass_manager import RunResult
    from irc.runner import Feed
    from irc.target import Target


ERROR_PER_DROP = 0.5
"""Largest relative error of the outputs, as a share of the loss allowed, where the samples cannot prove that.

Chosen on image, speech and text models with 64 samples from the training split: below it the loss on test data was within
the budget, above twice that it was not.
"""


class Bar:
    """What a candidate has to stay within.

    Args:
        candidates: Compares outputs.
        budget: With an accuracy clause.
    """

    def __init__(self, candidates: Candidates, budget: Budget) -> None:
        self._candidates, self._budget = candidates, budget
        assert budget.max_drop is not None
        self._largest = ERROR_PER_DROP * budget.max_drop
        self._compared: tuple[RunResult, float] | None = None
        self.asked_outputs = False

    def allows(self, result: RunResult, assessment: Assessment) -> bool:
        """Whether the loss is within the budget, and the outputs are close where the samples cannot prove it."""
        if not self._budget.allows(assessment):
            return False
        if assessment.kind in ("metric", "error") or assessment.can_prove(self._budget):
            return True
        self.asked_outputs = True
        # Both halves ask about the same build, one after the other.
        if self._compared is None or self._compared[0] is not result:
            self._compared = result, self._candidates.output_error(result)
        return self._compared[1] <= self._largest

    def notes(self) -> list[str]:
        """What the user should know of it."""
        if not self.asked_outputs:
            return []
        return [
            "the samples cannot prove the accuracy budget, so the outputs also had to stay within "
            f"{100 * self._largest:g} % of relative error"
        ]


@dataclasses.dataclass
class Accepted:
    """What a build goes on with.

    Attributes:
        result: The model.
        denied: Rewrites left out, with the reason.
        choices: Variants other than a pass's own, by pass name and site id.
        remarks: What to say in the ledger of sites with a chosen variant.
        reverted: How many sites were taken back for accuracy.
        assessment: The judge's word on the acceptance half; None if it was not asked.
    """

    result: RunResult
    denied: dict[SiteKey, str] = dataclasses.field(default_factory=dict)
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: Mapping[SiteKey, str] = dataclasses.field(default_factory=dict)
    reverted: int = 0
    assessment: Assessment | None = None

    def annotate(self, ledger: Ledger) -> None:
        """Says in the ledger which variants were chosen."""
        for key, text in self.remarks.items():
            record = ledger.passes[key.step]
            record.rewritten = [
                dataclasses.replace(entry, reason="; ".join(filter(None, (text, entry.reason))))
                if entry.site == key.site
                else entry
                for entry in record.rewritten
            ]


def accept(
    candidates: Candidates,
    judge: Judge,
    budget: Budget,
    *,
    target: Target,
    feeds: Sequence[Feed],
    objective: str,
    search: bool,
    workers: int,
    notes: list[str],
) -> Accepted:
    """A candidate whose loss is within the budget; that with every site in float always is.

    Args:
        candidates: The approximate part of the build.
        judge: Judges whole models.
        budget: With an accuracy clause.
        target: What the model is for.
        feeds: Inputs to time variants on; none to estimate times.
        objective: "latency" or "bytes".
        search: Whether variants are searched where the full candidate misses the budget.
        workers: Processes of the search.
        notes: Told what the search did.
    """
    bar = Bar(candidates, budget)
    full = candidates.full
    known = {"choice": candidates.assess(judge, full, "choice")}
    if bar.allows(full, known["choice"]):
        known["acceptance"] = candidates.assess(judge, full, "acceptance")
    if "acceptance" in known and bar.allows(full, known["acceptance"]):
        notes += bar.notes()
        return Accepted(full, assessment=known["acceptance"])
    found = None
    # Times and errors of variants are told of values of one size.
    if search and not any(candidates.resizes(key) for key in candidates.keys):
        found = search_variants(
            candidates,
            judge,
            within=bar.allows,
            target=target,
            feeds=feeds,
            objective=objective,
            target_size=budget.target_size,
            workers=workers,
        )
    if found is None:
        accepted = _guarded(candidates, judge, bar, known)
    else:
        left = len(found.denied)
        notes.append(
            f"the search judged {found.judged} selections: {len(found.choices)} sites with another variant, "
            f"{left} of {len(candidates.keys)} in float"
        )
        accepted = Accepted(found.build, found.denied, found.choices, found.remarks, left, found.acceptance)
    notes += bar.notes()
    return accepted


def _guarded(candidates: Candidates, judge: Judge, bar: Bar, known: Mapping[str, Assessment]) -> Accepted:
    """Sites taken back, worst first; `known` are assessments of the full candidate, by half."""

    def assess(result: RunResult, half: str) -> Assessment:
        if result is candidates.full and half in known:
            return known[half]
        return candidates.assess(judge, result, half)

    guarded = guard(
        candidates.keys,
        build=candidates.build,
        assess=assess,
        within=bar.allows,
        ranking=candidates.ranking,
        progress=candidates.context.progress,
        taken_back=lambda key: f"{candidates.taken_back(key)}: its {candidates.error_name(key)}",
    )
    last = guarded.candidate
    return Accepted(last.build, last.denied, reverted=guarded.reverted, assessment=last.acceptance)


def without_slower(
    accepted: Accepted,
    candidates: Candidates,
    judge: Judge | None,
    budget: Budget,
    target: Target,
    feeds: Sequence[Feed],
    seed: int,
) -> Accepted:
    """The candidate without the sites that are slower for being rewritten; as it is where that would miss the budget.

    Args:
        accepted: Within the accuracy budget.
        candidates: The approximate part of the build.
        judge: Judges the result; None where there is no accuracy budget.
        budget: The budget.
        target: Executed here.
        feeds: Inputs to time on.
        seed: Of the interval of the ratio.
    """
    keys = [key for key in candidates.keys if not candidates.resizes(key)]
    if not keys:
        return accepted
    timed = leave_slower_in_float(
        candidates.runner,
        candidates.resized(accepted.result),
        accepted.result,
        accepted.denied,
        keys,
        build=lambda denied: candidates.build(denied, accepted.choices),
        style=target.quantization,
        feeds=feeds,
        seed=seed,
        progress=candidates.context.progress,
    )
    if not timed.left:
        return accepted
    checked = candidates.assess(judge, timed.build, "acceptance") if judge is not None else None
    if checked is not None and not Bar(candidates, budget).allows(timed.build, checked):
        return accepted
    return dataclasses.replace(accepted, result=timed.build, denied=timed.denied, assessment=checked)
