"""Search for the cheapest way to execute every site within the accuracy budget, among the variants that passes offer.

What a variant costs is measured: the model is built once per variant, with every site that has it, and profiled here. What
it spoils is predicted: by the error of each site's own output, times what the model makes of it, which is measured at
the model's outputs for the worst quarter of the sites, every variant of each alone. A knapsack over both (irc.search)
gives the selections worth measuring, the cheapest first; the judge has the last word on each as a whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from irc.application import SiteKey
from irc.calibration.data import FeedList
from irc.calibration.sources import take
from irc.candidates import Candidates
from irc.errors import PassFailed, RunnerError
from irc.ir import size_on_disk
from irc.judge.model_outputs import ModelOutputs
from irc.report.sensitivity_table import error_percent
from irc.search import Infeasible, Selection, Variant, evaluate, frontier, select, stored_bytes
from irc.sensitivity import LARGEST_ERROR, confirmed_count
from irc.variant_costs import VariantCosts

if TYPE_CHECKING:
    from irc.judge import Assessment, Judge
    from irc.pass_manager import RunResult
    from irc.runner import Feed, Runner
    from irc.target import Target

FLOAT, OWN = "float", "as the pass has it"
"""A site that is not rewritten, and one that is rewritten by the options of its pass."""
POINTS = 10
"""Selections of the frontier that are judged, at most."""
REFINEMENTS = 3
"""Further selections, between the last that missed the budget and the first within it."""
ERROR_SAMPLES = 32
OUTPUT_SAMPLES = 8
SHARE_OF_BYTES = 0.05
"""Where latency is the objective, all bytes weigh as much as this share of the float model's time: of equals the smaller."""
MOST_ALONE = 48
"""Variants confirmed at the model's outputs, at most."""


@dataclasses.dataclass
class Found:
    """What the search decided.

    Attributes:
        build: The model.
        denied: Sites left in float, with the reason.
        choices: Variants other than a pass's own, by pass name and site id.
        remarks: What to say of each site with a chosen variant.
        acceptance: The judge's word on the acceptance half.
        judged: How many selections were judged.
    """

    build: RunResult
    denied: dict[SiteKey, str]
    choices: dict[str, str]
    remarks: dict[SiteKey, str]
    acceptance: Assessment
    judged: int


def search(
    candidates: Candidates,
    judge: Judge,
    *,
    within: Callable[[RunResult, Assessment], bool],
    target: Target,
    feeds: Sequence[Feed],
    objective: str = "latency",
    target_size: int | None = None,
    workers: int = 1,
) -> Found | None:
    """Finds the cheapest selection of variants that the judge accepts.

    Args:
        candidates: The approximate part of a build.
        judge: Judges whole models.
        within: Whether a build with its assessment is within the budget.
        target: What the model is for; where it is not executed here, times are estimated from multiply-accumulates.
        feeds: Inputs to time on.
        objective: "latency" or "bytes".
        target_size: Largest artifact in bytes, kept where any selection can.
        workers: Processes that confirm errors side by side; any number gives the same result.

    Returns:
        The selection; None if no pass offers a variant, or the judge accepts no selection with a rewrite in it.
    """
    space = _Space.measured(candidates, target, feeds, workers)
    if space is None:
        return None
    walk = _Walk(candidates, judge, within, space, stored_bytes if objective == "bytes" else space.latency)
    return walk.cheapest(math.inf if target_size is None else target_size - space.other_bytes)


