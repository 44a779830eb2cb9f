"""Witnesses by operator: small networks that show what the rule of the operator is for.

for witness in of(("", "Softmax")):
    model, feeds = witness.model(), witness.feeds()
"""

from __future__ import annotations

import functools

from channel_witnesses.elementwise import elementwise
from channel_witnesses.layers import attention, products
from channel_witnesses.movement import movement
from channel_witnesses.network import Operator, Witness
from channel_witnesses.quantized import quantized
from channel_witnesses.reductions import normalizations, reductions


@functools.cache
def table() -> dict[Operator, list[Witness]]:
    """All witnesses by operator."""
    rooms = (elementwise, reductions, normalizations, products, attention, quantized, movement)
    found: dict[Operator, list[Witness]] = {}
    for room in rooms:
        for operator, networks in room().items():
            assert operator not in found, operator
            found[operator] = networks
    return found


def of(operator: Operator) -> list[Witness]:
    """Those of one operator; none if it has none."""
    return table().get(operator, [])
