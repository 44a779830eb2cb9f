"""Small choices at random, and every selection there is as the judge."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

from irc.search import Coupling, Variant, microseconds

DOMAINS = ("float", "int8", "float16")


def sites(rng: random.Random, count: int, variants: int = 4, *, whole: bool = False) -> dict[str, list[Variant]]:
    """Sites with a float variant each; small whole numbers make many ties."""
    made = {}
    for i in range(count):
        of_site = [Variant("float", 0.0, _number(rng, whole, 9), _number(rng, whole, 9))]
        of_site += [
            Variant(
                f"v{j}", _number(rng, whole, 5), _number(rng, whole, 9), _number(rng, whole, 9), rng.choice(DOMAINS)
            )
            for j in range(rng.randint(0, variants - 1))
        ]
        made[f"s{i}"] = of_site
    return made


def _number(rng: random.Random, whole: bool, largest: int) -> float:
    return rng.randint(0, largest) if whole else rng.uniform(0, largest) * rng.choice([1e-3, 1, 10])


def chain(rng: random.Random, count: int, *, whole: bool = False) -> list[Coupling]:
    return [Coupling(f"s{i}", f"s{i + 1}", _number(rng, whole, 4)) for i in range(count - 1)]


def tree(rng: random.Random, count: int) -> list[Coupling]:
    return [Coupling(f"s{rng.randrange(i)}", f"s{i}", _number(rng, True, 4)) for i in range(1, count)]


def every(offered):
    return itertools.product(*(range(len(of_site)) for of_site in offered.values()))


def measured(offered, positions, couplings=(), objective=microseconds):
    """Exact cost, and error and bytes as `math.fsum` rounds them."""
    chosen = dict(
        zip(offered, (of_site[p] for of_site, p in zip(offered.values(), positions, strict=True)), strict=True)
    )
    cost = sum((Fraction(objective(v)) for v in chosen.values()), Fraction())
    for coupling in couplings:
        if chosen[coupling.first].domain != chosen[coupling.second].domain:
            cost += Fraction(coupling.cost)
    return cost, math.fsum(v.error for v in chosen.values()), math.fsum(v.bytes for v in chosen.values())


def brute_force(offered, budget, byte_budget=math.inf, couplings=(), objective=microseconds):
    """The variants of the best selection under the documented order of ties; None if there is no selection."""
    best = None
    for positions in every(offered):
        cost, error, stored = measured(offered, positions, couplings, objective)
        if error <= budget and stored <= byte_budget:
            exact_error = sum(
                (Fraction(of_site[p].error) for of_site, p in zip(offered.values(), positions, strict=True)), Fraction()
            )
            best = min(best or (cost, exact_error, positions), (cost, exact_error, positions))
    return best and {key: of_site[p] for (key, of_site), p in zip(offered.items(), best[2], strict=True)}
