"""Initializers replaced slot by slot; a small one that its uses now want differently gets a copy per use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Propagation
from irc.analysis.channels.slots import Slot
from irc.ir import add_initializer, constant
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
    copies: dict[tuple[str, bytes], ir.Value] = {}
    for slot in propagation.slots:
        value = model.graph.initializers.get(slot.name)
        old = constant(slot.initializer)
        if value is None or old is None:
            continue
        new = change(slot, old)
        if new is None:
            continue
        dtype = slot.initializer.dtype
        assert dtype is not None
        if slot.use is None:
            _store(value, new, dtype)
            continue
        node, index = here[slot.use[0]], slot.use[1]
        if node.graph is None:
            continue
        key = (slot.name, new.tobytes())
        if key not in copies:
            copies[key] = add_initializer(model.graph, slot.name, ir.tensor(new, dtype=dtype))
        node.replace_input_with(index, copies[key])
    for slot in propagation.slots:
        value = model.graph.initializers.get(slot.name)
        if slot.use is not None and value is not None and not value.uses() and not value.is_graph_output():
            del model.graph.initializers[slot.name]


def _store(value: ir.Value, array: Array, dtype: ir.DataType) -> None:
    tensor = ir.tensor(np.ascontiguousarray(array), dtype=dtype, name=value.name)
    value.const_value, value.shape = tensor, tensor_shape(tensor)
