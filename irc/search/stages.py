"""The sites in a row, and what of the choices so far the later ones depend on: the domains of sites still coupled ahead.

A selection is a path through the stages. Without couplings every stage has one state; along a chain it has one per
domain of the site before. The states of a stage are the domains of its open sites, which a good order keeps few
(the vertex separation, or path width, of the graph of the couplings).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from irc.search.instance import Instance, Option

WIDEST = 256


class Move(NamedTuple):
    """From a state to one of the next stage.

    Attributes:
        cost: Cost of an option of the site and of the conversions it causes towards the earlier ones.
        error: Its error.
        bytes: Its bytes.
        state: Where it leads.
    """

    cost: int
    error: int
    bytes: int
    state: int


Stage = tuple[tuple[Move, ...], ...]
"""One site: the moves from each of its states."""


def stages(instance: Instance) -> list[Stage] | None:
    """The sites of an instance as stages; None if a stage would have more than 256 states.

    Options are left out where another of the same domain is not worse in cost, error and bytes.
    """
    neighbours: list[dict[int, int]] = [{} for _ in instance.keys]
    for (a, b), cost in instance.conversions.items():
        neighbours[a][b] = neighbours[b][a] = cost
    given = list(range(len(instance.keys)))
    orders = [given, _few_open(neighbours)] if instance.conversions else [given]
    rows = [row for order in orders if (row := _in_order(instance, order, neighbours)) is not None]
    return min(rows, key=lambda row: max((len(stage) for stage in row), default=0), default=None)


def undominated(options: Sequence[Option], *, domains: bool) -> list[Option]:
    """The options that no other beats in cost, error and bytes at once.

    Args:
        options: Of one site.
        domains: Whether only options of the same domain are compared.
    """
    kept: list[Option] = []
    for option in sorted(options):
        if not any(
            better.error <= option.error
            and better.bytes <= option.bytes
            and (not domains or better.domain == option.domain)
            for better in kept
        ):
            kept.append(option)
    return kept


def _in_order(instance: Instance, order: Sequence[int], neighbours: Sequence[dict[int, int]]) -> list[Stage] | None:
    place = {site: i for i, site in enumerate(order)}
    last_use = {site: max((place[other] for other in neighbours[site]), default=-1) for site in order}
    open_sites: list[int] = []
    states: dict[tuple[str, ...], int] = {(): 0}
    row: list[Stage] = []
    for i, site in enumerate(order):
        options = undominated(instance.options[site], domains=bool(neighbours[site]))
        following: dict[tuple[str, ...], int] = {}
        stays = [j for j, earlier in enumerate(open_sites) if last_use[earlier] > i]
        stage: list[tuple[Move, ...]] = []
        for domains in states:
            moves: list[Move] = []
            for option in options:
                converted = sum(
                    neighbours[site][earlier]
                    for earlier, domain in zip(open_sites, domains, strict=True)
                    if earlier in neighbours[site] and domain != option.domain
                )
                left = tuple(domains[j] for j in stays) + ((option.domain,) if last_use[site] > i else ())
                state = following.setdefault(left, len(following))
                moves.append(Move(option.cost + converted, option.error, option.bytes, state))
            stage.append(tuple(moves))
        if len(following) > WIDEST:
            return None
        row.append(tuple(stage))
        open_sites = [open_sites[j] for j in stays] + ([site] if last_use[site] > i else [])
        states = following
    return row


def _few_open(neighbours: Sequence[dict[int, int]]) -> list[int]:
    """An order in which, at every step, the site goes next that leaves the fewest open."""
    order: list[int] = []
    ahead = {site: len(of_site) for site, of_site in enumerate(neighbours)}
    left = dict.fromkeys(range(len(neighbours)))

    def opened(site: int) -> int:
        closed = sum(1 for other in neighbours[site] if other not in left and ahead[other] == 1)
        return (1 if ahead[site] else 0) - closed

    while left:
        # Of equals one that touches what is open, so that a path is followed to its end.
        site = min(left, key=lambda s: (opened(s), ahead[s] == len(neighbours[s]), len(neighbours[s]), s))
        order.append(site)
        del left[site]
        for other in neighbours[site]:
            ahead[other] -= 1
    return order
