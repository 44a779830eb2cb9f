"""Where an activation that is written out ends, and the functions inside it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from irc.passes.fusion.composite import producer_of
from irc.passes.fusion.polynomial import leaves

_NEAR = 4
"""How many sums and products follow the inner function of an activation at most."""


def ends_in_arithmetic(last: ir.Node) -> bool:
    """Whether a node may be the last one of an activation."""
    return last.op_type in ("Mul", "Div", "Add")


def inner_results(last: ir.Node, *op_types: str) -> Iterator[ir.Node]:
    """The nodes of these types whose results reach a last node through sums and products alone, nearest first."""
    for value in leaves(last.outputs[0], _NEAR):
        node = producer_of(value, *op_types)
        if node is not None and node is not last and node.inputs[0] is not None:
            yield node
