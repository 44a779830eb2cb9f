"""The zero oracle: the full model in which products do not see what was cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import Labelled, Propagation
from irc.channel_surgery.layout import spread
from irc.ir import add_initializer, snapshot, unique_name

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
        for index, value in enumerate(original.inputs):
            if value is None:
                continue
            tensor = propagation.recorded(original, index)
            if all(alive[bundle.labels].all() for bundle in tensor.bundles):
                continue
            source = node.inputs[index]
            if propagation.varies(value):
                assert source is not None
                node.replace_input_with(index, _where(model, node, source, _mask(tensor, alive)))
    return model


def _mask(tensor: Labelled, alive: Array) -> Array:
    mask = np.ones([1] * tensor.rank, dtype=bool)
    for bundle in tensor.bundles:
        mask = mask & spread(bundle, alive[bundle.labels], tensor.rank)
    return mask


def _where(model: ir.Model, node: ir.Node, value: ir.Value, mask: Array) -> ir.Value:
    graph = model.graph
    dtype = (value.dtype or ir.DataType.FLOAT).numpy()
    name = unique_name(graph, f"{value.name}_masked")
    condition = add_initializer(graph, f"{name}_mask", mask)
    zero = add_initializer(graph, f"{name}_zero", np.zeros((), dtype=dtype))
    where = ir.Node("", "Where", [condition, value, zero], num_outputs=1, name=name)
    where.outputs[0].name, where.outputs[0].type = name, value.type
    graph.insert_before(node, where)
    return where.outputs[0]
