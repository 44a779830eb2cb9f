"""What goes of a model, decided for all its families at once: scores, shares, rounding and the budget put together."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Mode, Propagation, Slot, propagate
from irc.calibration.data import DataSource
from irc.decisions import Decision
from irc.errors import UsageError
from irc.ir import snapshot
from irc.options import format_call
from irc.pass_base import Context
from irc.passes.pruning import history
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.choice import NO_CHOICE, Choice, chosen
from irc.passes.pruning.criteria import MEASURED, rankings
from irc.passes.pruning.goal import Goal
from irc.passes.pruning.places import Place, places_of
from irc.passes.pruning.repair.repairer import Repairer
from irc.passes.pruning.repair.weighted_layers import WeightedLayers
from irc.passes.pruning.rounding import steps

if TYPE_CHECKING:
    from irc.latency_table import LatencyTable
    from irc.passes.pruning.prune_channels import PruneChannels

Array = np.ndarray[Any, Any]


class Pruning:
    """One model under one set of options: what may be cut, and, once it is asked for, what goes.

    The analysis is of a copy, so that the model can be cut by it later.

    Args:
        model: The model to rewrite; unchanged.
        options: The pass.
        ctx: Target, decisions and selection.

    Attributes:
        model: The model to rewrite.
        options: The pass.
        propagation: Labels of the copy.
        modes: Solved groups, one or two.
        places: All families, in order.
        open: Those that may be cut.
        goal: The budget.
        text: The pass with its options.
        original: What the model was before it was pruned first; see `history`.
        repeated: Whether it was pruned by the same options before.
    """

    def __init__(self, model: ir.Model, options: PruneChannels, ctx: Context) -> None:
        self.model, self.options, self._ctx = model, options, ctx
        self.original = history.original(model)
        self.propagation: Propagation = propagate(snapshot(model), allow_outputs=options.allow_output)
        self._nodes = dict(zip(self.propagation.model.graph, model.graph, strict=True))
        modes: tuple[Mode, ...] = ("rows", "columns") if options.mode == "both" else (options.mode,)
        self.modes = [ChannelGroups(self.propagation, mode) for mode in modes]
        self.places = list(places_of(self.modes, self._nodes, options, ctx))
        self.text = format_call(options.name, options)
        timed = ctx.target is None or ctx.target.executed_here
        self.goal = Goal(options, self.modes, self.original, self._milliseconds, timed=timed)
        self.open = [place for place in self.places if place.refused is None]
        self.repeated = history.is_repeated(self.original, self.text, (place.id for place in self.open))
        widths = ",".join(f"{p.id}:{p.family.width}x{p.family.cell_count}" for p in self.open)
        self._fingerprint = f"{zlib.crc32(f'{self.text};{widths}'.encode()):08x}"

    def reader(self, slot: Slot) -> ir.Node:
        """The first node that reads an initializer, in the model being rewritten."""
        node = slot.use[0] if slot.use is not None else next(iter(slot.initializer.uses())).node
        return self._nodes.get(node, node)

    # -- decisions ----------------------------------------------------------------------------------------------------

    def decision(self, place: Place) -> Decision:
        """What goes of a family: "kept", a bit per atom; "loss", the share of its score by "criterion"; "why", where nothing does."""
        key = f"{self.options.name}/{place.id}/{self._fingerprint}"
        return self._ctx.decisions.remember(key, lambda: self._decided[place.id])

    def kept(self, place: Place) -> Array:
        """The atoms that stay."""
        bits = np.asarray(self.decision(place)["kept"])
        atoms: Array = place.family.atoms[np.unpackbits(bits, count=len(place.family.atoms)).astype(bool)]
        return atoms

    def repair(self, alive: Array) -> Decision:
        """Weights and biases of what survives, repaired, and "remark", what came of it; empty without data or where none is asked for.

        It depends on all that goes: where sites are taken back later, it is made anew.
        """
        digest = zlib.crc32(np.packbits(alive).tobytes())
        key = f"{self.options.name}/<repair>/{self._fingerprint}-{digest:08x}"
        return self._ctx.decisions.remember(key, lambda: self._repaired(alive))

    def _repaired(self, alive: Array) -> Decision:
        if self.repairer is None:
            return {"remark": ""}
        # Where the widths were decided in an earlier build, nothing competes any more.
        choice: Choice = self.__dict__.get("_choice") or NO_CHOICE
        first = choice.first if choice.first is not None and np.array_equal(choice.first.student.alive, alive) else None
        found = self.repairer.repaired(alive, self.options.repair, started=first)
        return {"remark": choice.remark(found, self.repairer), **self.repairer.written(found)}

    @functools.cached_property
    def layers(self) -> WeightedLayers:
        """Layers of the copy, for writing repaired weights."""
        return WeightedLayers(self.propagation)

    @functools.cached_property
    def repairer(self) -> Repairer | None:
        """What ranks by data and repairs; None where there are none or none are needed."""
        ctx, options = self._ctx, self.options
        if ctx.decisions.replaying or ctx.runner is None or not isinstance(ctx.data, DataSource):
            return None
        needless = options.repair == "none" and options.loss is None
        if needless and self.criterion not in MEASURED and self.scope != "measured":
            return None
        return Repairer(self.propagation, ctx, self.layers)

    @property
    def _has_data(self) -> bool:
        return isinstance(self._ctx.data, DataSource) and self._ctx.runner is not None

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
        return "obs" if self._has_data else "group"

    @property
    def scope(self) -> str:
        """The scope: "measured" beside "family" where a budget leaves a choice and data can decide, unless it is given."""
        if self.options.scope != "auto":
            return self.options.scope
        return "measured" if self._has_data and self.options.ratio is None else "family"

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
        for text, needs in needy.items():
            if needs and not self._has_data and not self._ctx.decisions.replaying:
                raise UsageError(f"{options.name}: {text} needs data; give --data")

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
        known = self.original.get("widths", {})
        for groups in self.modes:
            places = [place for place in self.open if place.groups is groups]
            families = tuple(place.family for place in places)
            seeds = {place.family: zlib.crc32(place.id.encode()) + self._ctx.seed for place in places}
            ranking = rankings(self.criterion, groups, families, self._ctx, self.repairer, seeds=seeds)
            step = steps(groups, families, self._ctx.target, options.round_to)
            for place in places:
                family = place.family
                original = max(family.width, int(known.get(place.id, 0)))
                least = max(options.minimum, math.ceil(original * (1 - options.largest_cut) - 1e-9))
                order, worth = ranking[family].order, ranking[family].worth
                found.append(Candidate(place.id, groups, family, order, worth, original, least, step[family]))
        return found

    # -- budget -------------------------------------------------------------------------------------------------------

    def require_reachable(self) -> None:
        """Whether there is anything to cut where a budget asks for it.

        Raises:
            UsageError: If not.
        """
        if not self.open and not self.goal.is_met(None):
            raise self.unreachable(self.goal.cost(None))

    def unreachable(self, least: float) -> UsageError:
        """The error where the budget cannot be met."""
        statistics = any(place.family.statistics for place in self.places)
        reasons = dict.fromkeys(place.refused for place in self.places if place.refused is not None)
        refused = "" if self.open else next(iter(reasons), "")
        return self.goal.unreachable(least, statistics=statistics, cuttable=bool(self.open), refused=refused)

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
        if self.goal.loss is not None and self.repairer is not None and not self.repairer.batches.apart:
            return f"all {candidate.width} stay: what is lost cannot be told from a single sample; give more"
        if self.goal.loss is not None:
            return f"all {candidate.width} stay: the loss allowed is better spent elsewhere"
        if self.goal.ratio is None and self.goal.is_met(None):
            return "the budget is met as it is"
        if candidate.allowed(candidate.least) >= candidate.width:
            if candidate.width <= candidate.step:
                return f"all {candidate.width} stay: no narrower width is a multiple of {candidate.step}"
            return f"all {candidate.width} stay: no less than {candidate.least} may"
        if candidate.step > 1:
            return f"all {candidate.width} stay: its share is less than a step of {candidate.step}"
        return f"all {candidate.width} stay: its share is none"
