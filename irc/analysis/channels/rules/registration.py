"""Where rules are kept."""

from __future__ import annotations

from collections.abc import Callable

from irc.analysis.channels.operator_table import register
from irc.analysis.channels.propagation import Rule

REGISTERED: dict[tuple[str, str], Rule] = {}


def rule(*operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Registers a rule for operators of a domain.

    Raises:
        ValueError: If an operator has a rule already.
    """
    return register(REGISTERED, "rules", operators, domain)
