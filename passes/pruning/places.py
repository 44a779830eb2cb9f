"""Families as sites: where they may be cut or why they may not, and what was decided of them.

The analysis is of a copy, so that the model can be cut by it later.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family, Mode, propagate
from irc.decisions import Decision
from irc.errors import UsageError
from irc.ir import snapshot
from irc.pass_base import Context, Site, Skip
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.decided import SiteDecisions
from irc.passes.pruning.goal import Goal
from irc.passes.pruning.repair.weighted_layers import WeightedLayers
from irc.passes.pruning.survivors import surviving

if TYPE_CHECKING:
    from irc.passes.pruning.merging.merge_channels import MergeChannels
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

    def stays(self, decision: Decision) -> Array:
        """A boolean per atom: whether it stays, by the bits that are "kept"."""
        bits = np.unpackbits(np.asarray(decision["kept"]), count=len(self.family.atoms))
        return bits.astype(bool)


class FamilyDecisions(SiteDecisions):
    """The families of one model under one set of options.

    Args:
        model: The model to rewrite; unchanged.
        options: The pass.
        ctx: Target, data, decisions and selection.
        modes: What is cut of heads and groups.
        allow_outputs: Outputs of the model that may get narrower.

    Attributes:
        options: The pass.
        propagation: Labels of the copy.
        modes: Solved groups, one or two.
        goal: The budget.
        cutting: What is done to a model, in words.
    """

    options: PruneChannels | MergeChannels
    goal: Goal
    cutting: ClassVar[str] = "pruned"

    def __init__(
        self,
        model: ir.Model,
        options: PruneChannels | MergeChannels,
        ctx: Context,
        *,
        modes: Sequence[Mode] = ("rows",),
        allow_outputs: Sequence[str] = (),
    ) -> None:
        super().__init__(model, options, ctx)
        self.propagation = propagate(snapshot(model), allow_outputs=allow_outputs)
        self._nodes = dict(zip(self.propagation.model.graph, model.graph, strict=True))
        self.modes = [ChannelGroups(self.propagation, mode) for mode in modes]

    @functools.cached_property
    def layers(self) -> WeightedLayers:
        """Layers of the copy."""
        return WeightedLayers(self.propagation)

    @functools.cached_property
    def places(self) -> list[Place]:
        """All families, in order; those that both modes have once."""
        return list(self._found())

    @functools.cached_property
    def open(self) -> list[Place]:
        """Those that may be cut."""
        return [place for place in self.places if place.refused is None]

    def _found(self) -> Iterator[Place]:
        names: set[str] = set()
        for groups in self.modes:
            for family in groups.families:
                if groups is not self.modes[0] and _same_atoms(family, groups, self.modes[0]):
                    continue  # no rows to speak of: the first mode has it
                name = family.name if family.name not in names else f"{family.name}:{groups.mode}"
                names.add(name)
                node = self._nodes.get(family.node, family.node)
                refused = self._ctx.refuses(node, name)
                yield Place(name, node, groups, family, self._why_left(family) if refused is None else refused)

    @abc.abstractmethod
    def _why_left(self, family: Family) -> str | None:
        """Why a family that the user did not exclude must not be cut, or None."""

    def sites(self) -> Iterator[Site | Skip]:
        """The families that lose something, and why others do not.

        Raises:
            UsageError: If a budget cannot be met, or an option needs data and there are none.
        """
        if self.repeated:
            yield Skip(None, f"the model was {self.cutting} by these options before")
            return
        self.require_data()
        self.require_reachable()
        for place in self.places:
            if place.refused is not None:
                yield Skip(place.node, place.refused, place.id)
            elif why := str(self.decision(place)["why"]):
                yield Skip(place.node, why, place.id)
            else:
                yield Site(place.node, (self, place), place.id)

    # -- what goes ----------------------------------------------------------------------------------------------------

    def kept(self, place: Place) -> Array:
        """The atoms that stay."""
        atoms: Array = place.family.atoms[place.stays(self.decision(place))]
        return atoms

    def alive(self, places: Sequence[Place]) -> Array:
        """Which labels survive when these families lose what was decided."""
        return surviving(self.propagation, ((place.groups, place.family, self.kept(place)) for place in places))

    def _candidate(self, place: Place, order: Array, worth: Array, step: int, *, least: int = 1) -> Candidate:
        """A family by what its atoms are worth, within the limits of the options."""
        original = max(place.family.width, int(self.original.get("widths", {}).get(place.id, 0)))
        share = math.ceil(original * (1 - self.options.largest_cut) - 1e-9)
        least = max(self.options.minimum, share, least)
        return Candidate(place.id, place.groups, place.family, order, worth, original, least, step)

    # -- budget -------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def require_data(self) -> None:
        """Whether there are data, where an option needs them.

        Raises:
            UsageError: If not.
        """

    def require_reachable(self) -> None:
        """Whether there is anything to cut where a budget asks for it.

        Raises:
            UsageError: If not.
        """
        if not self.open and not self._ctx.decisions.replaying and not self.goal.is_met(None):
            raise self.unreachable(self.goal.cost(None))

    @abc.abstractmethod
    def unreachable(self, least: float) -> UsageError:
        """The error where the budget cannot be met, but only what is given."""

    def record_cut(self, alive: Array) -> str:
        """Keeps in the model, once it is cut, what it was, and says what is left of it, and of a budget that was missed."""
        costs = self.goal.costs
        text = self.record(
            macs=(costs.macs(), costs.macs(alive)),
            parameters=(costs.parameters(), costs.parameters(alive)),
            widths={place.id: place.family.width for place in self.places},
        )
        missed = not self._ctx.decisions.replaying and not self.goal.is_met(alive)
        return f"{text}, above {self.goal.text}, which was asked for" if missed else text


def _same_atoms(family: Family, groups: ChannelGroups, other: ChannelGroups) -> bool:
    """Whether another mode has the same atoms."""
    labels = np.isin(groups.class_of, family.atoms)
    return bool((groups.class_of[labels] == other.class_of[labels]).all())
