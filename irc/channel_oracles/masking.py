"""The zero oracle: the full model in which products do not see what was cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Labelled, Propagation
from irc.channel_surgery.layout import spread
from irc.ir import add_initializer, constant, snapshot, unique_name

Array = np.ndarray[Any, Any]


def masked(propagation: Propagation, alive: Array) -> ir.Model:
    """The analysed model with zeros in front of every product where labels do not survive.

    Its outputs are those of the cut model if no statistic depends on what is cut.

    Args:
        propagation: Labels of all values.
        alive: A boolean per label.
    """
    model = snapshot(propagation.model)
    for node, original in list(zip(model.graph, propagation.model.graph, strict=True)):
        if original not in propagation.products:
            continue
        product = propagation.products[original]
        for index in product.inner:
            _zero_weight(model, propagation, node, original, index, alive)
        computed = [value is not None and propagation.varies(value) for value in original.inputs]
        for index, value in enumerate(original.inputs):
            if value is None or index in product.inner or not (computed[index] or not any(computed)):
                continue
            tensor = propagation.recorded(original, index)
            if all(alive[bundle.labels].all() for bundle in tensor.bundles):
                continue
            source = node.inputs[index]
            assert source is not None
            node.replace_input_with(index, _where(model, node, source, _mask(tensor, alive), product.zeros.get(index)))
    return model


def _zero_weight(
    model: ir.Model, propagation: Propagation, node: ir.Node, original: ir.Node, index: int, alive: Array
) -> None:
    """Zeroes what a weight makes within a node of labels that do not survive: a recurrent state, say, for the next step."""
    value = original.inputs[index] if index < len(original.inputs) else None
    source = node.inputs[index] if value is not None else None
    if value is None or source is None:
        return
    uses = (None, (original, index))
    slot = next((s for s in propagation.slots if s.initializer is value and s.use in uses), None)
    if slot is None:
        mask = _mask(propagation.recorded(original, index), alive)
        if not mask.all():
            node.replace_input_with(index, _where(model, node, source, mask))
        return
    mask = _mask(Labelled(slot.view, slot.bundles), alive)
    array = constant(value)
    assert array is not None
    if not mask.all():
        zeroed = np.where(np.broadcast_to(mask, slot.view).reshape(array.shape), array, 0).astype(array.dtype)
        node.replace_input_with(index, add_initializer(model.graph, f"{value.name}_masked", zeroed))


def _mask(tensor: Labelled, alive: Array) -> Array:
    mask = np.ones([1] * tensor.rank, dtype=bool)
    for bundle in tensor.bundles:
        mask = mask & spread(bundle, alive[bundle.labels], tensor.rank)
    return mask


def _where(model: ir.Model, node: ir.Node, value: ir.Value, mask: Array, zero_point: int | None = None) -> ir.Value:
    graph = model.graph
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    name = unique_name(graph, f"{value.name}_masked")
    condition = _condition(graph, node, value, mask, name)
    zero = node.inputs[zero_point] if zero_point is not None and zero_point < len(node.inputs) else None
    if zero is None:
        zero = add_initializer(graph, f"{name}_zero", np.zeros((), dtype=dtype))
    where = ir.Node("", "Where", [condition, value, zero], num_outputs=1, name=name)
    where.outputs[0].name, where.outputs[0].type = name, value.type
    graph.insert_before(node, where)
    return where.outputs[0]


def _condition(graph: ir.Graph, node: ir.Node, value: ir.Value, mask: Array, name: str) -> ir.Value:
    """The mask for whatever size a value has.

    Along an axis into which the batch is merged the mask repeats, as often as the axis is long: Gather(mask, Range(length) mod period).
    """
    dims: Sequence[object] = list(value.shape) if value.shape is not None else [None] * mask.ndim
    periods = [size if isinstance(dims[axis], int) else _period(mask, axis) for axis, size in enumerate(mask.shape)]
    condition = add_initializer(graph, f"{name}_mask", mask[tuple(slice(period) for period in periods)])

    def insert(op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        given = [ir.AttrInt64(key, number) for key, number in attributes.items()]
        made = ir.Node("", op_type, inputs, given, num_outputs=1, name=unique_name(graph, f"{name}_{op_type.lower()}"))
        made.outputs[0].name = made.name
        graph.insert_before(node, made)
        return made.outputs[0]

    def number(of: int) -> ir.Value:
        return add_initializer(graph, f"{name}_number", np.array(of, dtype=np.int64))

    for axis, period in enumerate(periods):
        if 1 < period < mask.shape[axis]:
            length = insert("Gather", insert("Shape", value), number(axis))
            places = insert("Mod", insert("Range", number(0), length, number(1)), number(period))
            condition = insert("Gather", condition, places, axis=axis)
    return condition


def _period(mask: Array, axis: int) -> int:
    """After how many coordinates a mask repeats itself along an axis."""
    size = int(mask.shape[axis])
    lines = np.moveaxis(mask, axis, 0)
    for period in range(1, size):
        if size % period == 0 and (lines[period:] == lines[:-period]).all():
            return period
    return size
