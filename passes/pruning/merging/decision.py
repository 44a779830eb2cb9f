"""Which channels of a model are merged into which, decided for all its families at once."""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family, propagate
from irc.calibration.data import DataSource
from irc.channel_surgery import cut
from irc.decisions import Decision
from irc.errors import UsageError
from irc.ir import snapshot
from irc.options import format_call
from irc.pass_base import Context
from irc.passes.pruning import history
from irc.passes.pruning.allocation import Widths, cut_only
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.merging.channel_likeness import Replacements, measured
from irc.passes.pruning.merging.family_readers import FamilyReader, NotMergeable, family_readers
from irc.passes.pruning.merging.merge_edit import Merge, updates_of
from irc.passes.pruning.merging.merge_widths import MergeWidths
from irc.passes.pruning.merging.representatives import merge_path, representatives
from irc.passes.pruning.merging.weight_likeness import by_weights
from irc.passes.pruning.repair.repairer import Repairer
from irc.passes.pruning.repair.student import Student, write_update
from irc.passes.pruning.repair.weighted_layers import WeightedLayers
from irc.passes.pruning.rounding import steps
from irc.passes.pruning.survivors import of_widths, surviving

if TYPE_CHECKING:
    from irc.passes.pruning.merging.merge_channels import MergeChannels

Array = np.ndarray[Any, Any]
NONE_ALIKE = "no channel is like another one"


@dataclasses.dataclass(frozen=True, eq=False)
class MergePlace:
    """A family where channels may be merged.

    Attributes:
        id: Of its site.
        node: The node that makes it first, in the model being rewritten.
        family: The family.
        readers: The layers that read it.
        refused: Why nothing is to be merged, or None.
    """

    id: str
    node: ir.Node
    family: Family
    readers: Sequence[FamilyReader]
    refused: str | None


