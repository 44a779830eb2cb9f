"""Partial selections, extended site by site until the best whole one is proven.

A partial selection is dropped if another in the same state has no more cost, error and bytes, and if the smallest score it
can get to (irc.search.relaxation) says that it cannot become cheaper than the best selection known. Each is completed at
once by the choices of that score, which soon gives a best selection that leaves little to extend. Without couplings the
sites whose best and second best scores are closest go first (the core): as soon as the second best of a site leads to the
best known cost or beyond, so do those of all later sites, and the search is over.

Source: Sinha and Zoltners 1979, Operations Research 27(3), doi 10.1287/opre.27.3.503 (dominance); Pisinger 1995, European
Journal of Operational Research 83(2), doi 10.1016/0377-2217(95)00015-I (the core).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple

from irc.search.bound_grid import BoundGrid
from irc.search.instance import Instance
from irc.search.relaxation import Multipliers, Relaxation, rest
from irc.search.stages import Stage
from irc.search.variants import Infeasible

# How many partial selections of a site are extended once the limit is reached.
BEAM = 64
# Most choices need fewer partial selections than this; the others are worth the preparation of better bounds.
EASY = 1000


class Partial(NamedTuple):
    """Choices for the first sites.

    Attributes:
        bound: The smallest score of a selection that begins with them.
        cost: Sum of their costs.
        score: Their score.
        error: Sum of their errors.
        bytes: Sum of their bytes.
        state: Where they lead.
    """

    bound: int
    cost: int
    score: int
    error: int
    bytes: int
    state: int


def cheapest(instance: Instance, stages: Sequence[Stage], *, known: int | None = None, limit: int) -> tuple[int, int]:
    """The lowest cost of a selection within the budgets.

    Args:
        instance: The choice.
        stages: Its sites.
        known: Cost of a selection that is known to be allowed.
        limit: After so many partial selections only the most promising are extended.

    Returns:
        The lowest cost found, and one below which there is none; the same if the first is the optimum.

    Raises:
        Infeasible: If there is no such selection, or none was found within the limit.
    """
    relaxation = Relaxation(instance, stages)
    weights = relaxation.solve()
    if relaxation.best is not None and (known is None or relaxation.best.cost < known):
        known = relaxation.best.cost
    search = _Search(instance, stages, weights, known, limit)
    least = search.run()
    if search.best is None:
        proof = "no selection keeps" if search.complete else f"none of the first {limit} partial selections keeps"
        raise Infeasible(f"{proof} both the error and the byte budget; raise one of them or offer more variants")
    return search.best, least


class _Search:
    def __init__(
        self, instance: Instance, stages: Sequence[Stage], weights: Multipliers, known: int | None, limit: int
    ) -> None:
        self._instance, self._weights, self._limit = instance, weights, limit
        self._hesitations: list[int | None] = [0] * len(stages)
        self._stages = list(stages)
        if not instance.conversions:
            hesitant = [(_hesitation(stage, weights), stage) for stage in stages]
            hesitant.sort(key=lambda pair: (pair[0] is None, pair[0] or 0))
            self._hesitations = [hesitation for hesitation, _ in hesitant]
            self._stages = [stage for _, stage in hesitant]
        self._ahead = rest(self._stages, weights)
        self._least_error = rest(self._stages, Multipliers(0, 1, 0)).scores
        self._least_bytes = rest(self._stages, Multipliers(0, 0, 1)).scores
        self._grid: BoundGrid | None = None
        self._made = 0
        self.complete = True
        self.best: int | None = None
        dearest = sum(max(option.cost for option in options) for options in instance.options)
        self._ceiling = 0
        self._cap(1 + dearest + sum(instance.conversions.values()))
        if known is not None:
            self._take(known)

    def run(self) -> int:
        """Searches, and returns a cost below which there is no selection."""
        dropped: int | None = None
        partials = [Partial(self._ahead.scores[0][0], 0, 0, 0, 0, 0)]
        for stage, hesitation in enumerate(self._hesitations):
            partials = [partial for partial in partials if partial.bound < self._ceiling]
            if not partials or hesitation is None or partials[0].bound + hesitation >= self._ceiling:
                break
            extended: list[list[Partial]] = [[] for _ in self._ahead.scores[stage + 1]]
            for number, partial in enumerate(partials):
                if partial.bound >= self._ceiling:
                    break
                if self._made >= self._limit and number >= BEAM:
                    # They are in the order of their bounds.
                    dropped = partial.bound if dropped is None else min(dropped, partial.bound)
                    self.complete = False
                    break
                self._extend(stage, partial, extended)
            if self._grid is None and self._made > EASY:
                self._grid = BoundGrid(self._instance, self._stages, self._weights)
            partials = sorted(partial for of_state in extended for partial in _undominated(of_state))
        if self.best is None:
            return 0
        if dropped is None or dropped >= self._ceiling:
            return self.best
        # The smallest whole cost that is not below the bound.
        price = self._ceiling - self._weights.cost * self.best
        return min(self.best, -((price - dropped) // self._weights.cost))

    def _extend(self, stage: int, partial: Partial, extended: list[list[Partial]]) -> None:
        instance = self._instance
        q, p, r = self._weights
        scores, totals = self._ahead.scores[stage + 1], self._ahead.totals[stage + 1]
        least_error, least_bytes = self._least_error[stage + 1], self._least_bytes[stage + 1]
        for cost, error, stored, state in self._stages[stage][partial.state]:
            score = partial.score + q * cost + p * error + r * stored
            bound = score + scores[state]
            if bound >= self._ceiling:
                continue
            cost, error, stored = partial.cost + cost, partial.error + error, partial.bytes + stored
            if error + least_error[state] > instance.error_budget or stored + least_bytes[state] > instance.byte_budget:
                continue
            self._made += 1
            after = totals[state]
            if error + after.error <= instance.error_budget and stored + after.bytes <= instance.byte_budget:
                self._take(cost + after.cost)
            if self._grid is not None:
                least, whole = self._grid.bound(stage + 1, state, cost, error, stored)
                if whole is not None:
                    self._take(whole)
                if self.best is not None and least >= self.best:
                    continue
            extended[state].append(Partial(bound, cost, score, error, stored, state))

    def _take(self, cost: int) -> None:
        if self.best is None or cost < self.best:
            self.best = cost
            self._cap(cost)

    def _cap(self, cost: int) -> None:
        """From this bound on a partial selection cannot become cheaper than `cost`."""
        weights, instance = self._weights, self._instance
        self._ceiling = (
            weights.cost * cost + weights.error * instance.error_budget + weights.bytes * instance.byte_budget
        )


def _hesitation(stage: Stage, weights: Multipliers) -> int | None:
    """How far the second best score of a site is behind the best; None without a second."""
    scores = sorted(weights.cost * m.cost + weights.error * m.error + weights.bytes * m.bytes for m in stage[0])
    return scores[1] - scores[0] if len(scores) > 1 else None


def _undominated(partials: list[Partial]) -> list[Partial]:
    """Those that no other of the same state beats in cost, error and bytes at once."""
    kept: list[Partial] = []
    # Errors and bytes of those kept that are best in both: errors rise and bytes fall.
    errors: list[int] = []
    stored: list[int] = []
    for partial in sorted(partials, key=lambda partial: partial.cost):
        place = bisect.bisect_right(errors, partial.error)
        if place and stored[place - 1] <= partial.bytes:
            continue
        kept.append(partial)
        start = bisect.bisect_left(errors, partial.error)
        end = start
        while end < len(errors) and stored[end] >= partial.bytes:
            end += 1
        errors[start:end] = [partial.error]
        stored[start:end] = [partial.bytes]
    return kept