class _Walk:
    """Selections judged one after another, from the cheapest on."""

    def __init__(
        self,
        candidates: Candidates,
        judge: Judge,
        within: Callable[[RunResult, Assessment], bool],
        space: _Space,
        cost: Callable[[Variant], float],
    ) -> None:
        self._candidates, self._judge, self._within = candidates, judge, within
        self._space, self._cost = space, cost
        self._judged = 0

    def cheapest(self, byte_budget: float) -> Found | None:
        """The cheapest selection that is accepted, between the points of the frontier as well; None if none is."""
        missed: Selection | None = None
        for selection in self._frontier(byte_budget):
            if all(variant.name == FLOAT for variant in selection.choices.values()):
                return None
            found = self._tried(selection)
            if found is not None:
                return self._refined(found, selection, missed, byte_budget)
            missed = selection
        return None

    def _frontier(self, byte_budget: float) -> list[Selection]:
        points = frontier(self._space.sites, self._cost, points=POINTS)
        if math.isinf(byte_budget):
            return points
        found: dict[float, Selection] = {}
        for point in points:
            with contextlib.suppress(Infeasible):
                selection = self._selected(point.error, byte_budget)
                found.setdefault(selection.error, selection)
        # Where no selection is small enough, accuracy decides, and the report says what is missed.
        return list(found.values()) or points

    def _selected(self, error: float, byte_budget: float) -> Selection:
        return select(self._space.sites, budget=error, byte_budget=byte_budget, objective=self._cost)

    def _refined(self, found: Found, accepted: Selection, missed: Selection | None, byte_budget: float) -> Found:
        """The cheapest accepted between an accepted selection and the one before it, which was not."""
        if missed is None:
            return found
        low, high = accepted.error, missed.error
        for _ in range(REFINEMENTS):
            middle = math.sqrt(max(low, high * 1e-6) * high)
            try:
                selection = self._selected(middle, byte_budget)
            except Infeasible:
                break
            if not low < selection.error < high:
                break
            better = self._tried(selection)
            if better is None:
                high = selection.error
            else:
                found, low = better, selection.error
        found.judged = self._judged
        return found

    def _tried(self, selection: Selection) -> Found | None:
        """A selection built and judged on both halves; None if it misses the budget, or cannot be built or run."""
        self._candidates.context.progress(0.5, f"judging selection {self._judged + 1} of the search")
        build = self._space.build(selection)
        if build is None:
            return None
        self._judged += 1
        try:
            if not self._within(build, self._candidates.assess(self._judge, build, "choice")):
                return None
            accepted = self._candidates.assess(self._judge, build, "acceptance")
            if not self._within(build, accepted):
                return None
        except RunnerError:
            return None
        return Found(build, *self._space.decisions(selection), accepted, self._judged)


class _Space:
    """The sites with their variants, and how a selection of them is built.

    Attributes:
        sites: For the knapsack.
        other_bytes: What is stored besides the weights of the sites, about.
    """

    def __init__(self, candidates: Candidates, sites: Mapping[Hashable, list[Variant]]) -> None:
        self._candidates = candidates
        self.sites = sites
        floats = [variants[0] for variants in sites.values()]
        time, size = sum(v.microseconds for v in floats), sum(v.bytes for v in floats)
        self.other_bytes = size_on_disk(candidates.float_model) - size
        self._per_byte = SHARE_OF_BYTES * time / size if size else 0.0

    @classmethod
    def measured(cls, candidates: Candidates, target: Target, feeds: Sequence[Feed], workers: int) -> _Space | None:
        """Builds every variant once, and measures; None where no pass offers any."""
        offered = _offered(candidates)
        if not offered:
            return None
        progress = candidates.context.progress
        builds = _builds(candidates, offered)
        source = candidates.context.data
        few = dataclasses.replace(candidates.context, data=FeedList(take(source, ERROR_SAMPLES), name=source.name))
        local: dict[str, dict[SiteKey, float]] = {}
        for index, (name, build) in enumerate(list(builds.items())):
            progress(index / len(builds), f"measuring the error of every site, {name}")
            known = frozenset(candidates.keys_of(build))
            keys = [key for key in candidates.keys if key in known and (name == OWN or name in offered.get(key, ()))]
            try:
                candidates.try_out(build)
                local[name] = candidates.errors(build, keys, few)
            except RunnerError:
                if name == OWN:
                    raise
                del builds[name]
        names = {key: [name for name in builds if key in local[name]] for key in candidates.keys}
        errors = _at_the_outputs(candidates, local, names, workers)
        costs = VariantCosts.measured(candidates, builds, target, feeds)
        sites: dict[Hashable, list[Variant]] = {}
        for key in candidates.keys:
            sites[key] = [
                Variant(FLOAT, 0.0, *costs.of(key.site, None)),
                *(Variant(name, errors[key, name], *costs.of(key.site, name)) for name in names[key]),
            ]
        return cls(candidates, sites)

    def latency(self, variant: Variant) -> float:
        """The objective of a fast model: microseconds, and a little for bytes."""
        return variant.microseconds + self._per_byte * variant.bytes

    def build(self, selection: Selection) -> RunResult | None:
        """The model of a selection; None if it cannot be built."""
        denied, choices, _ = self.decisions(selection)
        try:
            return self._candidates.build(denied, choices)
        except PassFailed:
            return None

    def decisions(self, selection: Selection) -> tuple[dict[SiteKey, str], dict[str, str], dict[SiteKey, str]]:
        """What is denied, which variants are chosen, and what to say of them."""
        denied: dict[SiteKey, str] = {}
        choices: dict[str, str] = {}
        remarks: dict[SiteKey, str] = {}
        for key, variant in selection.choices.items():
            assert isinstance(key, SiteKey)
            if variant.name == FLOAT:
                least = min((v.error for v in self.sites[key][1:]), default=0.0)
                denied[key] = (
                    f"left in float by the search: rewritten, it would add {error_percent(least)} to the output error"
                )
            elif variant.name != OWN:
                choices[self._candidates.choice_key(key)] = variant.name
                remarks[key] = (
                    f"{variant.name}, chosen by the search (predicted output error {error_percent(variant.error)})"
                )
        return denied, choices, remarks