class Merging:
    """One model under one set of options.

    The analysis is of a copy, so that the model can be cut by it later.

    Args:
        model: The model to rewrite; unchanged.
        options: The pass.
        ctx: Target, data and decisions.

    Attributes:
        model: The model to rewrite.
        propagation: Labels of the copy.
        groups: Its families.
        layers: Its layers.
        nodes: Nodes of the model by those of the copy.
        places: All families, in order.
        open: Those whose channels may be merged.
        widths: How many channels go.
        text: The pass with its options.
        original: What the model was before it was pruned first; see `history`.
        repeated: Whether it was merged by the same options before.
    """

    def __init__(self, model: ir.Model, options: MergeChannels, ctx: Context) -> None:
        self.model, self.options, self._ctx = model, options, ctx
        self.original = history.original(model)
        self.propagation = propagate(snapshot(model))
        self.nodes = dict(zip(self.propagation.model.graph, model.graph, strict=True))
        self.groups = ChannelGroups(self.propagation, "rows")
        self.layers = WeightedLayers(self.propagation)
        self.places = [self._place(family) for family in self.groups.families]
        self.open = [place for place in self.places if place.refused is None]
        self.widths = MergeWidths(options, self.groups, self.original)
        self.text = format_call(options.name, options)
        self.repeated = history.is_repeated(self.original, self.text, (place.id for place in self.open))
        widths = ",".join(f"{place.id}:{place.family.width}" for place in self.open)
        self._fingerprint = f"{zlib.crc32(f'{self.text};{widths}'.encode()):08x}"
        self._unlike: dict[str, str] = {}

    def _place(self, family: Family) -> MergePlace:
        node = self.nodes.get(family.node, family.node)
        readers: Sequence[FamilyReader] = ()
        refused = self._ctx.refuses(node, family.name)
        if refused is None:
            try:
                readers = self._readers(family)
            except NotMergeable as reason:
                refused = str(reason)
        return MergePlace(family.name, node, family, readers, refused)

    def _readers(self, family: Family) -> Sequence[FamilyReader]:
        if family.statistics:
            raise NotMergeable(f"without one of its channels a statistic changes: {family.statistics[0].text}")
        if family.width <= self.options.minimum:
            raise NotMergeable(f"it is {family.width} wide, and the minimum is {self.options.minimum}")
        if family.cell_count > 1:
            raise NotMergeable(f"its channels lie in {family.cell_count} rows that must stay equally long")
        return family_readers(family, self.groups, self.layers)

    # -- decisions ----------------------------------------------------------------------------------------------------

    def decision(self, place: MergePlace) -> Decision:
        """What becomes of a family.

        "kept", a bit per atom; "into", the representative of every atom that goes; "scale i" and "offset i", a and b of each in
        reader i; "lost", the sum of what the layers lose of their output energy, "worst", the largest share of its energy that an
        atom loses; "unread", how many go with nothing to stand for them; and "why", where nothing goes.
        """
        key = f"{self.options.name}/{place.id}/{self._fingerprint}"
        return self._ctx.decisions.remember(key, lambda: self._decided[place.id])

    def kept(self, place: MergePlace) -> Array:
        """A boolean per atom: whether it stays."""
        bits = np.asarray(self.decision(place)["kept"])
        return np.unpackbits(bits, count=len(place.family.atoms)).astype(bool)

    def merges(self, place: MergePlace) -> list[Merge]:
        """The edit of each layer that reads a family."""
        return merges_of(place, self.decision(place))

    def alive(self, places: Sequence[MergePlace]) -> Array:
        """Which labels survive when these families lose what was decided."""
        return surviving(
            self.propagation, ((self.groups, place.family, place.family.atoms[self.kept(place)]) for place in places)
        )

    @property
    def _has_data(self) -> bool:
        return isinstance(self._ctx.data, DataSource) and self._ctx.runner is not None

    @property
    def by_data(self) -> bool:
        """Whether data say what is alike."""
        return self._has_data if self.options.likeness == "auto" else self.options.likeness == "data"

    def require_data(self) -> None:
        """Whether there are data, where an option needs them.

        Raises:
            UsageError: If not.
        """
        needy = {"likeness=data": self.options.likeness == "data", "scope=measured": self.options.scope == "measured"}
        for text, needs in needy.items():
            if needs and not self._has_data and not self._ctx.decisions.replaying:
                raise UsageError(f"{self.options.name}: {text} needs data; give --data")

    def require_reachable(self) -> None:
        """Whether there is a family to merge in where a budget asks for it.

        Raises:
            UsageError: If not.
        """
        if not self.open and not self._ctx.decisions.replaying:
            self.widths.of([], None)

    @functools.cached_property
    def _decided(self) -> Mapping[str, Decision]:
        repairer = Repairer(self.propagation, self._ctx, self.layers) if self.by_data and self.open else None
        replacements = self._replacements(repairer)
        candidates = self._candidates(replacements)
        distance = None if repairer is None else self._distance(repairer, candidates, replacements)
        widths = self.widths.of(list(candidates.values()), distance)
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
            repairer.moments.gather([reader.layer for place in self.open for reader in place.readers])
        for number, place in enumerate(self.open):
            self._ctx.progress(number / len(self.open), f"comparing channels of {place.id}")
            try:
                if repairer is not None:
                    found[place.id] = measured(place.readers, repairer.moments)
                else:
                    found[place.id] = by_weights(place.family, self.groups, self.layers, place.readers)
            except NotMergeable as reason:
                self._unlike[place.id] = str(reason)
        return found

    def _possible(self, replacements: Replacements) -> Array:
        threshold = self.options.threshold
        return replacements.lost if threshold is None else replacements.alike(threshold)

    def _candidates(self, replacements: Mapping[str, Replacements]) -> dict[str, Candidate]:
        options, known, found = self.options, self.original.get("widths", {}), {}
        places = [place for place in self.open if place.id in replacements]
        families = tuple(place.family for place in places)
        step = steps(self.groups, families, self._ctx.target, options.round_to)
        for place in places:
            family = place.family
            path = merge_path(self._possible(replacements[place.id]))
            original = max(family.width, int(known.get(place.id, 0)))
            least = max(options.minimum, math.ceil(original * (1 - options.largest_cut) - 1e-9), path.least)
            worth = np.where(np.isinf(path.added), np.max(path.added, where=~np.isinf(path.added), initial=1.0), 0.0)
            worth = np.where(np.isinf(path.added), worth, path.added)
            order = family.atoms[path.order][None]
            found[place.id] = Candidate(place.id, self.groups, family, order, worth, original, least, step[family])
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
                merges += merges_of(place, found)
            model, alive = snapshot(self.propagation.model), of_widths(self.propagation, widths)
            self.edit(model, merges, alive)
            return repairer.distance(model)

        return distance

    def edit(
        self, model: ir.Model, merges: Sequence[Merge], alive: Array, *, proof: Callable[[], None] | None = None
    ) -> None:
        """Cuts a model that is as the analysed one was, and writes what the layers that read merged channels become.

        Args:
            model: Changed.
            merges: Of all families, reader by reader.
            alive: What survives.
            proof: Called behind the cut, before anything is written.
        """
        updates = updates_of(merges)
        cut(model, self.propagation, alive)
        if proof is not None:
            proof()
        student = Student(model, alive)
        for update in updates:
            write_update(student, update, self.layers)

    def _merged(
        self, place: MergePlace, replacements: Replacements, candidate: Candidate, width: int
    ) -> dict[str, Any]:
        kept = np.isin(place.family.atoms, candidate.kept(width))
        gone, into = representatives(self._possible(replacements), kept)
        if not len(gone) or (into < 0).any():
            return _nothing(place, self._why_whole(candidate))
        found: dict[str, Any] = {"kept": np.packbits(kept), "into": into, "why": ""}
        standing = np.zeros(len(gone), dtype=bool)
        for i, (reader, likeness) in enumerate(zip(place.readers, replacements.likenesses, strict=True)):
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
        if self.widths.budgeted and self.widths.is_met():
            return "the budget is met as it is"
        return f"all {candidate.width} stay: its share is none, or less than a step of {candidate.step}"


def merges_of(place: MergePlace, decision: Decision) -> list[Merge]:
    """The edit of each layer that reads a family, by what was decided of it; none where it stays as it is."""
    if decision["why"]:
        return []
    kept = np.unpackbits(np.asarray(decision["kept"]), count=len(place.family.atoms)).astype(bool)
    gone, into = np.flatnonzero(~kept), np.asarray(decision["into"])
    return [
        Merge(reader, gone, into, np.asarray(decision[f"scale {i}"]), np.asarray(decision[f"offset {i}"]))
        for i, reader in enumerate(place.readers)
    ]


def _nothing(place: MergePlace, why: str) -> dict[str, Any]:
    """A decision that leaves a family as it is."""
    return {"kept": np.packbits(np.ones(len(place.family.atoms), dtype=bool)), "lost": 0.0, "worst": 0.0, "why": why}
