#!/usr/bin/env python3
"""Whether the search for the cheapest variants finds the optimum, and how long it takes.

    python benchmarks/search_optimum.py [--instances 50] [--seed 0] [--json FILE]

Small choices, random and of several kinds, are compared with brute force: the same cost, exactly, and the same variants.
`loose` sites have independent figures, `ties` small whole numbers, `bytes` a second budget, `chain` conversions between
neighbours that differ. The larger ones are like layers: times over two orders of magnitude, errors over five, six or eight
variants a site; no brute force can check them, so the table has the gap the search proves, 0 for an optimum.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from irc.search import Coupling, Infeasible, Sites, Variant, select

KINDS = ("loose", "ties", "bytes", "chain")
DOMAINS = ("float", "int8")


def small(rng: random.Random, kind: str) -> tuple[dict[str, list[Variant]], float, float, list[Coupling]]:
    """Sites, budgets and couplings that brute force can check."""
    count = rng.randint(4, 8)

    def number(largest: int) -> float:
        return float(rng.randint(0, largest)) if kind == "ties" else rng.uniform(0, largest)

    sites = {
        f"s{i}": [
            Variant("float", 0.0, number(9), number(9)),
            *(Variant(f"v{j}", number(5), number(9), number(9), rng.choice(DOMAINS)) for j in range(rng.randint(1, 3))),
        ]
        for i in range(count)
    }
    budget = rng.random() * sum(max(variant.error for variant in variants) for variants in sites.values())
    stored = 0.6 * sum(max(variant.bytes for variant in variants) for variants in sites.values())
    chain = [Coupling(f"s{i}", f"s{i + 1}", number(4)) for i in range(count - 1)]
    return sites, budget, stored if kind == "bytes" else math.inf, chain if kind == "chain" else []


def brute_force(
    sites: Sites, budget: float, stored: float, couplings: Sequence[Coupling]
) -> tuple[Fraction, list[Variant]] | None:
    """The best of all selections: cost, then error, then the earlier variants."""
    best: tuple[Fraction, Fraction, tuple[int, ...]] | None = None
    variants = list(sites.values())
    for positions in itertools.product(*(range(len(of_site)) for of_site in variants)):
        chosen = [of_site[position] for of_site, position in zip(variants, positions, strict=True)]
        if math.fsum(v.error for v in chosen) > budget or math.fsum(v.bytes for v in chosen) > stored:
            continue
        domains = dict(zip(sites, (v.domain for v in chosen), strict=True))
        paid = [c.cost for c in couplings if domains[c.first] != domains[c.second]]
        cost = sum(map(Fraction, [*(v.microseconds for v in chosen), *paid]), Fraction())
        error = sum((Fraction(v.error) for v in chosen), Fraction())
        if best is None or (cost, error, positions) < best:
            best = cost, error, positions
    if best is None:
        return None
    return best[0], [of_site[position] for of_site, position in zip(variants, best[2], strict=True)]


def agrees(kind: str, rng: random.Random) -> tuple[bool, float, float]:
    """Whether the search finds what brute force finds; seconds of either."""
    sites, budget, stored, couplings = small(rng, kind)
    started = time.perf_counter()
    expected = brute_force(sites, budget, stored, couplings)
    between = time.perf_counter()
    try:
        found = select(sites, budget=budget, byte_budget=stored, couplings=couplings)
    except Infeasible:
        return expected is None, time.perf_counter() - between, between - started
    seconds = time.perf_counter() - between
    same = expected is not None and list(found.choices.values()) == expected[1]
    return same and found.cost == float(expected[0]) and found.gap == 0, seconds, between - started


def layers(rng: random.Random, count: int, variants: int) -> dict[str, list[Variant]]:
    """Sites like the layers of a network."""
    made = {}
    for i in range(count):
        microseconds, sensitivity = rng.lognormvariate(3, 1), rng.lognormvariate(-8, 2)
        stored = microseconds * rng.uniform(50, 200)
        made[f"s{i}"] = [Variant("float", 0.0, microseconds, 4 * stored)]
        for j in range(1, variants):
            factor = rng.uniform(0.2, 1.1)
            error = sensitivity * rng.lognormvariate(0, 1) / factor**2
            size = stored * rng.choice([0.5, 1, 2, 4])
            made[f"s{i}"].append(Variant(f"v{j}", error, microseconds * factor, size, rng.choice(DOMAINS)))
    return made


def large(kind: str, count: int, variants: int, rng: random.Random) -> tuple[float, float, float]:
    """Cost, gap and seconds of a choice of many sites."""
    sites = layers(rng, count, variants)
    budget = 0.01 * sum(max(v.error for v in of_site) for of_site in sites.values())
    stored, couplings = math.inf, []
    if kind == "bytes":
        # Less than the fastest selection within the error stores, so that it has to give way.
        stored = 0.97 * select(sites, budget=budget).bytes
    if kind == "chain":
        couplings = [Coupling(f"s{i}", f"s{i + 1}", rng.uniform(0, 10)) for i in range(count - 1)]
    if kind == "tangle":
        pairs = [(i, rng.randrange(i)) for i in range(1, count) for _ in range(2)]
        couplings = [Coupling(f"s{i}", f"s{j}", rng.uniform(0, 10)) for i, j in pairs]
    started = time.perf_counter()
    found = select(sites, budget=budget, byte_budget=stored, couplings=couplings)
    return found.cost, found.gap, time.perf_counter() - started


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=50, help="small choices of every kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    figures: dict[str, list[dict[str, Any]]] = {"small": [], "large": []}

    print("| small choices | optimum found | seconds of all | brute force |\n|---|---|---|---|")
    for kind in KINDS:
        rng = random.Random(f"{arguments.seed} {kind}")
        runs = [agrees(kind, rng) for _ in range(arguments.instances)]
        right, seconds, brute = sum(run[0] for run in runs), sum(run[1] for run in runs), sum(run[2] for run in runs)
        print(f"| {kind} | {right}/{len(runs)} | {seconds:.2f} | {brute:.2f} |", flush=True)
        row = {"kind": kind, "found": right, "of": len(runs), "seconds": seconds, "brute_force_seconds": brute}
        figures["small"].append(row)

    print("\n| large choices | sites x variants | cost, µs | proven gap | seconds |\n|---|---|---|---|---|")
    sizes = [("one budget", 50, 8), ("one budget", 200, 6), ("one budget", 500, 8), ("one budget", 1000, 8)]
    sizes += [
        ("bytes", 50, 8),
        ("bytes", 200, 6),
        ("chain", 50, 6),
        ("chain", 200, 6),
        ("tangle", 50, 6),
        ("tangle", 200, 6),
    ]
    for kind, count, variants in sizes:
        rng = random.Random(f"{arguments.seed} {kind} {count}")
        cost, gap, seconds = large(kind, count, variants, rng)
        share = f"{gap:.4g} ({gap / cost:.2%})" if gap else "0"
        print(f"| {kind} | {count} x {variants} | {cost:.1f} | {share} | {seconds:.2f} |", flush=True)
        row = {"kind": kind, "sites": count, "variants": variants, "cost": cost, "gap": gap, "seconds": seconds}
        figures["large"].append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
