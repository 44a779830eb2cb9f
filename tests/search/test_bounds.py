"""Bounds of partial selections against the best of all that begin like them."""

import random

import pytest
from search.search_instances import every, sites

from irc.search import microseconds
from irc.search.bound_grid import BoundGrid
from irc.search.instance import instance
from irc.search.relaxation import Relaxation
from irc.search.stages import stages


@pytest.mark.parametrize("seed", range(30))
def test_no_selection_that_begins_so_is_below_the_bound(seed):
    rng = random.Random(seed)
    offered = sites(rng, 5)
    most = [sum(max(getattr(v, what) for v in of_site) for of_site in offered.values()) for what in ("error", "bytes")]
    stored = max(0.8 * most[1], 1.01 * sum(of_site[0].bytes for of_site in offered.values()))
    whole = instance(offered, microseconds, budget=most[0] * rng.uniform(0.05, 0.4), byte_budget=stored)
    row = stages(whole)
    grid = BoundGrid(whole, row, Relaxation(whole, row).solve())
    totals = {positions: whole.total(positions) for positions in every(offered)}
    allowed = {positions: total.cost for positions, total in totals.items() if whole.allows(total)}
    for first, option in enumerate(whole.options[0]):
        for second, other in enumerate(whole.options[1]):
            best = min((cost for positions, cost in allowed.items() if positions[:2] == (first, second)), default=None)
            sums = [a + b for a, b in zip(option[:3], other[:3], strict=True)]
            least, met = grid.bound(2, 0, *sums)
            assert best is None or least <= best
            assert met is None or met in allowed.values()
