"""Single elements of integer inputs replaced: bounds, pads, repeats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from irc.channel_surgery.cutting import Cut
from irc.ir import add_initializer, constant


def replace_elements(cut: Cut, node: ir.Node, index: int, elements: Mapping[int, int]) -> None:
    """Replaces some elements of a 1-D integer input, whether it is a constant or computed.

    Computed elements stay computed, so that the result holds for all sizes: Where(mask, new, old).
    """
    value = node.inputs[index]
    assert value is not None
    old = constant(value)
    if old is not None:
        array = old.copy()
        for position, element in elements.items():
            array[position] = element
        if (array != old).any():
            cut.set_constant(node, index, array)
        return
    original = cut.original(node).inputs[index]
    known = cut.propagation.shapes.known(original)
    assert known is not None
    mask = np.zeros(known.size, dtype=bool)
    new = np.zeros(known.size, dtype=known.dtype)
    for position, element in elements.items():
        mask[position], new[position] = True, element
    if (new == known)[mask].all():
        return
    if mask.all():
        cut.set_constant(node, index, new)
        return
    graph, name = cut.model.graph, node.outputs[0].name
    condition, replacement = add_initializer(graph, f"{name}_cut", mask), add_initializer(graph, f"{name}_new", new)
    cut.set_input(node, index, cut.insert_before(node, "Where", [condition, replacement, value]))
