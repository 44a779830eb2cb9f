"""A model as protobuf without its weights: small at any size, enough for checkers and shape inference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import onnx
import onnx_ir as ir

from irc.ir.tensors import LARGE_BYTES, tensor_shape

PLACEHOLDER = "irc.weight"
"""The location of external tensors that stand for weights left out; no such file exists."""


@contextlib.contextmanager
def weights_detached(
    model: ir.Model, *, detach: Callable[[ir.Graph, ir.Value, ir.TensorProtocol], bool]
) -> Iterator[dict[str, ir.TensorProtocol]]:
    """Puts external placeholders in the place of chosen weights for the duration of the block.

    Only `const_value` changes, so that the graph itself is never touched. Every other external tensor is in memory
    within the block, since a relative path would mean nothing in the protobuf made there.

    Args:
        model: As before when the block ends.
        detach: Whether to detach a tensor, given its graph and its value.

    Yields:
        The detached tensors by the name of their value.
    """
    detached: dict[str, ir.TensorProtocol] = {}
    replaced: list[tuple[ir.Value, ir.TensorProtocol]] = []
    try:
        for graph in dict.fromkeys((model.graph, *model.graph.subgraphs())):
            for name, value in graph.initializers.items():
                tensor = value.const_value
                if tensor is None:
                    continue
                if detach(graph, value, tensor):
                    detached[name] = tensor
                    stand_in: ir.TensorProtocol = ir.ExternalTensor(
                        PLACEHOLDER, 0, tensor.nbytes, tensor.dtype, shape=tensor_shape(tensor), name=name
                    )
                elif isinstance(tensor, ir.ExternalTensor):
                    stand_in = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
                else:
                    continue
                replaced.append((value, tensor))
                value.const_value = stand_in
        yield detached
    finally:
        for value, tensor in replaced:
            value.const_value = tensor


def stripped_proto(model: ir.Model, *, above: int = LARGE_BYTES) -> onnx.ModelProto:
    """The model as protobuf with large initializers, those of bodies too, as inputs of the main graph.

    Args:
        model: Unchanged.
        above: Bytes from which an initializer becomes an input.
    """

    def large(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> bool:
        return tensor.nbytes >= above and not value.is_graph_input()

    with weights_detached(model, detach=large) as detached:
        proto: onnx.ModelProto = ir.to_proto(model)
    for graph in graphs_of(proto.graph):
        kept = [tensor for tensor in graph.initializer if tensor.name not in detached]
        if len(kept) != len(graph.initializer):
            del graph.initializer[:]
            graph.initializer.extend(kept)
    for name, tensor in detached.items():
        dims = [int(d) for d in tensor.shape]  # type: ignore[arg-type]
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.dtype.value, dims))
    return proto


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies of its nodes at every depth."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    pending.append(attribute.g)
                elif attribute.type == onnx.AttributeProto.GRAPHS:
                    pending.extend(attribute.graphs)


def without_opaque_nodes(proto: onnx.ModelProto, *, element_type: int | None) -> list[str]:
    """Takes nodes whose operator onnx does not know out of the protobuf; their outputs become inputs of the main graph.

    onnx stops reporting contradictions anywhere in a model that has one such node. Functions that could not be inlined
    are such operators too: onnx refuses a function of another opset.

    Args:
        proto: A stripped model with unique names; changed in place.
        element_type: Type of the new inputs, or None for the declared type if there is one.

    Returns:
        The names of the new inputs.
    """
    versions = {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import}
    functions = {(f.domain, f.name) for f in proto.functions}
    del proto.functions[:]
    names: list[str] = []
    # Bodies first: the nodes of a graph are copied below, and with them the bodies they hold.
    for graph in reversed(list(graphs_of(proto.graph))):
        opaque = [node for node in graph.node if is_opaque(node, versions, functions)]
        if not opaque:
            continue
        declared = {info.name: info for info in (*graph.value_info, *graph.output)}
        given = {info.name for info in graph.output} if graph is not proto.graph else set()
        passed: list[onnx.NodeProto] = []
        for node in opaque:
            for name in node.output:
                if not name:
                    continue
                names.append(name)
                source = name
                if name in given:  # a body must compute its outputs
                    source = f"{name}.opaque"
                    passed.append(onnx.helper.make_node("Identity", [source], [name]))
                info = proto.graph.input.add(name=source)
                if element_type is not None:
                    info.type.tensor_type.elem_type = element_type
                    info.type.tensor_type.shape.SetInParent()
                elif name in declared and declared[name].HasField("type"):
                    info.type.CopyFrom(declared[name].type)
        kept = [node for node in graph.node if not is_opaque(node, versions, functions)]
        del graph.node[:]
        graph.node.extend([*passed, *kept])
    return names


def is_opaque(node: onnx.NodeProto, versions: dict[str, int], functions: set[tuple[str, str]]) -> bool:
    """Whether onnx does not define the operator; one that it has in another opset only is not opaque.

    Args:
        node: A node of the main graph or of a body.
        versions: Version by domain, the default domain as "ai.onnx".
        functions: Domain and name of the model's own functions.
    """
    if (node.domain, node.op_type) in functions:
        return True
    domain = node.domain or "ai.onnx"
    if domain not in versions:
        return False
    return not onnx.defs.has(node.op_type, domain="" if domain == "ai.onnx" else domain)
