"""A choice in whole numbers: every sum and comparison of the search is exact, and ties are part of the cost.

Floats are multiples of a power of two, so one scale per quantity makes them integers. The cost of an option holds, from
the highest digits to the lowest, the objective, the error and one digit per site for the position of the option:

    cost = (objective * 2^a + error) * 2^b + position * 2^(digits of the later sites)

A smaller sum of costs is thus a smaller objective, or the same with less error, or the same again with the option named
earlier at the first site that differs. No two selections have the same sum, and the sum alone says what was selected.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from irc.errors import IrcError
from irc.search.variants import Coupling, Infeasible, Objective, Selection, Sites, Variant


class Option(NamedTuple):
    """A variant in whole numbers; or several, summed.

    Attributes:
        cost: Objective, error and position in one number.
        error: Share of the error budget.
        bytes: Share of the byte budget; 0 where there is none.
        domain: As the variant's.
    """

    cost: int
    error: int
    bytes: int
    domain: str = ""


@dataclasses.dataclass(frozen=True)
class Instance:
    """Sites, budgets and couplings in whole numbers.

    Attributes:
        keys: The sites.
        variants: Their variants.
        options: The same, whole.
        error_budget: What the errors of a selection may sum up to.
        byte_budget: What its bytes may.
        conversions: Cost between two sites, by their positions, the lower first.
        scale: One unit of the objective is this many of the cost.
        unit: What the objective was multiplied with.
        digits: Bits of one site's position.
    """

    keys: tuple[Hashable, ...]
    variants: tuple[tuple[Variant, ...], ...]
    options: tuple[tuple[Option, ...], ...]
    error_budget: int
    byte_budget: int
    conversions: dict[tuple[int, int], int]
    scale: int
    unit: int
    digits: int

    def positions(self, cost: int) -> list[int]:
        """Which option of every site the sum of the costs of a selection is made of."""
        mask = (1 << self.digits) - 1
        return [cost >> self.digits * later & mask for later in reversed(range(len(self.keys)))]

    def total(self, positions: Sequence[int]) -> Option:
        """The sums of a selection, conversions included."""
        chosen = [options[position] for options, position in zip(self.options, positions, strict=True)]
        converted = sum(cost for (a, b), cost in self.conversions.items() if chosen[a].domain != chosen[b].domain)
        return Option(
            sum(option.cost for option in chosen) + converted,
            sum(option.error for option in chosen),
            sum(option.bytes for option in chosen),
        )

    def allows(self, total: Option) -> bool:
        """Whether sums keep the budgets."""
        return total.error <= self.error_budget and total.bytes <= self.byte_budget

    def without_byte_budget(self) -> Instance | None:
        """The same choice with any number of bytes; None if it has no byte budget."""
        if not any(option.bytes for options in self.options for option in options):
            return None
        return dataclasses.replace(
            self,
            options=tuple(tuple(option._replace(bytes=0) for option in options) for options in self.options),
            byte_budget=0,
        )

    def selection(self, cost: int, least: int | None = None) -> Selection:
        """The selection whose costs sum up to `cost`.

        Args:
            cost: The sum.
            least: No selection has a smaller one; None if that is `cost`.
        """
        positions = self.positions(cost)
        chosen = [offered[position] for offered, position in zip(self.variants, positions, strict=True)]
        gap = 0 if least is None else max(0, cost // self.scale - least // self.scale)
        return Selection(
            choices=dict(zip(self.keys, chosen, strict=True)),
            cost=float(Fraction(cost // self.scale, self.unit)),
            error=math.fsum(variant.error for variant in chosen),
            bytes=math.fsum(variant.bytes for variant in chosen),
            gap=math.nextafter(float(Fraction(gap, self.unit)), math.inf) if gap else 0.0,
        )


def instance(
    sites: Sites,
    objective: Objective,
    *,
    budget: float,
    byte_budget: float = math.inf,
    couplings: Iterable[Coupling] = (),
) -> Instance:
    """A choice in whole numbers.

    Args:
        sites: The variants of every site.
        objective: What is to be small in sum.
        budget: Largest sum of errors, rounded as `math.fsum` does; infinite for none.
        byte_budget: Largest sum of bytes, likewise.
        couplings: What differing domains cost; several of the same two sites add up.

    Raises:
        IrcError: If a site has no variant or two of the same name, a number is not finite, an error or a conversion is
            negative, a budget is not a number, or a coupling names an unknown site or one twice.
        Infeasible: If a budget is negative.
    """
    keys = tuple(sites)
    variants = tuple(tuple(sites[key]) for key in keys)
    for key, offered in zip(keys, variants, strict=True):
        _check(key, offered, objective)
    index = {key: i for i, key in enumerate(keys)}
    joint = list(couplings)
    for coupling in joint:
        _check_coupling(coupling, index)
    for name, limit in (("error", budget), ("byte", byte_budget)):
        if math.isnan(limit):
            raise IrcError(f"the {name} budget is not a number; give one, or infinity for no budget")
        if limit < 0:
            raise Infeasible(f"the {name} budget is {limit:g}, but no sum is below 0; give 0 or more")

    unit = _unit([*(objective(v) for offered in variants for v in offered), *(coupling.cost for coupling in joint)])
    errors, error_budget = _weights([[v.error for v in offered] for offered in variants], budget)
    stored, bytes_left = _weights(
        [[v.bytes if byte_budget < math.inf else 0.0 for v in offered] for offered in variants], byte_budget
    )
    digits = max((len(offered) - 1 for offered in variants), default=0).bit_length()
    above_positions = 1 << digits * len(keys)
    scale = above_positions << sum(max(of_site) for of_site in errors).bit_length()
    options = tuple(
        tuple(
            Option(
                _whole(objective(variant), unit) * scale
                + errors[site][position] * above_positions
                + (position << digits * (len(keys) - 1 - site)),
                errors[site][position],
                stored[site][position],
                variant.domain,
            )
            for position, variant in enumerate(offered)
        )
        for site, offered in enumerate(variants)
    )
    conversions: dict[tuple[int, int], int] = {}
    for coupling in joint:
        a, b = sorted((index[coupling.first], index[coupling.second]))
        conversions[a, b] = conversions.get((a, b), 0) + _whole(coupling.cost, unit) * scale
    return Instance(keys, variants, options, error_budget, bytes_left, conversions, scale, unit, digits)


def _check(key: Hashable, offered: Sequence[Variant], objective: Objective) -> None:
    if not offered:
        raise IrcError(f"site {key!r} has no variant; give it at least the one to fall back on")
    names = [variant.name for variant in offered]
    if len(set(names)) < len(names):
        raise IrcError(f"site {key!r} has two variants of the same name among {names}; names tell them apart")
    for variant in offered:
        figures = (("error", variant.error), ("bytes", variant.bytes), ("objective", objective(variant)))
        for what, figure in figures:
            if not math.isfinite(figure):
                raise IrcError(f"{what} of {variant.name!r} at site {key!r} is {figure}; leave the variant out")
        if variant.error < 0 or variant.bytes < 0:
            raise IrcError(
                f"{variant.name!r} at site {key!r} has error {variant.error:g} and bytes {variant.bytes:g}; "
                "neither may be negative"
            )


def _check_coupling(coupling: Coupling, index: dict[Hashable, int]) -> None:
    pair = f"{coupling.first!r} and {coupling.second!r}"
    if coupling.first not in index or coupling.second not in index:
        raise IrcError(f"the coupling of {pair} names a site that does not exist")
    if coupling.first == coupling.second:
        raise IrcError(f"the coupling of {pair} joins a site with itself; leave it out")
    if not math.isfinite(coupling.cost) or coupling.cost < 0:
        raise IrcError(f"the conversion between {pair} costs {coupling.cost}; it must be finite and not negative")


def _unit(numbers: Iterable[float]) -> int:
    return max((float(number).as_integer_ratio()[1] for number in numbers), default=1)


def _whole(number: float, unit: int) -> int:
    numerator, denominator = float(number).as_integer_ratio()
    return numerator * (unit // denominator)


def _weights(of_sites: list[list[float]], budget: float) -> tuple[list[list[int]], int]:
    numbers = [number for of_site in of_sites for number in of_site]
    following = math.nextafter(budget, math.inf)
    if math.isinf(following):
        unit = _unit(numbers)
        whole = [[_whole(number, unit) for number in of_site] for of_site in of_sites]
        return whole, sum(max(of_site) for of_site in whole)
    # A sum is within the budget if its rounding is: up to half way to the next float, and there if the tie goes down.
    unit = 2 * _unit([*numbers, budget, following])
    middle = (_whole(budget, unit) + _whole(following, unit)) // 2
    ties_down = float(Fraction(middle, unit)) == budget
    return [[_whole(number, unit) for number in of_site] for of_site in of_sites], middle - (not ties_down)
