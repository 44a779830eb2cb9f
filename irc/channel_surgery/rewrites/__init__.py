"""The rewrites: what an operator's attributes and constants become when its operands get smaller.

A rewrite is a function of a node and the `Cut`, registered under the operators it holds for. Operators that name no size need none.

    @rewrite("Reshape")
    def reshape(node: ir.Node, cut: Cut) -> None: ...
"""

from __future__ import annotations

import functools
import importlib

from irc.channel_surgery.rewrites.registration import REGISTERED, Rewrite, rewrite

_MODULES = (
    "attention",
    "normalization",
    "quantized",
    "recurrent",
    "sizes",
    "convolutions",
    "joins",
    "selections",
    "spreading",
)


@functools.cache
def all_rewrites() -> dict[tuple[str, str], Rewrite]:
    """Every rewrite by domain and operator."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return REGISTERED


__all__ = ["all_rewrites", "rewrite"]
