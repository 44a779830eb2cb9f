"""What a node computes, as something to compare: two nodes of one key give equal outputs, bit by bit.

A key holds operator, attributes, input values and which outputs there are. Bodies of If, Loop and Scan are compared by
structure: the names inside do not count, the values they capture do.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable

import onnx_ir as ir

from irc.ir import constant_tensor
from irc.passes.simplification.tensor_content import content_key

_DOMAINS = {"": "", "ai.onnx": "", "ai.onnx.ml": "ai.onnx.ml"}
"""Operators of other domains may do anything: draw numbers, keep state, write files."""
_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)

Local = dict[ir.Value, Hashable]
"""What stands for the values that a body defines: positions and contents, never names."""


def computation_key(node: ir.Node, opset: int, local: Local | None = None) -> Hashable | None:
    """The key of a node; None if it cannot be compared: another domain, or a body that is not repeatable.

    Args:
        node: Any node.
        opset: Version of the default domain.
        local: What stands for the values of the bodies around it that are compared as well.
    """
    domain = _DOMAINS.get(node.domain)
    local = local or {}
    if domain is None:
        return None
    attributes = []
    for name in sorted(node.attributes):
        key = _attribute_key(node.attributes[name], opset, local)
        if key is None:
            return None
        attributes.append((name, key))
    inputs = tuple(None if value is None else local.get(value, value) for value in node.inputs)
    outputs = tuple(bool(output.name) for output in node.outputs)
    return domain, node.op_type, node.overload, tuple(attributes), inputs, outputs


def unrepeatable(node: ir.Node, opset: int) -> str | None:
    """Why two runs of one node on the same inputs are not one computation, or None if they are.

    Args:
        node: A node of the default domain.
        opset: Version of that domain, which decides how a node says that it is training.
    """
    if node.op_type in _RANDOM:
        return "it draws random numbers"
    if node.op_type == "Dropout" and _dropout_may_train(node, opset):
        return "it may be in training mode"
    if node.op_type == "BatchNormalization" and _normalization_may_train(node, opset):
        return "it may be in training mode"
    return None


def _dropout_may_train(node: ir.Node, opset: int) -> bool:
    if opset < 7:
        return not node.attributes.get_int("is_test", 0)
    if opset < 12 or len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    tensor = constant_tensor(node.inputs[2])
    return tensor is None or bool(tensor.numpy().any())


def _normalization_may_train(node: ir.Node, opset: int) -> bool:
    if opset < 7:
        return not node.attributes.get_int("is_test", 0)
    if opset < 14:
        return any(output.name for output in node.outputs[1:])
    return bool(node.attributes.get_int("training_mode", 0))


def _attribute_key(attribute: ir.Attr, opset: int, local: Local) -> Hashable | None:
    """Type and value of an attribute; floats by their bits, so that 0 and -0 differ and NaNs do not."""
    kind = attribute.type
    if attribute.is_ref():
        return None
    if kind == ir.AttributeType.FLOAT:
        return kind, struct.pack("<d", attribute.as_float())
    if kind == ir.AttributeType.FLOATS:
        return kind, tuple(struct.pack("<d", number) for number in attribute.as_floats())
    if kind == ir.AttributeType.INT:
        return kind, attribute.as_int()
    if kind == ir.AttributeType.INTS:
        return kind, tuple(attribute.as_ints())
    if kind == ir.AttributeType.STRING:
        return kind, attribute.as_string()
    if kind == ir.AttributeType.STRINGS:
        return kind, tuple(attribute.as_strings())
    if kind == ir.AttributeType.TENSOR:
        return kind, content_key(attribute.as_tensor())
    if kind == ir.AttributeType.TENSORS:
        return kind, tuple(content_key(tensor) for tensor in attribute.as_tensors())
    if kind == ir.AttributeType.GRAPH:
        body = _body_key(attribute.as_graph(), opset, local)
        return None if body is None else (kind, body)
    return None


def _body_key(body: ir.Graph, opset: int, around: Local) -> Hashable | None:
    """Nodes and outputs of a body, its values numbered in order and its constants by content.

    Number and types of its inputs follow from those of the node it belongs to.
    """
    local = dict(around)

    def number(value: ir.Value) -> None:
        local[value] = len(local)

    for value in body.inputs:
        number(value)
    for value in body.initializers.values():
        tensor = constant_tensor(value)
        if tensor is None:
            return None
        local[value] = content_key(tensor)
    nodes = []
    for node in body:
        if unrepeatable(node, opset) is not None:
            return None
        key = computation_key(node, opset, local)
        if key is None:
            return None
        nodes.append(key)
        for value in node.outputs:
            number(value)
    return tuple(nodes), tuple(local.get(value, value) for value in body.outputs)
