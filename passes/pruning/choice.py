"""Which widths it is to be: uniform ones, and those by measured sensitivity, repaired both, the better by measurement taken."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irc.errors import UsageError
from irc.passes.pruning.allocation import Widths, cut_only
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.goal import Goal
from irc.passes.pruning.goal_widths import GoalWidths
from irc.passes.pruning.measured_allocation import PROBED, sensitivities
from irc.passes.pruning.repair.repairer import Repaired, Repairer, RepairName
from irc.passes.pruning.survivors import legal, of_widths, settled

if TYPE_CHECKING:
    from irc.passes.pruning.decision import Pruning

Array = np.ndarray[Any, Any]
UNIFORM = "uniform"
MEASURED = "measured"
UNREACHED = "unreached"
"""No widths met any share, so that nothing was there to be judged."""
SHARES = tuple(round(0.25 + 0.05 * step, 2) for step in range(15))
"""Of the time or the MACs, that a loss is looked for at: 0.25, 0.3, ... 0.95."""


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """Widths, and what they were chosen by.

    Attributes:
        widths: Of all candidates.
        first: The student that it was chosen by; None where nothing competed.
        distances: Of the allocations that competed, repaired in one way, by name.
        name: The one taken; "" where none competed, or `UNREACHED`.
        random: Distances of as many channels at random, cut alone and updated: what selection is worth.
    """

    widths: Widths
    first: Repaired | None
    distances: Mapping[str, float]
    name: str
    random: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def describe(self) -> Iterator[str]:
        """What selection came to, in words: a line each of channels at random and of the widths that competed."""
        if self.random:
            yield "selection: as many channels at random: " + ", ".join(f"{k} {d:.3g}" for k, d in self.random.items())
        if len(self.distances) > 1:
            tried = ", ".join(f"{name} {distance:.3g}" for name, distance in self.distances.items())
            yield f"widths, repaired in one way: {tried}; {self.name} taken"


NO_CHOICE = Choice({}, None, {}, "")


def chosen(pruning: Pruning, candidates: Sequence[Candidate]) -> Choice:
    """The best allocation of a pruning's scope; where it is "measured", uniform widths compete.

    Raises:
        UsageError: If a budget cannot be met.
    """
    chooser = _Chooser(pruning, candidates)
    return chooser.with_random(chooser.by_loss() if pruning.goal.loss is not None else chooser.best(pruning.goal))


class _Chooser:
    """Allocations of some candidates, compared by the students they give."""

    def __init__(self, pruning: Pruning, candidates: Sequence[Candidate]) -> None:
        self._pruning, self._candidates = pruning, candidates
        self._probes = 0

    @functools.cached_property
    def _sensitivities(self) -> dict[str, dict[Candidate, float]]:
        """By name of the allocation that it leads to."""
        return {
            f"{MEASURED} at {share:g}": sensitivities(self._candidates, self._probed, share=share)
            for share in self._shares
        }

    @property
    def _shares(self) -> tuple[float, ...]:
        """At which families are tried alone."""
        return PROBED if self._repairer.effort.thorough else PROBED[:1]

    @property
    def _repairer(self) -> Repairer:
        assert self._pruning.repairer is not None
        return self._pruning.repairer

    @property
    def _repairs(self) -> bool:
        """Whether what is chosen is repaired, so that it is worth telling what choosing was."""
        return self._pruning.repairer is not None and self._pruning.options.repair != "none"

    def best(self, goal: Goal) -> Choice:
        """The best allocation that meets a goal.

        Raises:
            UsageError: If none does.
        """
        measured = self._pruning.scope == MEASURED and goal.ratio is None
        scope = "family" if self._pruning.scope == MEASURED else self._pruning.scope
        propagation, meeting = self._pruning.propagation, GoalWidths(self._candidates, goal, self._pruning)
        plain = settled(propagation, lambda: meeting.by_share(scope))
        found = {UNIFORM if scope == "family" else scope: plain}
        if measured and cut_only(plain):
            for name, sensitivity in self._sensitivities.items():
                widths = settled(propagation, functools.partial(meeting.by_sensitivity, sensitivity))
                if widths not in found.values():
                    found[name] = widths
        if len(found) == 1 and goal.loss is None and not self._repairs:
            ((name, widths),) = found.items()
            return Choice(widths, None, {}, name)
        # Making one legal may have ranked an atom first that another lost: all are looked at again.
        found = {name: legal(propagation, widths) for name, widths in found.items()}
        alive = [of_widths(propagation, widths) for widths in found.values()]
        firsts = dict(zip(found, self._repairer.firsts(alive, self._pruning.options.repair), strict=True))
        distances = {name: first.distance for name, first in firsts.items()}
        best = min(distances, key=lambda name: distances[name])
        return Choice(found[best], firsts[best], distances, best)

    def with_random(self, choice: Choice) -> Choice:
        """A choice beside the same widths of random channels."""
        if choice.first is None or self._pruning.criterion == "random":
            return choice
        rng = np.random.default_rng(self._pruning.seed)
        shuffled = {
            dataclasses.replace(c, order=rng.permuted(c.order, axis=1)): width for c, width in choice.widths.items()
        }
        widths = legal(self._pruning.propagation, shuffled)
        method: RepairName = "update" if len(choice.first.steps) > 1 else "none"
        (found,) = self._repairer.firsts([of_widths(self._pruning.propagation, widths)], method)
        return dataclasses.replace(choice, random=found.steps)

    def by_loss(self) -> Choice:
        """The best allocation of the smallest share whose expected loss is small enough; everything where none is.

        Everything also where no sample is held out to tell by. Larger shares are taken to lose less: the share is found by bisection.
        """
        goal = self._pruning.goal
        assert goal.loss is not None
        found: Choice | None = None
        whole = {candidate: candidate.width for candidate in self._candidates}
        if not self._repairer.batches.apart:
            return Choice(whole, None, {}, "")
        name = UNREACHED
        low, high = 0, len(SHARES)  # SHARES[high:] lose little enough; of SHARES[:low] nothing is known
        while low < high:
            middle = (low + high) // 2
            try:
                choice = self.best(goal.at(SHARES[middle]))
            except UsageError:
                low = middle + 1
                continue
            assert choice.first is not None
            name = ""
            if self._repairer.keeps(choice.first.student, goal.loss):
                found, high = choice, middle
            else:
                low = middle + 1
        return found or Choice(whole, None, {}, name)

    def _probed(self, widths: Widths) -> float:
        propagation, probes = self._pruning.propagation, len(self._shares) * len(self._candidates)
        (candidate,) = widths
        self._pruning.progress(self._probes / probes, f"trying the outputs without part of {candidate.id}")
        self._probes += 1
        alive = of_widths(propagation, legal(propagation, widths))
        return self._repairer.probe(alive, probes=probes)
