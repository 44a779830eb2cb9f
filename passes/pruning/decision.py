"""What goes of a model, decided for all its families at once: scores, shares, rounding and the budget put together."""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family, Mode, Propagation, Slot, propagate
from irc.analysis.channels.costs import ChannelCosts
from irc.decisions import Decision
from irc.errors import UsageError
from irc.ir import snapshot
from irc.options import format_call
from irc.pass_base import Context
from irc.passes.pruning import history
from irc.passes.pruning.allocation import Widths, allocation
from irc.passes.pruning.budget import meeting
from irc.passes.pruning.candidate import Candidate, ranked
from irc.passes.pruning.criteria import CRITERIA
from irc.passes.pruning.rounding import steps
from irc.passes.pruning.survivors import legal, of_widths

if TYPE_CHECKING:
    from irc.passes.pruning.prune_channels import PruneChannels

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """A family where it may be cut.

    Attributes:
        id: Of its site; also what its width is remembered by.
        node: The first node that reads one of its initializers, in the model being rewritten.
        groups: The groups of a mode.
        family: The family in them.
        refused: Why it must not be cut, or None.
    """

    id: str
    node: ir.Node
    groups: ChannelGroups
    family: Family
    refused: str | None


class Pruning:
    """One model under one set of options: what may be cut, and, once it is asked for, what goes.

    The analysis is of a copy, so that the model can be cut by it later.

    Args:
        model: The model to rewrite; unchanged.
        options: The pass.
        ctx: Target, decisions and selection.

    Attributes:
        model: The model to rewrite.
        propagation: Labels of the copy.
        modes: Solved groups, one or two.
        places: All families, in order.
        open: Those that may be cut.
        text: The pass with its options.
        original: What the model was before it was pruned first; see `history`.
        repeated: Whether it was pruned by the same options before.
    """

    def __init__(self, model: ir.Model, options: PruneChannels, ctx: Context) -> None:
        self.model, self._options, self._ctx = model, options, ctx
        self.original = history.original(model)
        self.propagation: Propagation = propagate(snapshot(model), allow_outputs=options.allow_output)
        self._nodes = dict(zip(self.propagation.model.graph, model.graph, strict=True))
        modes: tuple[Mode, ...] = ("rows", "columns") if options.mode == "both" else (options.mode,)
        self.modes = [ChannelGroups(self.propagation, mode) for mode in modes]
        self.places = list(self._places())
        self.text = format_call(options.name, options)
        self.open = [place for place in self.places if place.refused is None]
        self.repeated = history.is_repeated(self.original, self.text, (place.id for place in self.open))
        widths = ",".join(f"{p.id}:{p.family.width}x{p.family.cell_count}" for p in self.open)
        self._fingerprint = f"{zlib.crc32(f'{self.text};{widths}'.encode()):08x}"

    def _places(self) -> Iterator[Place]:
        first = self.modes[0]
        names: set[str] = set()
        for groups in self.modes:
            for family in groups.families:
                if groups is not first and _same_atoms(family, groups, first):
                    continue  # no rows to speak of: the first mode has it
                name = family.name if family.name not in names else f"{family.name}:{groups.mode}"
                names.add(name)
                node = self._nodes.get(family.node, family.node)
                yield Place(name, node, groups, family, self._why_left(family, node, name))

    def reader(self, slot: Slot) -> ir.Node:
        """The first node that reads an initializer, in the model being rewritten."""
        node = slot.use[0] if slot.use is not None else next(iter(slot.initializer.uses())).node
        return self._nodes.get(node, node)

    def _why_left(self, family: Family, node: ir.Node, name: str) -> str | None:
        options = self._options
        if (reason := self._ctx.refuses(node, name)) is not None:
            return reason
        if family.statistics and not options.statistics:
            return f"cutting it changes a statistic: {family.statistics[0].text}; statistics=true cuts it nevertheless"
        if family.width <= options.minimum:
            return f"it is {family.width} wide, and the minimum is {options.minimum}"
        return None

    # -- decisions ----------------------------------------------------------------------------------------------------

    def decision(self, place: Place) -> Decision:
        """What goes of a family: "kept", a bit per atom; "loss", the share of its score; and "why", where nothing does."""
        key = f"{self._options.name}/{place.id}/{self._fingerprint}"
        return self._ctx.decisions.remember(key, lambda: self._decided[place.id])

    def kept(self, place: Place) -> Array:
        """The atoms that stay."""
        bits = np.asarray(self.decision(place)["kept"])
        atoms: Array = place.family.atoms[np.unpackbits(bits, count=len(place.family.atoms)).astype(bool)]
        return atoms

    @functools.cached_property
    def _decided(self) -> Mapping[str, Decision]:
        candidates = self._candidates()
        widths: Widths = self._widths(candidates) if candidates else {}
        found: dict[str, Decision] = {}
        for candidate, width in widths.items():
            kept = np.isin(candidate.family.atoms, candidate.kept(width))
            why = "" if width < candidate.width else self._why_whole(candidate)
            found[candidate.id] = {"kept": np.packbits(kept), "loss": candidate.loss(width), "why": why}
        return found

    def _candidates(self) -> list[Candidate]:
        options, found = self._options, []
        known = self.original.get("widths", {})
        for groups in self.modes:
            places = [place for place in self.open if place.groups is groups]
            families = tuple(place.family for place in places)
            scores = CRITERIA[options.criterion](groups, self._ctx)
            step = steps(groups, families, self._ctx.target, options.round_to)
            for place in places:
                family = place.family
                seed = zlib.crc32(place.id.encode()) + self._ctx.seed
                order, worth = ranked(family, scores[family], seed=seed)
                original = max(family.width, int(known.get(place.id, 0)))
                least = max(options.minimum, math.ceil(original * (1 - options.largest_cut) - 1e-9))
                found.append(Candidate(place.id, groups, family, order, worth, original, least, step[family]))
        return found

    def _widths(self, candidates: Sequence[Candidate]) -> Widths:
        allocate = allocation(candidates, self._options.scope)
        for _ in range(8):
            wanted = self._wanted(candidates, allocate)
            widths = legal(self.propagation, wanted)
            if widths == wanted:
                break
        return widths

    def _wanted(self, candidates: Sequence[Candidate], allocate: Any) -> Widths:
        options = self._options
        if options.ratio is not None:
            found: Widths = allocate(options.ratio)
            return found

        def cost(widths: Widths) -> int:
            return self.cost(of_widths(self.propagation, widths))

        limit = self.budget * self.whole
        result = meeting(allocate, cost, limit)
        if result is None:
            raise UsageError(self._unreachable(cost(allocate(1.0))))
        return result

    # -- costs --------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def costs(self) -> ChannelCosts:
        """MACs and parameters of survivors."""
        return ChannelCosts(self.modes[0], also=self.modes[1:])

    @property
    def budget(self) -> float:
        """The share of MACs or parameters that is asked for."""
        asked = self._options.macs if self._options.macs is not None else self._options.parameters
        assert asked is not None
        return asked

    @property
    def whole(self) -> int:
        """What the budget is a share of: of the model as it was before it was pruned first."""
        if self._options.macs is not None:
            return int(self.original.get("macs", self.costs.macs()))
        return int(self.original.get("parameters", self.costs.parameters()))

    def cost(self, alive: Array | None) -> int:
        """What the budget counts, of survivors."""
        return self.costs.macs(alive) if self._options.macs is not None else self.costs.parameters(alive)

    @property
    def asked_text(self) -> str:
        """The budget as it was spelled."""
        return f"{'macs' if self._options.macs is not None else 'parameters'}={self.budget:g}"

    def misses(self, alive: Array) -> bool:
        """Whether survivors cost more than a budget asks for, as they do where families were left out later."""
        return self._options.ratio is None and self.cost(alive) > self.budget * self.whole

    def require_reachable(self) -> None:
        """Whether there is anything to cut where a budget asks for it.

        Raises:
            UsageError: If not.
        """
        if self._options.ratio is None and not self.open and self.cost(None) > self.budget * self.whole:
            raise UsageError(self._unreachable(self.cost(None)))

    def _unreachable(self, least: int) -> str:
        options = self._options
        helping = {
            "statistics=true": not options.statistics and any(place.family.statistics for place in self.places),
            "round_to=1": bool(self.open) and options.round_to != 1,
            "a larger largest_cut": bool(self.open),
        }
        advice = ", ".join(text for text, helps in helping.items() if helps)
        return f"{options.name}: {self.asked_text} cannot be reached, only {least / max(1, self.whole):.3g}; " + (
            f"ask for less, or allow more: {advice}" if advice else "there is no family to cut"
        )

    def _why_whole(self, candidate: Candidate) -> str:
        if self._options.ratio is None and self.cost(None) <= self.budget * self.whole:
            return "the budget is met as it is"
        if candidate.allowed(candidate.least) >= candidate.width:
            if candidate.width <= candidate.step:
                return f"all {candidate.width} stay: no narrower width is a multiple of {candidate.step}"
            return f"all {candidate.width} stay: no less than {candidate.least} may"
        if candidate.step > 1:
            return f"all {candidate.width} stay: its share is less than a step of {candidate.step}"
        return f"all {candidate.width} stay: its share is none"


def _same_atoms(family: Family, groups: ChannelGroups, other: ChannelGroups) -> bool:
    """Whether another mode has the same atoms."""
    labels = np.isin(groups.class_of, family.atoms)
    return bool((groups.class_of[labels] == other.class_of[labels]).all())
