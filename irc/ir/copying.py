"""Copies of a model that share nothing which can be edited."""

from __future__ import annotations

import copy

import onnx_ir as ir

from irc.ir.names import track


def snapshot(model: ir.Model) -> ir.Model:
    """A copy that can be edited without touching the original; tensors are shared, so it is cheap.

    Args:
        model: In topological order.
    """
    result: ir.Model = model.clone()
    result.meta.update(model.meta)
    # clone() shares the types of values, and `value.dtype = x` writes into the type.
    graphs = [result.graph, *result.graph.subgraphs()]
    for function in result.functions.values():
        graphs += [function.graph, *function.graph.subgraphs()]
    for graph in dict.fromkeys(graphs):
        for value in (*graph.inputs, *graph.initializers.values()):
            _own_type(value)
        for node in graph:
            for value in node.outputs:
                _own_type(value)
    track(model)
    track(result)
    return result


def _own_type(value: ir.Value) -> None:
    old = value.type
    if isinstance(old, ir.TensorType):
        value.type = ir.TensorType(old.dtype, denotation=old.denotation)
    elif old is not None:
        value.type = copy.deepcopy(old)
