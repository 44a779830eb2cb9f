"""Bounds by multipliers: pay for error and bytes instead of limiting them, and every site decides for itself.

For any multipliers the selection of the smallest score gives a lower bound of the cost within the budgets:

    score = q * cost + p * error + r * bytes        q * cost >= smallest score - p * error budget - r * byte budget

The best multipliers make it as tight as the linear relaxation (on the convex hulls of the options' cost over error). They
are met after a few steps, each through the intersection of the lines of the best selections known on either side of the
budget, in exact fractions.

Source: Handler and Zang 1980, Networks 10(4), doi 10.1002/net.3230100403 (the steps); Kellerer, Pferschy and Pisinger
2004, Knapsack Problems, chapter 11 (the relaxation).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from irc.search.instance import Instance, Option
from irc.search.stages import Stage
from irc.search.variants import Infeasible

# Any multipliers bound; more steps only make the bound tighter.
BYTE_STEPS = 40
MIXED_WEIGHTS = 8


class Multipliers(NamedTuple):
    """What the score of a selection weighs: cost, error and bytes; 0 or more."""

    cost: int
    error: int
    bytes: int

    def score(self, total: Option | Mixture) -> Fraction | int:
        """The score of sums."""
        return self.cost * total.cost + self.error * total.error + self.bytes * total.bytes


class Mixture(NamedTuple):
    """Two selections mixed so that the errors are what the budget allows."""

    cost: Fraction | int
    error: Fraction | int
    bytes: Fraction | int


@dataclasses.dataclass(frozen=True)
class Rest:
    """The smallest score of all that is still ahead, by stage and state, and the sums of the choices that have it.

    Attributes:
        scores: One list more than there are stages; the last is that of nothing ahead.
        totals: Likewise.
    """

    scores: list[list[int]]
    totals: list[list[Option]]


def rest(stages: Sequence[Stage], weights: Multipliers) -> Rest:
    """The smallest scores ahead.

    Args:
        stages: The sites.
        weights: The multipliers.
    """
    q, p, r = weights
    last = 1 + max((move.state for moves in stages[-1] for move in moves), default=0) if stages else 1
    scores, totals = [[0] * last], [[Option(0, 0, 0)] * last]
    for stage in reversed(stages):
        ahead, sums = scores[-1], totals[-1]
        of_states, of_sums = [], []
        for moves in stage:
            score, best = min(
                (q * move.cost + p * move.error + r * move.bytes + ahead[move.state], i) for i, move in enumerate(moves)
            )
            move = moves[best]
            after = sums[move.state]
            of_states.append(score)
            of_sums.append(Option(move.cost + after.cost, move.error + after.error, move.bytes + after.bytes))
        scores.append(of_states)
        totals.append(of_sums)
    return Rest(scores[::-1], totals[::-1])


class Relaxation:
    """The best multipliers of an instance, and the best selection met on the way.

    Args:
        instance: The choice.
        stages: Its sites.

    Attributes:
        best: The allowed selection of the lowest cost so far; None before the first.
    """

    def __init__(self, instance: Instance, stages: Sequence[Stage]) -> None:
        self.instance, self.stages = instance, stages
        self.best: Option | None = None

    def solve(self) -> Multipliers:
        """The best multipliers.

        Raises:
            Infeasible: If not even a mixture of selections keeps the budgets.
        """
        budget = self.instance.byte_budget
        found, low = self._within_error(1, 0)
        if low.bytes <= budget:
            return found
        _, high = self._within_error(0, 1)
        if high.bytes > budget:
            raise Infeasible(self._hopeless())
        for _ in range(BYTE_STEPS):
            weight = Fraction(high.cost - low.cost) / Fraction(low.bytes - high.bytes)
            found, met = self._within_error(weight.denominator, weight.numerator)
            if found.score(met) >= found.score(low):
                break
            low, high = (low, met) if met.bytes <= budget else (met, high)
        if self.best is None:
            self._mix()
        return found

    def neighbours(self) -> tuple[Option, Option | None]:
        """The selections of the convex hull of cost over error on either side of the error budget.

        Returns:
            The cheapest within the budget that a multiplier finds, and the next beyond it; None if there is none.

        Raises:
            Infeasible: If every selection has more error.
        """
        low, high, _ = self._bracket(1, 0)
        return (low, None) if high is None else (high, low)

    def _within_error(self, q: int, r: int) -> tuple[Multipliers, Mixture]:
        """Multipliers and the smallest mixture of `q * cost + r * bytes` within the error budget."""
        low, high, weights = self._bracket(q, r)
        if high is None:
            return weights, Mixture(low.cost, low.error, low.bytes)
        share = Fraction(self.instance.error_budget - high.error, low.error - high.error)
        mixed = (b + share * (a - b) for a, b in zip(low[:3], high[:3], strict=True))
        return weights, Mixture(*mixed)

    def _bracket(self, q: int, r: int) -> tuple[Option, Option | None, Multipliers]:
        budget = self.instance.error_budget
        weights = Multipliers(q, 0, r)
        low = self._smallest(weights)
        if low.error <= budget:
            return low, None, weights
        high = self._smallest(Multipliers(0, 1, 0))
        if high.error > budget:
            raise Infeasible(self._hopeless())
        while True:
            rise, run = q * (high.cost - low.cost) + r * (high.bytes - low.bytes), low.error - high.error
            weights = Multipliers(q * run, rise, r * run)
            met = self._smallest(weights)
            if weights.score(met) >= weights.score(low):
                return low, high, weights
            low, high = (low, met) if met.error <= budget else (met, high)

    def _smallest(self, weights: Multipliers) -> Option:
        total = rest(self.stages, weights).totals[0][0]
        if self.instance.allows(total) and (self.best is None or total.cost < self.best.cost):
            self.best = total
        return total

    def _mix(self) -> None:
        error, stored = max(1, self.instance.error_budget), max(1, self.instance.byte_budget)
        for share in range(MIXED_WEIGHTS + 1):
            self._smallest(Multipliers(0, share * stored, (MIXED_WEIGHTS - share) * error))

    def _hopeless(self) -> str:
        instance = self.instance
        error = sum(min(option.error for option in options) for options in instance.options)
        if error > instance.error_budget:
            return "the budget is below the least error there is; raise it or offer exacter variants"
        return "no selection keeps both the error and the byte budget; raise one of them or offer more variants"
