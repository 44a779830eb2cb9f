"""A change of basis carried out: every labelled initializer of a family multiplied by R or R^-T along its channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Bundle, Slot
from irc.ir import add_initializer, constant, constant_tensor
from irc.passes.pruning.rotation.channel_linearity import Turn

Array = np.ndarray[Any, Any]


def rotate(model: ir.Model, nodes: Mapping[ir.Node, ir.Node], turn: Turn, basis: Array) -> int:
    """Changes the basis of a family in place.

    Args:
        model: The model to edit, with the nodes and initializers of the one that was analysed.
        nodes: Its nodes by analysed node.
        turn: How channels turn.
        basis: R by unit, `[units, n, n]`.

    Returns:
        How many initializers were replaced.
    """
    forward = np.asarray(basis, np.float64)
    backward = np.linalg.inv(forward).swapaxes(1, 2)
    for slot, bundles in turn.slots:
        value = _current(model, nodes, slot)
        tensor = constant_tensor(value)
        assert tensor is not None
        array = np.asarray(constant(value)).astype(np.float64).reshape(slot.view)
        for bundle in bundles:
            array = _turned(array, bundle, turn, forward, backward)
        new = array.reshape(tuple(tensor.shape.numpy())).astype(tensor.dtype.numpy())
        _store(model, nodes, slot, value, ir.tensor(np.ascontiguousarray(new), dtype=tensor.dtype, name=value.name))
    return len(turn.slots)


def _turned(array: Array, bundle: Bundle, turn: Turn, forward: Array, backward: Array) -> Array:
    moved = np.moveaxis(array, bundle.axes, range(len(bundle.axes)))
    flat = moved.reshape(bundle.labels.size, -1)
    new = flat.copy()
    for unit, direction, table in turn.lines(bundle.labels):
        matrix = forward[unit] if direction > 0 else backward[unit]
        for line in table.T:
            new[line] = matrix @ flat[line]
    return np.moveaxis(new.reshape(moved.shape), range(len(bundle.axes)), bundle.axes)


def _current(model: ir.Model, nodes: Mapping[ir.Node, ir.Node], slot: Slot) -> ir.Value:
    """The initializer that a slot stands for now: an earlier change of basis may have given a use a copy of its own."""
    if slot.use is None:
        return model.graph.initializers[slot.name]
    value = nodes[slot.use[0]].inputs[slot.use[1]]
    assert value is not None
    return value


def _store(
    model: ir.Model, nodes: Mapping[ir.Node, ir.Node], slot: Slot, value: ir.Value, tensor: ir.TensorProtocol
) -> None:
    if slot.use is None or (len(list(value.uses())) == 1 and not value.is_graph_output()):
        value.const_value = tensor
        return
    copy = add_initializer(model.graph, slot.name, tensor)
    nodes[slot.use[0]].replace_input_with(slot.use[1], copy)
