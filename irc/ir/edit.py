"""The few safe verbs passes edit a graph with; public names, order and types of inputs and outputs always survive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from irc.ir.bodies import bodies
from irc.ir.exporter_metadata import module_metadata
from irc.ir.names import unique_name
from irc.ir.tensors import tensor_shape


def add_initializer(
    graph: ir.Graph, hint: str, tensor: ir.TensorProtocol | np.ndarray[Any, Any] | np.generic
) -> ir.Value:
    """Registers a constant under a free name and returns its value, type and shape set.

    Args:
        graph: The graph (or body) to register it in.
        hint: What the name should look like.
        tensor: An array or any `onnx_ir` tensor; a `LazyTensor` is not evaluated.
    """
    name = unique_name(graph, hint)
    if isinstance(tensor, np.ndarray | np.generic):
        stored: ir.TensorProtocol = ir.tensor(np.asarray(tensor), name=name)
    else:
        stored = tensor
        stored.name = name
    value = ir.Value(name=name, shape=tensor_shape(stored), type=ir.TensorType(stored.dtype), const_value=stored)
    graph.register_initializer(value)
    return value


def replace_node(
    node: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    domain: str = "",
    outputs: int | None = None,
) -> ir.Node:
    """Puts another operator in the place of a node; its outputs keep their names, types, shapes and uses.

    Args:
        node: Removed from its graph.
        op_type: The new operator.
        inputs: Its inputs, None for an omitted optional one.
        attributes: Python values or `ir.Attr`; None for none.
        domain: Operator domain.
        outputs: Number of outputs of the new node, default as many as `node` has. The first ones are `node`'s; more get
            names of their own.

    Raises:
        ValueError: If `node` is in no graph or an output that would go away is used; nothing is changed then.
    """
    graph = node.graph
    if graph is None:
        raise ValueError(f"node {node.name!r} is not in a graph")
    count = len(node.outputs) if outputs is None else outputs
    for gone in node.outputs[count:]:
        if gone.uses() or gone.is_graph_output():
            raise ValueError(f"output {gone.name!r} of node {node.name!r} is used; keep {len(node.outputs)} outputs")
    new = ir.Node(
        domain,
        op_type,
        inputs,
        as_attributes(attributes),
        num_outputs=count,
        name=node.name,
        metadata_props=module_metadata(node),
    )
    for old_value, new_value in zip(node.outputs, new.outputs, strict=False):
        new_value.name, new_value.type, new_value.shape = old_value.name, old_value.type, old_value.shape
    for extra in new.outputs[len(node.outputs) :]:
        root = graph if isinstance(graph, ir.Graph) else graph.graph
        extra.name = unique_name(root, f"{node.outputs[0].name}_{extra.index()}")
    graph.insert_before(node, new)
    for old_value, new_value in zip(node.outputs, new.outputs, strict=False):
        old_value.replace_all_uses_with(new_value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return new


def as_attributes(attributes: Mapping[str, Any] | None) -> list[ir.Attr]:
    """Python values or `ir.Attr` as a list of attributes."""
    if not attributes:
        return []
    return [v if isinstance(v, ir.Attr) else ir.convenience.convert_attribute(k, v) for k, v in attributes.items()]


def can_replace(old: ir.Value, new: ir.Value) -> bool:
    """Whether `replace_value(old, new)` needs no Identity.

    A graph output must keep its name, so its replacement must be a value that can take the name: the output of a node
    in the same graph which is not a graph output itself.
    """
    graph = old.graph
    if not old.is_graph_output() or graph is None:
        return True
    return (
        new.producer() is not None
        and not new.is_graph_output()
        and not new.is_graph_input()
        and new.graph is graph
        and sum(value is old for value in graph.outputs) == 1
    )


def replace_value(old: ir.Value, new: ir.Value) -> bool:
    """Makes all users of `old`, in bodies too, use `new`; a graph output keeps its name, type, shape and position.

    `old` stays where it is, unused, under another name if it gave its own away.

    Returns:
        False if an Identity had to be left because `new` cannot take the name of the graph output `old`: it is a graph
        input, an initializer, an output itself, or of another graph.

    Raises:
        ValueError: If `old` is an input that is passed through to an output: no other value can have its name.
    """
    if old is new:
        return True
    if old.is_graph_input() and old.is_graph_output():
        raise ValueError(f"input {old.name!r} is also an output, so that nothing else can be called so")
    graph = old.graph
    if not old.is_graph_output() or not isinstance(graph, ir.Graph):
        old.replace_all_uses_with(new)
        return True
    name, type_, shape = old.name, old.type, old.shape
    if can_replace(old, new):
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = unique_name(graph, f"{name}_replaced")
        new.name = name
        new.type = type_ if type_ is not None else new.type
        new.shape = shape if shape is not None else new.shape
        return True
    for use in list(old.uses()):
        if not _is_identity(use.node, of=new, to=old):
            use.node.replace_input_with(use.idx, new)
    producer = old.producer()
    if producer is not None and _is_identity(producer, of=new, to=old):
        return False
    metadata = module_metadata(producer) if producer is not None else {}
    identity = ir.Node("", "Identity", [new], num_outputs=1, name=f"{name}_identity", metadata_props=metadata)
    output = identity.outputs[0]
    output.name, output.type, output.shape = name, type_, shape
    old.replace_all_uses_with(output, replace_graph_outputs=True)
    old.name = unique_name(graph, f"{name}_replaced")
    # At the end, since only graph outputs use it and `new` may be computed after `old`.
    graph.append(identity)
    return False


def _is_identity(node: ir.Node, *, of: ir.Value, to: ir.Value) -> bool:
    return node.op_type == "Identity" and node.domain == "" and node.inputs[0] is of and node.outputs[0] is to


def bypass(node: ir.Node, value: ir.Value) -> bool:
    """Removes a node with one used output, `value` taking its place.

    Returns:
        False, with nothing changed, if that would need an Identity in place of the node.
    """
    old = node.outputs[0]
    graph = node.graph
    if graph is None or not can_replace(old, value) or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return False
    replace_value(old, value)
    graph.remove(node, safe=True)
    return True


def _let_go(node: ir.Node) -> int:
    """Ends the uses that the bodies of a removed node still make of values outside; returns how many there were."""
    count = 0
    for body in bodies(node):
        for inner in body.all_nodes():
            for index, value in enumerate(inner.inputs):
                if value is not None:
                    inner.replace_input_with(index, None)
                    count += 1
    return count


def remove_dead(model: ir.Model) -> int:
    """Removes what nothing uses: nodes, initializers, optional outputs, functions, opset imports.

    Graph inputs stay. A node's effect is its outputs: ONNX has no others.

    Returns:
        The number of nodes removed, in bodies too.
    """
    before = sum(1 for _ in model.graph.all_nodes())
    while True:
        holders = [node for node in model.graph.all_nodes() if any(True for _ in bodies(node))]
        common_passes.RemoveUnusedNodesPass()(model)
        if not sum(_let_go(node) for node in holders if node.graph is None):
            break
    for graph in dict.fromkeys((model.graph, *model.graph.subgraphs())):
        for name, value in list(graph.initializers.items()):
            if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                del graph.initializers[name]
    common_passes.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    common_passes.RemoveUnusedOpsetsPass()(model)
    return before - sum(1 for _ in model.graph.all_nodes())
