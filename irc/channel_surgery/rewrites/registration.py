"""Where rewrites are kept."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from irc.analysis.channels.operator_table import register
from irc.channel_surgery.cutting import Cut

Rewrite = Callable[[ir.Node, Cut], None]
REGISTERED: dict[tuple[str, str], Rewrite] = {}


def rewrite(*operators: str, domain: str = "") -> Callable[[Rewrite], Rewrite]:
    """Registers a rewrite for operators of a domain.

    Raises:
        ValueError: If an operator has a rewrite already.
    """
    return register(REGISTERED, "rewrites", operators, domain)
