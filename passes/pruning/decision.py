"""What goes of a model, decided for all its families at once: scores, shares, rounding and the budget put together."""

from __future__ import annotations

import collections
import functools
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Family, Mode, Slot
from irc.decisions import Decision
from irc.errors import UsageError
from irc.pass_base import Context
from irc.passes.pruning.allocation import cut_only
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.choice import NO_CHOICE, SHARES, UNREACHED, Choice, chosen
from irc.passes.pruning.criteria import MEASURED, rankings
from irc.passes.pruning.decided import has_data
from irc.passes.pruning.goal import Goal
from irc.passes.pruning.places import FamilyDecisions
from irc.passes.pruning.repair.repairer import Repaired, Repairer
from irc.passes.pruning.rounding import steps

if TYPE_CHECKING:
    from irc.latency_table import LatencyTable
    from irc.passes.pruning.prune_channels import PruneChannels

Array = np.ndarray[Any, Any]
OF_COURSE = ("kernel axis",)
"""Kinds of reasons that hold for every convolution, and are told once for all."""
EVERYWHERE = (*OF_COURSE, "free axis", "graph output")
"""Kinds that some axis of every model has, and that explain nothing."""


class Pruning(FamilyDecisions):
    """One model under one set of options: what may be cut, and, once it is asked for, what goes.

    A decision has "kept", a bit per atom; "loss", the share of its score by "criterion"; and "why", where nothing goes.
    """

    options: PruneChannels

    def __init__(self, model: ir.Model, options: PruneChannels, ctx: Context) -> None:
        modes: tuple[Mode, ...] = ("rows", "columns") if options.mode == "both" else (options.mode,)
        super().__init__(model, options, ctx, modes=modes, allow_outputs=options.allow_output)
        timed = ctx.timed and (ctx.target is None or ctx.target.executed_here)
        self.goal = Goal(options, self.modes, self.original, self._milliseconds, timed=timed)

    def reader(self, slot: Slot) -> ir.Node:
        """The first node that reads an initializer, in the model being rewritten."""
        node = slot.use[0] if slot.use is not None else next(iter(slot.initializer.uses())).node
        return self._nodes.get(node, node)

    # -- decisions ----------------------------------------------------------------------------------------------------

    @property
    def _facts(self) -> str:
        return ",".join(f"{p.id}:{p.family.width}x{p.family.cell_count}" for p in self.open)

    def _why_left(self, family: Family) -> str | None:
        if family.statistics and not self.options.statistics:
            return f"cutting it changes a statistic: {family.statistics[0].text}; statistics=true cuts it nevertheless"
        if family.width <= self.options.minimum:
            return f"it is {family.width} wide, and the minimum is {self.options.minimum}"
        return None

    def repair(self, alive: Array) -> Decision:
        """Weights and biases of what survives, repaired, and "remark", what came of it; empty without data or where none is asked for.

        It depends on all that goes: where sites are taken back later, it is made anew.
        """
        key = f"{self.options.name}/<repair>/{self._fingerprint}-{_digest(alive)}"
        return self._ctx.decisions.remember(key, lambda: self._repaired(alive))

    def _repaired(self, alive: Array) -> Decision:
        if self.repairer is None:
            return {"remark": ""}
        first: Repaired | None = self._known_choice.first
        if first is not None and not np.array_equal(first.student.alive, alive):
            first = None
        found = self.repairer.repaired(alive, self.options.repair, started=first)
        return {"remark": self.repairer.describe(found), **self.repairer.written(found)}

    def selection(self, alive: Array) -> str:
        """What came of choosing what goes, a line for each thing there is to say; "" where nothing was compared.

        It was chosen for all sites: where some are taken back later, it says so.
        """
        key = f"{self.options.name}/<selection>/{self._fingerprint}"
        found = self._ctx.decisions.remember(key, self._selected)
        part = "" if found["of"] == _digest(alive) else ", before some of it was taken back"
        return "\n".join(f"{line}{part}" for line in str(found["remark"]).splitlines())

    def _selected(self) -> Decision:
        choice = self._known_choice
        of = "" if choice.first is None else _digest(choice.first.student.alive)
        return {"remark": "\n".join(choice.describe()), "of": of}

    @property
    def _known_choice(self) -> Choice:
        """The choice where it was made in this build; where the widths were decided in an earlier one, nothing competes any more."""
        return self._choice if "_choice" in self.__dict__ else NO_CHOICE

    @functools.cached_property
    def repairer(self) -> Repairer | None:
        """What ranks by data and repairs; None where there are none or none are needed."""
        ctx, options = self._ctx, self.options
        if ctx.decisions.replaying or not has_data(ctx):
            return None
        needless = options.repair == "none" and options.loss is None
        if needless and self.criterion not in MEASURED and self.scope != "measured":
            return None
        return Repairer(self.propagation, ctx, self.layers)

    @property
    def seed(self) -> int:
        """Of random choices."""
        return self._ctx.seed

    def progress(self, fraction: float, what: str) -> None:
        """Tells what is being done."""
        self._ctx.progress(fraction, what)

    @property
    def criterion(self) -> str:
        """The criterion: with data "obs", without "group", unless it is given."""
        if self.options.criterion != "auto":
            return self.options.criterion
        return "obs" if has_data(self._ctx) else "group"

    @property
    def scope(self) -> str:
        """The scope: "measured" beside "family" where a budget leaves a choice and data can decide, unless it is given."""
        if self.options.scope != "auto":
            return self.options.scope
        return "measured" if has_data(self._ctx) and self.options.ratio is None else "family"

    def require_data(self) -> None:
        """Whether there are data, where an option needs them.

        Raises:
            UsageError: If not.
        """
        options = self.options
        needy = {
            f"criterion={options.criterion}": options.criterion in MEASURED,
            "scope=measured": options.scope == "measured",
            f"repair={options.repair}": options.repair not in ("auto", "none"),
            f"latency={options.latency}": options.latency is not None,
            f"loss={options.loss}": options.loss is not None,
        }
        target = self._ctx.target
        if options.latency is not None and target is not None and not target.executed_here:
            raise UsageError(
                f"{options.name}: latency={options.latency:g} is measured here, and {target.name} is not executed here; "
                "give macs instead"
            )
        self._require_data(needy)

    @functools.cached_property
    def _choice(self) -> Choice:
        """Which allocation it is to be, the repaired students that it was chosen by with it."""
        candidates = self._candidates()
        if not candidates:
            return NO_CHOICE
        return chosen(self, candidates)

    @functools.cached_property
    def _decided(self) -> Mapping[str, Decision]:
        found: dict[str, Decision] = {}
        for candidate, width in self._choice.widths.items():
            kept = np.isin(candidate.family.atoms, candidate.kept(width))
            why = "" if width < candidate.width else self._why_whole(candidate)
            found[candidate.id] = {
                "kept": np.packbits(kept),
                "loss": candidate.loss(width),
                "why": why,
                "criterion": self.criterion,
            }
        return found

    def _candidates(self) -> list[Candidate]:
        options, found = self.options, []
        for groups in self.modes:
            places = [place for place in self.open if place.groups is groups]
            families = tuple(place.family for place in places)
            seeds = {place.family: zlib.crc32(place.id.encode()) + self._ctx.seed for place in places}
            ranking = rankings(self.criterion, groups, families, self._ctx, self.repairer, seeds=seeds)
            step = steps(groups, families, self._ctx.target, options.round_to)
            for place in places:
                ranked = ranking[place.family]
                found.append(self._candidate(place, ranked.order, ranked.worth, step[place.family]))
        return found

    # -- budget -------------------------------------------------------------------------------------------------------

    def unreachable(self, least: float) -> UsageError:
        """The error where the budget cannot be met."""
        reasons = [place.refused for place in self.places if place.refused is not None]
        return self.goal.unreachable(
            least,
            cuttable=bool(self.open),
            statistics=not self.options.statistics and any(place.family.statistics for place in self.places),
            nothing=f"no family may be cut: {reasons[0]}"
            if reasons
            else f"there is no family to cut{self._why_none()}",
        )

    def _why_none(self) -> str:
        """The reason that most axes stay for, where none belongs to a family."""
        pins = [pin.reason.text for pin in self.modes[0].pinned if pin.reason.kind not in EVERYWHERE]
        return f": {collections.Counter(pins).most_common(1)[0][0]}" if pins else ""

    def _milliseconds(self, alive: Array | None) -> float:
        return self._latency_table.milliseconds(alive)

    @functools.cached_property
    def _latency_table(self) -> LatencyTable:
        """Measured on the first sample."""
        from irc.latency_table import LatencyTable

        ctx = self._ctx
        assert ctx.runner is not None
        return LatencyTable.measured(
            ctx.runner,
            self.modes[0],
            next(iter(ctx.data.samples())).feed,
            also=self.modes[1:],
            progress=lambda share: ctx.progress(share, "measuring operators"),
        )

    def _why_whole(self, candidate: Candidate) -> str:
        if self.goal.loss is not None and self.repairer is not None:
            if not self.repairer.batches.apart:
                return "all stay: what is lost cannot be told from a single sample; give more"
            if self._choice.name == UNREACHED:
                return (
                    f"all stay: narrower channels save less than {1 - SHARES[-1]:.0%} of the {self.goal.at(1.0).name}"
                )
            if not cut_only(self._choice.widths):
                held, loss = self.repairer.batches.held_samples, 100 * self.goal.loss
                return (
                    f"all stay: no cut is sure to lose at most {loss:.3g} %, as far as {held} samples held out can tell"
                )
            return "all stay: the loss allowed is better spent elsewhere"
        if self.goal.ratio is None and self.goal.is_met(None):
            return "the budget is met as it is"
        if candidate.allowed(candidate.least) >= candidate.width:
            if candidate.width <= candidate.step:
                return f"all {candidate.width} stay: no narrower width is a multiple of {candidate.step}"
            return f"all {candidate.width} stay: no less than {candidate.least} may"
        if candidate.step > 1:
            return f"all stay: its share is less than a step of {candidate.step}"
        return "all stay: its share is none"


def _digest(alive: Array) -> str:
    return f"{zlib.crc32(np.packbits(alive).tobytes()):08x}"
