"""Tables of functions by operator, filled by decorators: one function per operator and table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., None])
Operator = tuple[str, str]
"""Domain and type."""


def register(
    table: dict[Operator, Function], kind: str, operators: tuple[str, ...], domain: str
) -> Callable[[Function], Function]:
    """A decorator that enters a function into a table under some operators of a domain.

    Args:
        table: Where it is entered.
        kind: What the table holds, for the message: "rules".
        operators: Types of operators.
        domain: Their domain.

    Raises:
        ValueError: If an operator has a function there already.
    """

    def enter(function: Function) -> Function:
        for operator in operators:
            if (domain, operator) in table:
                raise ValueError(f"{operator} has two {kind}: {table[domain, operator]} and {function}")
            table[domain, operator] = function
        return function

    return enter
