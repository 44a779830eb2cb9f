"""Which channels of a model are merged into which, decided for all its families at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Family
from irc.decisions import Decision
from irc.errors import UsageError
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.pruning.allocation import Widths, cut_only
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.decided import has_data
from irc.passes.pruning.goal import Goal
from irc.passes.pruning.merging.channel_likeness import Replacements, measured
from irc.passes.pruning.merging.family_readers import FamilyReader, NotMergeable, family_readers
from irc.passes.pruning.merging.merge_edit import Merge, write_merges
from irc.passes.pruning.merging.merge_widths import merge_widths
from irc.passes.pruning.merging.representatives import merge_path, representatives
from irc.passes.pruning.merging.weight_likeness import by_weights
from irc.passes.pruning.places import FamilyDecisions, Place
from irc.passes.pruning.repair.repairer import Repairer
from irc.passes.pruning.rounding import steps
from irc.passes.pruning.survivors import of_widths

if TYPE_CHECKING:
    from irc.passes.pruning.merging.merge_channels import MergeChannels

Array = np.ndarray[Any, Any]
NONE_ALIKE = "no channel is like another one"


class Merging(FamilyDecisions):
    """One model under one set of options.

    A decision has "kept", a bit per atom; "into", the representative of every atom that goes; "scale i" and "offset i", a and b of each
    in reader i; "lost", the sum of what the layers lose of their output energy; "worst", the largest share of its energy that an atom
    loses; "unread", how many go with nothing to stand for them; and "why", where nothing goes.
    """

    options: MergeChannels
    cutting = "merged"

    def __init__(self, model: ir.Model, options: MergeChannels, ctx: Context) -> None:
        super().__init__(model, options, ctx)
        (self._groups,) = self.modes
        self.goal = Goal(options, self.modes, self.original)
        self._readers: dict[Family, Sequence[FamilyReader]] = {}
        self._unlike: dict[str, str] = {}

    def _why_left(self, family: Family) -> str | None:
        if family.statistics:
            return f"without one of its channels a statistic changes: {family.statistics[0].text}"
        if family.width <= self.options.minimum:
            return f"it is {family.width} wide, and the minimum is {self.options.minimum}"
        if family.cell_count > 1:
            return f"its channels lie in {family.cell_count} rows that must stay equally long"
        try:
            self._readers[family] = family_readers(family, self._groups, self.layers)
        except NotMergeable as reason:
            return str(reason)
        return None

    @property
    def _facts(self) -> str:
        return ",".join(f"{place.id}:{place.family.width}" for place in self.open)

    def merges(self, place: Place, decision: Decision) -> list[Merge]:
        """The edit of each layer that reads a family, by what was decided of it; none where it stays as it is."""
        if decision["why"]:
            return []
        gone, into = np.flatnonzero(~place.stays(decision)), np.asarray(decision["into"])
        return [
            Merge(reader, gone, into, np.asarray(decision[f"scale {i}"]), np.asarray(decision[f"offset {i}"]))
            for i, reader in enumerate(self._readers[place.family])
        ]

    def require_data(self) -> None:
        """Whether there are data, where likeness or scope need them."""
        options = self.options
        self._require_data({"likeness=data": options.likeness == "data", "scope=measured": options.scope == "measured"})

    def unreachable(self, least: float) -> UsageError:
        """The error where the budget cannot be met."""
        cuttable = len(self._unlike) < len(self.open)
        nothing = next(iter(self._unlike.values()), "there is no family to merge in")
        return self.goal.unreachable(least, cuttable=cuttable, nothing=nothing)

    @functools.cached_property
    def _decided(self) -> Mapping[str, Decision]:
        by_data = has_data(self._ctx) if self.options.likeness == "auto" else self.options.likeness == "data"
        repairer = Repairer(self.propagation, self._ctx, self.layers) if by_data and self.open else None
        replacements = self._replacements(repairer)
        candidates = self._candidates(replacements)
        distance = None if repairer is None else self._distance(repairer, candidates, replacements)
        widths = merge_widths(list(candidates.values()), self, distance)
        found: dict[str, Decision] = {}
        for place in self.open:
            if place.id in candidates:
                candidate = candidates[place.id]
                found[place.id] = self._merged(place, replacements[place.id], candidate, widths[candidate])
            else:
                found[place.id] = _nothing(place, self._unlike[place.id])
        return found

    def _replacements(self, repairer: Repairer | None) -> dict[str, Replacements]:
        found: dict[str, Replacements] = {}
        if repairer is not None:
            repairer.moments.gather([reader.layer for place in self.open for reader in self._readers[place.family]])
        for number, place in enumerate(self.open):
            self._ctx.progress(number / len(self.open), f"comparing channels of {place.id}")
            readers = self._readers[place.family]
            try:
                if repairer is not None:
                    found[place.id] = measured(readers, repairer.moments)
                else:
                    found[place.id] = by_weights(place.family, place.groups, self.layers, readers)
            except NotMergeable as reason:
                self._unlike[place.id] = str(reason)
        return found

    def _possible(self, replacements: Replacements) -> Array:
        threshold = self.options.threshold
        return replacements.lost if threshold is None else replacements.alike(threshold)

    def _candidates(self, replacements: Mapping[str, Replacements]) -> dict[str, Candidate]:
        found: dict[str, Candidate] = {}
        places = [place for place in self.open if place.id in replacements]
        step = steps(self._groups, tuple(p.family for p in places), self._ctx.target, self.options.round_to)
        for place in places:
            path = merge_path(self._possible(replacements[place.id]))
            stays = np.isinf(path.added)
            worth = np.where(stays, np.max(path.added, where=~stays, initial=1.0), path.added)
            order = place.family.atoms[path.order][None]
            found[place.id] = self._candidate(place, order, worth, step[place.family], least=path.least)
        return found

    def _distance(
        self, repairer: Repairer, candidates: Mapping[str, Candidate], replacements: Mapping[str, Replacements]
    ) -> Callable[[Widths], float]:
        """The distance of the outputs at some widths."""
        by_id = {place.id: place for place in self.open}

        def distance(widths: Widths) -> float:
            merges: list[Merge] = []
            for candidate, width in cut_only(widths).items():
                place = by_id[candidate.id]
                found = self._merged(place, replacements[place.id], candidate, width)
                merges += self.merges(place, found)
            model = snapshot(self.propagation.model)
            write_merges(model, merges, of_widths(self.propagation, widths), self.layers)
            return repairer.distance(model)

        return distance

    def _merged(self, place: Place, replacements: Replacements, candidate: Candidate, width: int) -> dict[str, Any]:
        kept = np.isin(place.family.atoms, candidate.kept(width))
        gone, into = representatives(self._possible(replacements), kept)
        if not len(gone) or (into < 0).any():
            return _nothing(place, self._why_whole(candidate))
        found: dict[str, Any] = {"kept": np.packbits(kept), "into": into, "why": ""}
        standing = np.zeros(len(gone), dtype=bool)
        for i, (reader, likeness) in enumerate(zip(replacements.readers, replacements.likenesses, strict=True)):
            scale = likeness.scale[gone, into]
            offset = np.zeros((len(gone), reader.elements.shape[1]))
            if likeness.moments is not None:
                mean = likeness.moments.mean[reader.group]
                offset = mean[reader.elements[gone]] - scale[:, None] * mean[reader.elements[into]]
                offset[~reader.reads[gone]] = 0.0
            found |= {f"scale {i}": scale, f"offset {i}": offset}
            standing |= scale != 0
        found["lost"] = float(replacements.lost[gone, into].sum())
        found["worst"] = float(replacements.share(gone, into).max())
        found["unread"] = int((~standing).sum())
        return found

    def _why_whole(self, candidate: Candidate) -> str:
        if self.options.threshold is not None:
            alike = candidate.width - candidate.least
            if alike > 0:
                return f"{alike} of {candidate.width} could be merged, fewer than a step of {candidate.step}"
            return NONE_ALIKE
        if self.goal.budgeted and self.goal.is_met(None):
            return "the budget is met as it is"
        return "all stay: its share is none" + (
            f", or less than a step of {candidate.step}" if candidate.step > 1 else ""
        )


def _nothing(place: Place, why: str) -> dict[str, Any]:
    """A decision that leaves a family as it is."""
    return {"kept": np.packbits(np.ones(len(place.family.atoms), dtype=bool)), "lost": 0.0, "worst": 0.0, "why": why}
