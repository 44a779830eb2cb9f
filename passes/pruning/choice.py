"""Which widths it is to be: uniform ones, and those by measured sensitivity, repaired both, the better by measurement taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from irc.passes.pruning.allocation import Widths, allocation, cut_only
from irc.passes.pruning.budget import meeting
from irc.passes.pruning.candidate import Candidate
from irc.passes.pruning.measured_allocation import sensitivities, widths_by_sensitivity
from irc.passes.pruning.repair.repairer import Repaired, Repairer
from irc.passes.pruning.survivors import legal, of_widths

if TYPE_CHECKING:
    from irc.passes.pruning.decision import Pruning

Array = np.ndarray[Any, Any]
UNIFORM = "uniform"
MEASURED = "measured"


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """Widths, and what they were chosen by.

    Attributes:
        widths: Of all candidates.
        first: The student that it was chosen by; None where nothing competed.
        distances: Of the allocations that competed, repaired in one way, by name.
        name: The one taken; "" where none competed.
    """

    widths: Widths
    first: Repaired | None
    distances: Mapping[str, float]
    name: str

    def remark(self, found: Repaired, repairer: Repairer) -> str:
        """What selection and repair came to, in words."""
        kind, held = repairer.distance.describe(), repairer.batches.held_samples
        steps = ", ".join(f"{name} {distance:.3g}" for name, distance in found.steps.items())
        text = f"{kind} on {held} samples held out of {held + repairer.batches.fit_samples}: {steps}; {found.how} taken"
        if len(self.distances) > 1:
            text += "; widths " + ", ".join(f"{name} {d:.3g}" for name, d in self.distances.items())
        return text


NO_CHOICE = Choice({}, None, {}, "")


def chosen(pruning: Pruning, candidates: Sequence[Candidate]) -> Choice:
    """The best allocation of a pruning's scope; where it is "measured", uniform widths compete.

    Raises:
        UsageError: If a budget cannot be met.
    """
    measured = pruning.scope == MEASURED and pruning.goal.ratio is None
    scope = "family" if pruning.scope == MEASURED else pruning.scope
    plain = _legal(pruning, candidates, lambda: _by_share(pruning, candidates, scope))
    found = {UNIFORM if scope == "family" else scope: plain}
    if measured and cut_only(plain):
        assert pruning.repairer is not None
        sensitivity = sensitivities(candidates, lambda widths: _probed(pruning, widths))
        by_sensitivity = _legal(pruning, candidates, lambda: _by_sensitivity(pruning, candidates, sensitivity))
        if by_sensitivity != plain:
            found[MEASURED] = by_sensitivity
    if len(found) == 1:
        ((name, widths),) = found.items()
        return Choice(widths, None, {}, name)
    assert pruning.repairer is not None
    firsts = {
        name: pruning.repairer.first(of_widths(pruning.propagation, widths), pruning.options.repair)
        for name, widths in found.items()
    }
    distances = {name: first.distance for name, first in firsts.items()}
    best = min(distances, key=lambda name: distances[name])
    return Choice(found[best], firsts[best], distances, best)


def _legal(pruning: Pruning, candidates: Sequence[Candidate], wanted: Callable[[], Widths]) -> Widths:
    """Widths at which no value becomes empty: where one would, its best atom is ranked first, and the widths are found anew."""
    for _ in range(8):
        asked = wanted()
        widths = legal(pruning.propagation, asked)
        if widths == asked:
            break
    return widths


def _by_share(pruning: Pruning, candidates: Sequence[Candidate], scope: str) -> Widths:
    allocate = allocation(candidates, scope)
    if pruning.goal.ratio is not None:
        return allocate(pruning.goal.ratio)
    result = meeting(allocate, lambda widths: _cost(pruning, widths), pruning.goal.limit)
    if result is None:
        raise pruning.unreachable(_cost(pruning, allocate(1.0)))
    return result


def _by_sensitivity(
    pruning: Pruning, candidates: Sequence[Candidate], sensitivity: Mapping[Candidate, float]
) -> Widths:
    result = widths_by_sensitivity(candidates, sensitivity, lambda widths: _cost(pruning, widths), pruning.goal.limit)
    return result if result is not None else _by_share(pruning, candidates, "family")


def _probed(pruning: Pruning, widths: Widths) -> float:
    assert pruning.repairer is not None
    return pruning.repairer.probe(of_widths(pruning.propagation, legal(pruning.propagation, widths)))


def _cost(pruning: Pruning, widths: Widths) -> float:
    return pruning.goal.cost(of_widths(pruning.propagation, widths))
