"""Taking residual branches out of a graph: first constants in their places, one by one, then everything that is not needed any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, remove_dead, replace_value
from irc.passes.pruning.layers.residual_branches import Branch

Array = np.ndarray[Any, Any]


def put_constant(branch: Branch, value: Array) -> None:
    """Puts a constant in the place of a branch, whose nodes stay where they are.

    Args:
        branch: Changed.
        value: What is added instead; an empty array for nothing.
    """
    graph, dtype = branch.add.graph, branch.value.dtype or branch.joined.dtype
    assert isinstance(graph, ir.Graph) and dtype is not None
    stored = (value if value.size else np.zeros(())).astype(dtype.numpy())
    branch.add.replace_input_with(branch.index, add_initializer(graph, f"{branch.value.name}_mean", stored))


def tidy(model: ir.Model, branches: Iterable[Branch]) -> None:
    """Leaves out additions of zero, joins constants that are added one after another, and removes what nothing needs.

    Args:
        model: Changed.
        branches: Those whose places have constants.
    """
    remove_dead(model)  # what is dead still reads the sums
    places: dict[ir.Node, set[int]] = {}
    for branch in branches:
        places.setdefault(branch.add, set()).add(branch.index)
    for node in list(model.graph):
        indices = places.get(node)
        if indices is None:
            continue
        output = node.outputs[0]
        if len(indices) == 2:
            total = add_initializer(model.graph, f"{output.name}_mean", _sum(node.inputs[0], node.inputs[1]))
            for use in output.uses():
                places.setdefault(use.node, set()).add(use.idx)
            replace_value(output, total)
            continue
        (index,) = indices
        added, other = node.inputs[index], node.inputs[1 - index]
        assert other is not None
        if not np.any(_array(added)):
            replace_value(output, other)
            del places[node]
            continue
        before = other.producer()
        if before in places and len(places[before]) == 1 and len(other.uses()) == 1 and not other.is_graph_output():
            (earlier,) = places[before]
            total = add_initializer(model.graph, f"{output.name}_mean", _sum(before.inputs[earlier], added))
            node.replace_input_with(index, total)
            node.replace_input_with(1 - index, before.inputs[1 - earlier])
    remove_dead(model)


def _array(value: ir.Value | None) -> Array:
    found = constant(value)
    assert found is not None
    return found


def _sum(a: ir.Value | None, b: ir.Value | None) -> Array:
    first, second = _array(a), _array(b)
    total: Array = (first.astype(np.float64) + second.astype(np.float64)).astype(first.dtype)
    return total
