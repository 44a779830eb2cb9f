"""Selections under couplings that no exchange of a few sites makes cheaper, for where the optimum is out of reach.

Conversions make single changes useless where a whole region has to change its domain, so regions change together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from irc.search.instance import Instance, Option

REGION = 16
# How many of the changes that save most are paired with others that give the error or bytes back.
SAVERS = 24

Changes = dict[int, int]


def improved(instance: Instance, positions: list[int]) -> int:
    """The cost that steps from a selection lead to; never more than its own.

    A step changes one site, or one site and another that keeps the budgets, or a coupled region that takes one domain; the
    best of the first of these kinds that has any.

    Args:
        instance: The choice.
        positions: An allowed selection.
    """
    walk = _Walk(instance, positions)
    while walk.step(walk.singles()) or walk.step(walk.exchanges()) or walk.step(walk.regions()):
        pass
    return walk.total.cost


def single_domains(instance: Instance) -> Iterator[Instance]:
    """The instance with only the options of one domain at the sites that have any of it; once for every domain."""
    domains = dict.fromkeys(option.domain for options in instance.options for option in options)
    for domain in domains:
        yield dataclasses.replace(instance, options=tuple(_within(options, domain) for options in instance.options))


def _within(options: tuple[Option, ...], domain: str) -> tuple[Option, ...]:
    kept = [option for option in options if option.domain == domain]
    # One that is kept stands in for each that is not, so that positions stay what they are.
    return tuple(option if option in kept else kept[0] for option in options) if kept else options


class _Walk:
    def __init__(self, instance: Instance, positions: list[int]) -> None:
        self.instance, self.positions = instance, list(positions)
        self.total = instance.total(positions)
        self.neighbours: list[dict[int, int]] = [{} for _ in instance.keys]
        for (a, b), cost in instance.conversions.items():
            self.neighbours[a][b] = self.neighbours[b][a] = cost

    def step(self, candidates: Iterator[Changes]) -> bool:
        """Makes the best of some changes, if one makes the selection cheaper and keeps the budgets."""
        best, best_total = None, self.total
        for changes in candidates:
            total = self.after(changes)
            if total.cost < best_total.cost and self.instance.allows(total):
                best, best_total = changes, total
        if best is None:
            return False
        for site, position in best.items():
            self.positions[site] = position
        self.total = best_total
        return True

    def after(self, changes: Changes) -> Option:
        """The sums with some sites changed."""
        cost, error, stored, _ = self.total
        for site, position in changes.items():
            old, new = self.instance.options[site][self.positions[site]], self.instance.options[site][position]
            cost, error, stored = (
                cost + new.cost - old.cost,
                error + new.error - old.error,
                stored + new.bytes - old.bytes,
            )
            for other, conversion in self.neighbours[site].items():
                if other in changes and other < site:
                    continue  # the pair was counted from its other side
                options = self.instance.options[other]
                before, now = options[self.positions[other]], options[changes.get(other, self.positions[other])]
                cost += conversion * ((new.domain != now.domain) - (old.domain != before.domain))
        return Option(cost, error, stored)

    def singles(self) -> Iterator[Changes]:
        """Every option of every site."""
        for site, options in enumerate(self.instance.options):
            yield from ({site: position} for position in range(len(options)) if position != self.positions[site])

    def exchanges(self) -> Iterator[Changes]:
        """The changes that save most but break a budget, each with every change that gives some of it back."""
        singles = [(self.after(changes), changes) for changes in self.singles()]
        savers = sorted(
            ((total.cost, changes) for total, changes in singles if total.cost < self.total.cost),
            key=lambda saver: saver[0],
        )
        givers = [
            changes for total, changes in singles if total.error < self.total.error or total.bytes < self.total.bytes
        ]
        for _, saver in savers[:SAVERS]:
            yield from (saver | giver for giver in givers if saver.keys() != giver.keys())

    def regions(self) -> Iterator[Changes]:
        """Every site, and ever more of those coupled to it, in one domain."""
        domains = dict.fromkeys(option.domain for options in self.instance.options for option in options)
        for domain in domains:
            for exact in (False, True):
                for seed in range(len(self.positions)):
                    changes: Changes = {}
                    for site in self._around(seed):
                        position = self._position(site, domain, exact)
                        if position is not None:
                            changes = changes | {site: position}
                            yield changes

    def _position(self, site: int, domain: str, exact: bool) -> int | None:
        offered = [
            (option.error if exact else 0, option.cost, position)
            for position, option in enumerate(self.instance.options[site])
            if option.domain == domain
        ]
        return min(offered)[2] if offered else None

    def _around(self, seed: int) -> list[int]:
        """A site and those it is coupled to, the costliest conversions first, then those beyond."""
        found = {seed: None}
        queue = [seed]
        while queue and len(found) < REGION:
            here = queue.pop(0)
            for other in sorted(self.neighbours[here], key=lambda other: (-self.neighbours[here][other], other)):
                if other not in found and len(found) < REGION:
                    found[other] = None
                    queue.append(other)
        return list(found)
