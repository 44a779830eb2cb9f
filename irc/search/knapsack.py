"""The cheapest selection within the budgets, and the selections worth measuring when the budget is not known.

A multiple-choice knapsack, solved exactly: irc.search.partial_selections. With couplings the answer is exact where an order
of the sites keeps few of them open at once (irc.search.stages), as on chains and trees; elsewhere it is that of a local
search from the optimum without couplings, with its gap.

Source: Kellerer, Pferschy and Pisinger 2004, Knapsack Problems, chapter 11.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable

from irc.errors import IrcError
from irc.search.instance import Instance, Option, instance
from irc.search.local_search import improved, single_domains
from irc.search.partial_selections import cheapest
from irc.search.relaxation import Multipliers, Relaxation, rest
from irc.search.stages import stages
from irc.search.variants import Coupling, Infeasible, Objective, Selection, Sites, microseconds

DEFAULT_LIMIT = 400_000
# A start of the local search need not be the best of its kind.
START_LIMIT = 10_000


def select(
    sites: Sites,
    *,
    budget: float,
    byte_budget: float = math.inf,
    objective: Objective = microseconds,
    couplings: Iterable[Coupling] = (),
    limit: int = DEFAULT_LIMIT,
) -> Selection:
    """The cheapest selection whose errors sum up to no more than the budget.

    Of several of the same cost the one with less error, then the one with the earlier variant at the first site where
    they differ. The same input has the same answer on every machine: no clock is looked at.

    Args:
        sites: The variants of every site.
        budget: Largest sum of errors; infinite for none.
        byte_budget: Largest sum of bytes; infinite for none.
        objective: What is to be small in sum.
        couplings: What differing domains of two sites cost. The answer is never worse than that without them.
        limit: After this many partial selections only the 64 most promising are followed at every site. The answer may
            then miss the optimum by up to its `gap`. 0 or more.

    Raises:
        IrcError: If the sites, budgets, couplings or limit make no sense; the message says which.
        Infeasible: If there is no such selection, or none was found within the limit.
    """
    if limit < 0:
        raise IrcError(f"the limit is {limit} partial selections; it must be 0 or more")
    whole = instance(sites, objective, budget=budget, byte_budget=byte_budget, couplings=couplings)
    if not whole.conversions:
        return whole.selection(*_uncoupled(whole, limit))

    apart = dataclasses.replace(whole, conversions={})
    first, least = _uncoupled(apart, limit)
    known = whole.total(whole.positions(first)).cost
    row = stages(whole)
    if row is not None:
        known, coupled_least = cheapest(whole, row, known=known, limit=limit)
        least = max(least, coupled_least)
    if least < known:
        begins = [whole.positions(known), *map(whole.positions, _begins(apart, min(limit, START_LIMIT)))]
        known = min(improved(whole, begin) for begin in begins)
    return whole.selection(known, least)


def frontier(
    sites: Sites,
    objective: Objective = microseconds,
    *,
    couplings: Iterable[Coupling] = (),
    points: int = 16,
) -> list[Selection]:
    """Selections worth measuring, from the cheapest to the one of least error.

    They are corners of the convex hull of cost over error, where the most is saved for the error: each is the cheapest
    for its error. Those shown are spread evenly over the logarithm of the error; the two ends are always there.

    Args:
        sites: The variants of every site.
        objective: What is to be small in sum.
        couplings: What differing domains cost.
        points: At most this many; 2 or more.

    Returns:
        Selections of rising cost and falling error.

    Raises:
        IrcError: If the sites or couplings make no sense, there are fewer than 2 points, or the couplings leave too many
            sites open at once (more than 256 combinations of domains).
    """
    if points < 2:
        raise IrcError(f"a frontier of {points} points has no ends; ask for 2 or more")
    whole = instance(sites, objective, budget=math.inf, couplings=couplings)
    row = stages(whole)
    if row is None:
        raise IrcError("the couplings leave too many sites open for a frontier; drop those of long reach")

    def corner(error: int) -> tuple[Option, Option | None]:
        return Relaxation(dataclasses.replace(whole, error_budget=error), row).neighbours()

    fastest = rest(row, Multipliers(1, 0, 0)).totals[0][0]
    exactest, after = corner(rest(row, Multipliers(0, 1, 0)).totals[0][0].error)
    found = {exactest.cost, fastest.cost}
    lowest = exactest if exactest.error else after
    if lowest is not None and lowest.error < fastest.error and points > 2:
        # `lowest` is itself a point if it is not the end already.
        inner = points - len({exactest.cost, lowest.cost, fastest.cost})
        found |= {lowest.cost, *(corner(error)[0].cost for error in _spread(lowest.error, fastest.error, inner))}
    return [whole.selection(cost) for cost in sorted(found)]


def _spread(low: int, high: int, count: int) -> list[int]:
    """Numbers between two others, evenly in their logarithms; too long for floats, so as a float and a shift."""
    octaves = math.log2(high) - math.log2(low)
    steps = [octaves * (step + 1) / (count + 1) for step in range(count)]
    return [int(2 ** (step % 1 + 52)) * low << int(step) >> 52 for step in steps]


def _uncoupled(whole: Instance, limit: int) -> tuple[int, int]:
    row = stages(whole)
    assert row is not None  # without couplings a stage has one state
    unlimited = whole.without_byte_budget()
    if unlimited is not None and (free := stages(unlimited)) is not None:
        # Where bytes do not matter, comparing them only makes the search longer.
        cost, least = cheapest(unlimited, free, limit=limit)
        if whole.allows(whole.total(whole.positions(cost))):
            return cost, least
    return cheapest(whole, row, limit=limit)


def _begins(whole: Instance, limit: int) -> list[int]:
    """The cheapest selections that stay within one domain where they can."""
    found = []
    for part in single_domains(whole):
        with contextlib.suppress(Infeasible):
            found.append(_uncoupled(part, limit)[0])
    return found
