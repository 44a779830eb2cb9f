"""Where rewrites are kept."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from irc.channel_surgery.cutting import Cut

Rewrite = Callable[[ir.Node, Cut], None]
REGISTERED: dict[tuple[str, str], Rewrite] = {}


def rewrite(*operators: str, domain: str = "") -> Callable[[Rewrite], Rewrite]:
    """Registers a rewrite for operators of a domain.

    Raises:
        ValueError: If an operator has a rewrite already.
    """

    def register(function: Rewrite) -> Rewrite:
        for operator in operators:
            if (domain, operator) in REGISTERED:
                raise ValueError(f"{operator} has two rewrites: {REGISTERED[domain, operator]} and {function}")
            REGISTERED[domain, operator] = function
        return function

    return register
