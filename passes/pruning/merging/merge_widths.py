"""How many channels of every family are merged: as many as are alike, or as a budget asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irc.analysis.channels import ChannelGroups
from irc.analysis.channels.costs import ChannelCosts
from irc.errors import UsageError
from irc.passes.pruning.allocation import Widths, allocation
from irc.passes.pruning.budget import meeting
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.measured_allocation import sensitivities, widths_by_sensitivity
from irc.passes.pruning.survivors import legal, of_widths

if TYPE_CHECKING:
    from irc.passes.pruning.merging.merge_channels import MergeChannels

Array = np.ndarray[Any, Any]
COMPOUNDING = 1.5
"""Power of what a family loses: errors of channels with one representative add up, and no layer is to bear all."""


def compounded(worth: Array) -> Array:
    """What is lost from each channel on if the loss of a family counts by a power of the sum of what its channels lose.

    Args:
        worth: `[width]`: what is lost with each, those that go first last.
    """
    sums = np.cumsum(worth[::-1])[::-1] ** COMPOUNDING
    found: Array = sums - np.append(sums[1:], 0.0)
    return found


class MergeWidths:
    """Widths of all families under the options of the pass.

    Args:
        options: The pass.
        groups: The families.
        original: What the model was before it was pruned first; see `history`.
    """

    def __init__(self, options: MergeChannels, groups: ChannelGroups, original: Mapping[str, Any]) -> None:
        self._options, self._groups, self._original = options, groups, original
        budgets = {"macs": options.macs, "parameters": options.parameters}
        self._name, self._share = next(((k, v) for k, v in budgets.items() if v is not None), ("", 1.0))

    @functools.cached_property
    def costs(self) -> ChannelCosts:
        """MACs and parameters of survivors."""
        return ChannelCosts(self._groups)

    @property
    def budgeted(self) -> bool:
        """Whether there is a budget of MACs or parameters."""
        return bool(self._name)

    @property
    def text(self) -> str:
        """The budget as it was spelled."""
        return f"{self._name}={self._share:g}"

    @functools.cached_property
    def limit(self) -> float:
        """Largest cost."""
        return self._share * float(self._original.get(self._name) or self.cost(None))

    def cost(self, alive: Array | None) -> int:
        """What the budget counts."""
        return self.costs.parameters(alive) if self._name == "parameters" else self.costs.macs(alive)

    def is_met(self, alive: Array | None = None) -> bool:
        """Whether survivors are within the budget; always where there is none."""
        return not self.budgeted or self.cost(alive) <= self.limit

    def of(self, candidates: Sequence[Candidate], distance: Callable[[Widths], float] | None) -> Widths:
        """Widths of all families.

        Args:
            candidates: Families with the order in which their channels go.
            distance: Of the model's outputs at some widths from what they were, on data; None without.

        Raises:
            UsageError: If a budget cannot be met.
        """
        if not self.budgeted:
            return self._legal(lambda: self._without_budget(candidates))
        if not self.is_met() and not candidates:
            raise self._unreachable(self.cost(None), candidates)
        scope = self._options.scope
        if scope == "auto":
            scope = "measured" if distance is not None else "global"
        ways: dict[str, Callable[[], Widths]] = {
            "family": lambda: self._uniform(candidates),
            "global": lambda: self._by_energy(candidates),
        }
        if scope != "measured":
            return self._legal(ways[scope])
        assert distance is not None
        if self.is_met():
            return self._legal(ways["family"])
        found = sensitivities(candidates, lambda widths: distance(legal(self._groups.propagation, widths)))
        ways["measured"] = lambda: self._by_sensitivity(candidates, found)
        return min((self._legal(way) for way in ways.values()), key=distance)

    def _legal(self, wanted: Callable[[], Widths]) -> Widths:
        """Widths at which no value becomes empty: where one would, its best channel is ranked first, and widths are found anew."""
        for _ in range(8):
            asked = wanted()
            widths = legal(self._groups.propagation, asked)
            if widths == asked:
                break
        return widths

    def _without_budget(self, candidates: Sequence[Candidate]) -> Widths:
        if self._options.ratio is not None:
            return allocation(candidates, "family")(self._options.ratio)
        return {candidate: candidate.allowed(candidate.least) for candidate in candidates}

    def _uniform(self, candidates: Sequence[Candidate]) -> Widths:
        allocate = allocation(candidates, "family")
        widths = meeting(allocate, self._cost, self.limit)
        if widths is None:
            raise self._unreachable(self._cost(allocate(1.0)), candidates)
        return widths

    def _by_sensitivity(self, candidates: Sequence[Candidate], sensitivity: Mapping[Candidate, float]) -> Widths:
        widths = widths_by_sensitivity(candidates, sensitivity, self._cost, self.limit)
        return widths if widths is not None else self._uniform(candidates)

    def _by_energy(self, candidates: Sequence[Candidate]) -> Widths:
        """By the energy that layers lose, more than in proportion."""
        twins = {c: dataclasses.replace(c, worth=compounded(c.worth)) for c in candidates}
        widths = self._by_sensitivity(list(twins.values()), {t: float(t.worth.sum()) for t in twins.values()})
        return {candidate: widths[twin] for candidate, twin in twins.items()}

    def _cost(self, widths: Widths) -> int:
        return self.cost(of_widths(self._groups.propagation, widths))

    def _unreachable(self, least: float, candidates: Sequence[Candidate]) -> UsageError:
        whole = self.limit / self._share
        helping = {
            "round_to=1": bool(candidates) and self._options.round_to != 1,
            "a larger largest_cut": bool(candidates),
        }
        advice = ", ".join(text for text, helps in helping.items() if helps)
        return UsageError(
            f"{self._options.name}: {self.text} cannot be reached, only {least / max(1e-9, whole):.3g}; "
            + (f"ask for less, or allow more: {advice}" if advice else "there is no family to merge in")
        )
