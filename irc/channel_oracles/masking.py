"""The zero oracle: the full model in which products do not see what was cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Labelled, Propagation
from irc.channel_surgery.layout import spread
from irc.ir import add_initializer, constant, refresh_shapes, snapshot, unique_name

Array = np.ndarray[Any, Any]
_WHERE_SINCE = 9


def masked(propagation: Propagation, alive: Array) -> ir.Model:
    """The analysed model with zeros in front of every product where labels do not survive.

    Its outputs are those of the cut model if no statistic depends on what is cut.

    Args:
        propagation: Labels of all values.
        alive: A boolean per label.
    """
    model = snapshot(propagation.model)
    refresh_shapes(model, strict=False)  # zeros have the type of what they stand for
    for node, original in list(zip(model.graph, propagation.model.graph, strict=True)):
        if original not in propagation.products:
            continue
        product = propagation.products[original]
        for index in product.inner:
            _zero_weight(model, propagation, node, original, index, alive)
        computed = [value is not None and propagation.varies(value) for value in original.inputs]
        everything = not any(computed) or original.op_type == "Einsum"  # which may sum over what only weights have
        for index, value in enumerate(original.inputs):
            if value is None or index in product.inner or not (computed[index] or everything):
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
    """Where(mask, value, zero), or before opset 9, where all values are floats, mask * value."""
    graph = model.graph
    dtype = value.dtype or ir.DataType.FLOAT
    insert = _Inserter(graph, node, unique_name(graph, f"{value.name}_masked"))
    condition = _condition(insert, value, mask)
    if graph.opset_imports.get("", 1) < _WHERE_SINCE:
        made = insert("Mul", insert("Cast", condition, to=int(dtype)), value)
    else:
        zero = node.inputs[zero_point] if zero_point is not None and zero_point < len(node.inputs) else None
        made = insert("Where", condition, value, zero or insert.constant(np.zeros((), dtype=dtype.numpy())))
    made.type = value.type
    return made


@dataclasses.dataclass(frozen=True)
class _Inserter:
    """Puts nodes in front of a node.

    Attributes:
        graph: Its graph.
        node: The node.
        name: What names start with.
    """

    graph: ir.Graph
    node: ir.Node
    name: str

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        given = [ir.AttrInt64(key, number) for key, number in attributes.items()]
        name = unique_name(self.graph, f"{self.name}_{op_type.lower()}")
        made = ir.Node("", op_type, inputs, given, num_outputs=1, name=name)
        made.outputs[0].name = name
        self.graph.insert_before(self.node, made)
        return made.outputs[0]

    def constant(self, array: Array) -> ir.Value:
        return add_initializer(self.graph, f"{self.name}_constant", array)


def _condition(insert: _Inserter, value: ir.Value, mask: Array) -> ir.Value:
    """The mask for whatever size a value has.

    Along an axis into which the batch is merged the mask repeats, as often as the axis is long: Tile(mask, lengths / periods).
    """
    dims: Sequence[object] = list(value.shape) if value.shape is not None else [None] * mask.ndim
    periods = [size if isinstance(dims[axis], int) else _period(mask, axis) for axis, size in enumerate(mask.shape)]
    condition = insert.constant(mask[tuple(slice(period) for period in periods)])
    repeats = np.array([1 < period < size for period, size in zip(periods, mask.shape, strict=True)], dtype=np.int64)
    if not repeats.any():
        return condition
    lengths = insert("Mul", insert("Shape", value), insert.constant(repeats))
    lengths = insert("Add", lengths, insert.constant((1 - repeats) * np.array(periods)))
    return insert("Tile", condition, insert("Div", lengths, insert.constant(np.array(periods, dtype=np.int64))))


def _period(mask: Array, axis: int) -> int:
    """After how many coordinates a mask repeats itself along an axis."""
    size = int(mask.shape[axis])
    lines = np.moveaxis(mask, axis, 0)
    for period in range(1, size):
        if size % period == 0 and (lines[period:] == lines[:-period]).all():
            return period
    return size
