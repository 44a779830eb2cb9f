"""The propagation rules: one per operator, by kind.

A rule is a function of a `NodeView`, registered under the operators it holds for:

    @rule("Relu", "Sigmoid")
    def elementwise(view: NodeView) -> None:
        view.write(view.read(0))
"""

from __future__ import annotations

import functools
import importlib

from irc.analysis.channels.propagation import Rule
from irc.analysis.channels.rules.registration import REGISTERED, rule

_MODULES = (
    "attention",
    "normalization",
    "pooling",
    "quantized",
    "recurrent",
    "reductions",
    "runtime_operators",
    "elementwise",
    "products",
    "convolutions",
    "reshapes",
    "joins",
    "selections",
    "spatial",
    "spreading",
    "told_sizes",
)


@functools.cache
def all_rules() -> dict[tuple[str, str], Rule]:
    """Every rule by domain and operator."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return REGISTERED


__all__ = ["all_rules", "rule"]