def _offered(candidates: Candidates) -> dict[SiteKey, tuple[str, ...]]:
    """The variants of every site that has any."""
    found = {}
    for i, step in enumerate(candidates.steps):
        if step.pass_.contract.lossless or step.pass_.refines:
            continue
        variants = step.pass_.variants(candidates.float_model, candidates.context)
        for key in candidates.keys:
            if key.step == candidates.offset + i and variants.get(key.site):
                found[key] = variants[key.site]
    return found


def _builds(candidates: Candidates, offered: Mapping[SiteKey, Sequence[str]]) -> dict[str, RunResult]:
    """The model with each variant wherever it is offered, the passes' own first."""
    builds = {OWN: candidates.full}
    for name in dict.fromkeys(name for names in offered.values() for name in names):
        candidates.context.progress(0.0, f"building the variant {name}")
        choices = {candidates.choice_key(key): name for key, names in offered.items() if name in names}
        try:
            builds[name] = candidates.build({}, choices)
        except PassFailed:
            continue
    return builds


def _at_the_outputs(
    candidates: Candidates,
    local: Mapping[str, Mapping[SiteKey, float]],
    names: Mapping[SiteKey, Sequence[str]],
    workers: int,
) -> dict[tuple[SiteKey, str], float]:
    """Predicted relative error of the model's outputs for every variant of every site alone.

    Measured for the worst sites; the local errors of the others are multiplied by the median of what the model made of
    those of the measured.
    """
    worst = sorted(candidates.keys, key=lambda key: -local[OWN].get(key, 0.0))
    alone: list[tuple[SiteKey, str]] = []
    for key in worst[: confirmed_count(len(worst))]:
        if len(alone) + len(names[key]) > MOST_ALONE:
            break
        alone += [(key, name) for name in names[key]]
    measured = _alone(candidates, alone, workers)
    ratios = [
        error / local[name][key]
        for (key, name), error in measured.items()
        if local[name][key] > 0 and error < LARGEST_ERROR
    ]
    typical = statistics.median(ratios) if ratios else 1.0
    found: dict[tuple[SiteKey, str], float] = {}
    for key in candidates.keys:
        for name in names[key]:
            error = measured.get((key, name), local[name][key] * typical)
            found[key, name] = min(error, LARGEST_ERROR) if math.isfinite(error) else LARGEST_ERROR
    return found


def _alone(
    candidates: Candidates, wanted: Sequence[tuple[SiteKey, str]], workers: int
) -> dict[tuple[SiteKey, str], float]:
    """Relative error of the model's outputs with one site rewritten in one way, for each that can be built."""
    if not wanted:
        return {}
    measured: dict[tuple[SiteKey, str], float] = {}
    model, source = candidates.float_model, candidates.context.data
    with candidates.runner.open(model) as original:
        outputs = ModelOutputs(model, original, source, limit=OUTPUT_SAMPLES)

        def error(result: RunResult, runner: Runner) -> float | None:
            try:
                with runner.open(candidates.as_executed(result.model)) as opened:
                    return outputs.error(opened)
            except RunnerError:
                return LARGEST_ERROR

        candidates.context.progress(0.0, f"confirming {len(wanted)} variants at the model's outputs")
        builds = [_build_alone(candidates, key, name) for key, name in wanted]
        built = [(item, result) for item, result in zip(wanted, builds, strict=True) if result is not None]
        errors = evaluate([result for _, result in built], error, workers=workers)
        for (item, _), found in zip(built, errors, strict=True):
            if found is not None:
                measured[item] = found
    return measured


def _build_alone(candidates: Candidates, key: SiteKey, name: str) -> RunResult | None:
    denied = {other: "another site is looked at" for other in candidates.keys if other != key}
    choices = {} if name == OWN else {candidates.choice_key(key): name}
    try:
        return candidates.build(denied, choices)
    except PassFailed:
        return None
