"""Initializers replaced slot by slot; a small one that its uses now want differently gets a copy per use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Propagation
from irc.analysis.channels.slots import Slot
from irc.ir import add_initializer, constant, constant_tensor
from irc.ir.tensors import tensor_shape

Array = np.ndarray[Any, Any]


def replace_slots(
    model: ir.Model,
    propagation: Propagation,
    nodes: Sequence[tuple[ir.Node, ir.Node]],
    change: Callable[[Slot, Array], Array | None],
) -> None:
    """Replaces labelled initializers in place.

    Args:
        model: The model to edit.
        propagation: Labels of the model that was analysed.
        nodes: Nodes of `model` and the analysed nodes they stand for.
        change: The new elements of a slot from its old ones, or None to leave it.
    """
    here = {original: node for node, original in nodes}
    wanted: dict[str, list[tuple[Slot, Array | None]]] = {}
    for slot in propagation.slots:
        old = constant(model.graph.initializers.get(slot.name))
        if old is not None:
            wanted.setdefault(slot.name, []).append((slot, change(slot, old)))
    for name, changes in wanted.items():
        value = model.graph.initializers[name]
        tensor = constant_tensor(changes[0][0].initializer)
        assert tensor is not None
        dtype = tensor.dtype
        arrays = {None if new is None else (new.shape, new.tobytes()): new for _slot, new in changes}
        if changes[0][0].use is None or (len(arrays) == 1 and _covered(value, [slot for slot, _new in changes], here)):
            new = next(iter(arrays.values()))
            if new is not None:
                _store(value, new, dtype)
            continue
        copies: dict[Any, ir.Value] = {}
        for slot, new in changes:
            assert slot.use is not None
            node, index = here[slot.use[0]], slot.use[1]
            if new is None or node.graph is None or node.inputs[index] is not value:
                continue
            key = (new.shape, new.tobytes())
            if key not in copies:
                copies[key] = add_initializer(model.graph, name, ir.tensor(np.ascontiguousarray(new), dtype=dtype))
            node.replace_input_with(index, copies[key])
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def _covered(value: ir.Value, slots: Sequence[Slot], here: Mapping[ir.Node, ir.Node]) -> bool:
    """Whether every use of an initializer has a slot, so that all of them change alike."""
    found = {(here[slot.use[0]], slot.use[1]) for slot in slots if slot.use is not None}
    return not value.is_graph_output() and all((use.node, use.idx) in found for use in value.uses())


def _store(value: ir.Value, array: Array, dtype: ir.DataType) -> None:
    tensor = ir.tensor(np.ascontiguousarray(array), dtype=dtype, name=value.name)
    value.const_value, value.shape = tensor, tensor_shape(tensor)
