"""How many channels of every family are merged: as many as are alike, or as a budget asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irc.passes.pruning.allocation import Widths, allocation
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.goal_widths import GoalWidths
from irc.passes.pruning.measured_allocation import sensitivities
from irc.passes.pruning.survivors import legal, settled

if TYPE_CHECKING:
    from irc.passes.pruning.merging.decision import Merging

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


def merge_widths(
    candidates: Sequence[Candidate], merging: Merging, distance: Callable[[Widths], float] | None
) -> Widths:
    """Widths of all families under the options of the pass.

    Args:
        candidates: Families with the order in which their channels go.
        merging: Options and budget.
        distance: Of the model's outputs at some widths from what they were, on data; None without.

    Raises:
        UsageError: If a budget cannot be met.
    """
    options, goal, propagation = merging.options, merging.goal, merging.propagation
    if options.ratio is not None:
        ratio = options.ratio
        return settled(propagation, lambda: allocation(candidates, "family")(ratio))
    if not goal.budgeted:
        return settled(propagation, lambda: {c: c.allowed(c.least) for c in candidates})
    scope = options.scope
    if scope == "auto":
        scope = "measured" if distance is not None else "global"
    meeting = GoalWidths(candidates, goal, merging)
    ways: dict[str, Callable[[], Widths]] = {
        "family": lambda: meeting.by_share("family"),
        "global": lambda: _by_energy(meeting),
    }
    if scope != "measured":
        return settled(propagation, ways[scope])
    assert distance is not None
    if goal.is_met(None):
        return settled(propagation, ways["family"])
    found = sensitivities(candidates, lambda widths: distance(legal(propagation, widths)))
    ways["measured"] = lambda: meeting.by_sensitivity(found)
    return min((settled(propagation, way) for way in ways.values()), key=distance)


def _by_energy(meeting: GoalWidths) -> Widths:
    """By the energy that layers lose, more than in proportion."""
    twins = {c: dataclasses.replace(c, worth=compounded(c.worth)) for c in meeting.candidates}
    among = dataclasses.replace(meeting, candidates=list(twins.values()))
    widths = among.by_sensitivity({twin: float(twin.worth.sum()) for twin in among.candidates})
    return {candidate: widths[twin] for candidate, twin in twins.items()}
