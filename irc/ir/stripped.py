"""A model as protobuf without its weights: small at any size, enough for checkers and shape inference."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnx
import onnx_ir as ir

LARGE_BYTES = 1024
"""Tensors above this are weights, not shapes: they are left out. Smaller ones may drive shape inference."""


@contextlib.contextmanager
def without_weights(model: ir.Model, *, above: int = LARGE_BYTES) -> Iterator[None]:
    """Takes large initializers out of the model for the duration of the block.

    They become typed inputs of the main graph, or lose their tensor in a body, so that checkers see a complete graph.
    """
    removed: list[tuple[ir.Graph, str, ir.Value]] = []
    added = []
    try:
        for graph in (model.graph, *model.graph.subgraphs()):
            for name, value in list(graph.initializers.items()):
                tensor = value.const_value
                if tensor is None or tensor.nbytes <= above or value.is_graph_input():
                    continue
                if graph is not model.graph:
                    continue
                removed.append((graph, name, value))
                if value.type is None:
                    value.type = ir.TensorType(tensor.dtype)
                if value.shape is None:
                    value.shape = ir.Shape(tensor.shape)
        order = [(graph, list(graph.initializers.items())) for graph in {id(g): g for g, _, _ in removed}.values()]
        for graph, name, value in removed:
            del graph.initializers[name]
            graph.inputs.append(value)
            added.append((graph, value))
        yield
    finally:
        for graph, value in reversed(added):
            graph.inputs.pop()
        for graph, items in order if removed else []:
            graph.initializers.clear()
            for _, value in items:
                graph.register_initializer(value)


def stripped_proto(model: ir.Model, *, above: int = LARGE_BYTES) -> onnx.ModelProto:
    """The model as protobuf with large initializers as inputs of the main graph; the model is unchanged afterwards.

    The IR version is at least 4, below which initializers had to be inputs.
    """
    with without_weights(model, above=above):
        proto: onnx.ModelProto = ir.to_proto(model)
    return proto
