"""The few safe verbs passes edit a graph with; public names, order and types of inputs and outputs always survive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from irc.ir.names import unique_name

MODULE_KEY = "irc.module"


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor a value always has, or None: initializers that callers may override (graph inputs) are not constant."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None and (value.is_initializer() or value.producer() is not None):
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or producer.domain not in ("", "ai.onnx"):
        return None
    found: ir.TensorProtocol | None = ir.convenience.get_const_tensor(value)
    return found


def constant(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The array a value always has, read-only, or None if it is not constant. Keep the array: a call may copy."""
    tensor = constant_tensor(value)
    if tensor is None:
        return None
    array = np.asarray(tensor.numpy()).view()
    array.flags.writeable = False
    return array


def is_graph_output(value: ir.Value) -> bool:
    """Whether the value is an output of its graph."""
    return value.is_graph_output()


def is_graph_input(value: ir.Value) -> bool:
    """Whether the value is an input of its graph."""
    return value.is_graph_input()


def only_consumer(value: ir.Value, node: ir.Node) -> bool:
    """Whether the value is used exactly once, by this node, and is not a graph output."""
    uses = list(value.uses())
    return len(uses) == 1 and uses[0].node is node and not value.is_graph_output()


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
    value = ir.Value(name=name, shape=ir.Shape(stored.shape), type=ir.TensorType(stored.dtype), const_value=stored)
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
        outputs: Number of outputs to keep, from the first; default all.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    count = len(node.outputs) if outputs is None else outputs
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


def module_metadata(node: ir.Node) -> dict[str, str]:
    """The metadata a node built in the place of `node` inherits: the module it belongs to."""
    return {MODULE_KEY: node.metadata_props[MODULE_KEY]} if MODULE_KEY in node.metadata_props else {}


def can_replace(old: ir.Value, new: ir.Value) -> bool:
    """Whether `replace_value(old, new)` needs no Identity.

    A graph output must keep its name, so its replacement must be a value that can take the name: the output of a node in
    the same graph which is not a graph output itself.
    """
    if not old.is_graph_output():
        return True
    return (
        new.producer() is not None
        and not new.is_graph_output()
        and not new.is_graph_input()
        and new.graph is old.graph
        and sum(value is old for value in old.graph.outputs) == 1  # type: ignore[union-attr]
    )


def replace_value(old: ir.Value, new: ir.Value) -> bool:
    """Makes all users of `old`, in subgraphs too, use `new`; a graph output keeps its public name, type and position.

    Returns:
        False if an Identity had to be left because `new` cannot take the name of the graph output `old`.
    """
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return True
    if can_replace(old, new):
        name, type_, shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = None
        new.name = name
        new.type = type_ if type_ is not None else new.type
        new.shape = shape if shape is not None else new.shape
        return True
    for use in list(old.uses()):
        use.node.replace_input_with(use.idx, new)
    producer = old.producer()
    assert producer is not None
    if producer.op_type == "Identity" and producer.inputs[0] is new:
        return False
    identity = ir.Node("", "Identity", [new], num_outputs=1, metadata_props=module_metadata(producer))
    graph = producer.graph
    assert graph is not None
    graph.insert_after(producer, identity)
    output = identity.outputs[0]
    output.name, output.type, output.shape = old.name, old.type, old.shape
    old.replace_all_uses_with(output, replace_graph_outputs=True)
    old.name = None
    return False


def bypass(node: ir.Node, value: ir.Value) -> bool:
    """Removes a node with one used output, `value` taking its place.

    Returns:
        False, with nothing changed, if that would need an Identity in place of the node.
    """
    old = node.outputs[0]
    if not can_replace(old, value) or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return False
    replace_value(old, value)
    graph = node.graph
    assert graph is not None
    graph.remove(node, safe=True)
    return True


def remove_dead(model: ir.Model) -> int:
    """Removes nodes, initializers, functions and opset imports that nothing uses; returns the number of nodes removed."""
    before = sum(1 for _ in model.graph.all_nodes())
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.RemoveUnusedFunctionsPass()(model)
    common_passes.RemoveUnusedOpsetsPass()(model)
    return before - sum(1 for _ in model.graph.all_nodes())


def snapshot(model: ir.Model) -> ir.Model:
    """A copy that can be edited without touching the original; tensors are shared, so it is cheap."""
    from irc.ir.names import track

    copy: ir.Model = model.clone()
    track(copy)
    return copy
