"""Choosing one variant per site: the cheapest selection whose predicted error stays within a budget, proven so.

This room knows sites, variants, what they cost and what they spoil; what a variant does to a model it does not know.
`select` solves the choice exactly, `frontier` lists the selections worth measuring, `evaluate` measures them.
"""

from irc.search.knapsack import frontier, select
from irc.search.parallel import evaluate
from irc.search.variants import (
    Coupling,
    Infeasible,
    Objective,
    Selection,
    Sites,
    Variant,
    microseconds,
    stored_bytes,
)

__all__ = [
    "Coupling",
    "Infeasible",
    "Objective",
    "Selection",
    "Sites",
    "Variant",
    "evaluate",
    "frontier",
    "microseconds",
    "select",
    "stored_bytes",
]
