"""Widths that meet a goal, by the same share of everything or by what the model minds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from irc.passes.pruning.allocation import Widths, allocation
from irc.passes.pruning.budget import meeting
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.goal import Goal
from irc.passes.pruning.measured_allocation import widths_by_sensitivity
from irc.passes.pruning.places import FamilyDecisions
from irc.passes.pruning.survivors import of_widths


@dataclasses.dataclass(frozen=True)
class GoalWidths:
    """Ways to meet a goal.

    Attributes:
        candidates: The families.
        goal: The budget.
        families: The model they are of.
    """

    candidates: Sequence[Candidate]
    goal: Goal
    families: FamilyDecisions

    def by_share(self, scope: str) -> Widths:
        """The smallest common share that is enough, what it takes from being compared within a scope.

        Raises:
            UsageError: If no share is.
        """
        allocate = allocation(self.candidates, scope)
        if self.goal.ratio is not None:
            return allocate(self.goal.ratio)
        found = meeting(allocate, self._cost, self.goal.limit)
        if found is None:
            raise self.families.unreachable(self._cost(allocate(1.0)))
        return found

    def by_sensitivity(self, sensitivity: Mapping[Candidate, float]) -> Widths:
        """Widths by what the model minds; by the same share of every family where that is not enough."""
        found = widths_by_sensitivity(self.candidates, sensitivity, self._cost, self.goal.limit)
        return found if found is not None else self.by_share("family")

    def _cost(self, widths: Widths) -> float:
        return self.goal.cost(of_widths(self.families.propagation, widths))
