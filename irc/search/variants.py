"""What there is to choose from: sites, their variants, what it costs when neighbours differ, and a selection of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence

from irc.errors import IrcError


class Infeasible(IrcError):
    """No selection keeps the budgets."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to execute a site.

    Attributes:
        name: What it is called; unique at its site.
        error: What it adds to the predicted error, in any unit in which errors add up; 0 or more.
        microseconds: Predicted time of one run.
        bytes: What it stores.
        domain: What its values are made of, such as "float" or "int8"; only couplings ask.
    """

    name: str
    error: float = 0.0
    microseconds: float = 0.0
    bytes: float = 0.0
    domain: str = "float"


@dataclasses.dataclass(frozen=True)
class Coupling:
    """Two sites that pay for a conversion if the domains of their variants differ.

    What is fixed, such as an input of the model, is a site with a single variant.

    Attributes:
        first: A site.
        second: Another.
        cost: Cost of the conversion, in the unit of the objective; 0 or more.
    """

    first: Hashable
    second: Hashable
    cost: float


Sites = Mapping[Hashable, Sequence[Variant]]
"""The variants of every site in order of preference; the first is the one to fall back on."""

Objective = Callable[[Variant], float]
"""What of a variant is to be small in sum; any finite number."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """One variant for every site.

    Sums are those of real numbers, rounded once (`math.fsum`): no order of the sites changes them.

    Attributes:
        choices: The variant of every site, in the order of the sites.
        cost: Sum of the objective, conversions included.
        error: Sum of the errors.
        bytes: Sum of the bytes.
        gap: No selection within the budgets costs less than `cost - gap`; 0 if this one is proven to be the cheapest.
    """

    choices: dict[Hashable, Variant]
    cost: float
    error: float
    bytes: float
    gap: float = 0.0


def microseconds(variant: Variant) -> float:
    """The objective of a fast model."""
    return variant.microseconds


def stored_bytes(variant: Variant) -> float:
    """The objective of a small model."""
    return variant.bytes
