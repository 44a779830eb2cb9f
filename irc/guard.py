"""The accuracy guard: take back approximate rewrites until the model is within its budget.

Sites go back in the order of their own output error, worst first. The number to take back is found by doubling and
bisection on the choice half of the held-out samples; the result must then hold on the acceptance half, which no choice
has seen, or more sites go back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from irc.application import SiteKey

if TYPE_CHECKING:
    from irc.judge import Assessment


@dataclasses.dataclass
class Candidate:
    """One model the guard considered.

    Attributes:
        denied: The rewrites taken back, with the reason.
        build: Whatever `build` returned for them.
        choice: Assessment on the choice half; None if it was not needed.
        acceptance: Assessment on the acceptance half; None if it was not reached.
    """

    denied: dict[SiteKey, str]
    build: Any
    choice: Assessment | None = None
    acceptance: Assessment | None = None


@dataclasses.dataclass
class Guarded:
    """The guard's decision.

    Attributes:
        candidate: The first candidate within budget.
        reverted: How many sites were taken back.
        total: How many there were.
        assessments: How many candidates were assessed.
        history: (sites taken back, loss on the choice half) of each candidate, in order.
    """

    candidate: Candidate
    reverted: int
    total: int
    assessments: int
    history: list[tuple[int, float]]


def guard(
    keys: Sequence[SiteKey],
    *,
    build: Callable[[dict[SiteKey, str]], Any],
    assess: Callable[[Any, str], Assessment],
    within: Callable[[Any, Assessment], bool],
    ranking: Callable[[Any], Sequence[tuple[SiteKey, float]]],
    progress: Callable[[float, str], None] = lambda fraction, what: None,
    taken_back: Callable[[SiteKey], str] = lambda key: "back to float: its output error",
) -> Guarded:
    """Finds the fewest sites, worst first, whose reversion brings the model within budget.

    Args:
        keys: All approximate rewrites.
        build: Builds the model without the given rewrites.
        assess: Assesses a build on "choice" or "acceptance".
        within: Whether a build with its assessment is within budget.
        ranking: Sites with their errors, worst first, given the full build; called at most once.
        progress: Told what is being tried.
        taken_back: How the reason of a rewrite that is begins, up to its error.
    """
    state = _Search(keys, build, assess, within, ranking, progress, taken_back)
    count = 0
    if not state.passes(0):
        count = state.smallest()
    total = len(keys)
    while count < total:
        candidate = state.candidate(count)
        candidate.acceptance = assess(candidate.build, "acceptance")
        if within(candidate.build, candidate.acceptance):
            break
        count = min(total, max(count + 1, count + count // 2))
    candidate = state.candidate(count)
    return Guarded(candidate, count, total, len(state.history), state.history)


class _Search:
    """Candidates by the number of sites taken back, each built and assessed once."""

    def __init__(
        self,
        keys: Sequence[SiteKey],
        build: Callable[[dict[SiteKey, str]], Any],
        assess: Callable[[Any, str], Assessment],
        within: Callable[[Any, Assessment], bool],
        ranking: Callable[[Any], Sequence[tuple[SiteKey, float]]],
        progress: Callable[[float, str], None],
        taken_back: Callable[[SiteKey], str],
    ) -> None:
        self._taken_back = taken_back
        self._keys, self._build, self._assess, self._within = keys, build, assess, within
        self._rank, self._progress = ranking, progress
        self._order: list[tuple[SiteKey, float]] | None = None
        self._full: Candidate | None = None
        self._last: tuple[int, Candidate] | None = None
        self.history: list[tuple[int, float]] = []

    def candidate(self, count: int) -> Candidate:
        if count == 0 and self._full is not None:
            return self._full
        if self._last is not None and self._last[0] == count:
            return self._last[1]
        if count == 0:
            self._full = Candidate({}, self._build({}))
            return self._full
        if self._order is None:
            assert self._full is not None
            self._order = list(self._rank(self._full.build))
        denied = {
            key: f"{self._taken_back(key)} {error:.2%} is among the {count} worst and the budget was missed"
            for key, error in self._order[:count]
        }
        self._last = (count, Candidate(denied, self._build(denied)))
        return self._last[1]

    def passes(self, count: int) -> bool:
        if count >= len(self._keys):
            return True
        self._progress(0.0, f"judging with {count} of {len(self._keys)} sites taken back")
        candidate = self.candidate(count)
        if candidate.choice is None:
            candidate.choice = self._assess(candidate.build, "choice")
            self.history.append((count, candidate.choice.loss))
        return self._within(candidate.build, candidate.choice)

    def smallest(self) -> int:
        """The smallest count that passes, assuming that more reversion never hurts."""
        total, low, high = len(self._keys), 0, 1
        while high < total and not self.passes(high):
            low, high = high, high * 2
        high = min(high, total)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.passes(middle) else (middle, high)
        return high
