"""What to call an operator where people read: its module or weight, its kernel and groups, the widths it goes between."""

from __future__ import annotations

import re

import onnx_ir as ir

from irc.analysis.channels.product_terms import RECURRENT
from irc.analysis.channels.roles import CONVOLUTIONS, Operator
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.pass_base import node_id

_ANONYMOUS = re.compile(r"(val|onnx::\w+|getitem|_?v|tensor|p|w|const\w*)_?\d*", re.IGNORECASE)
_ENDINGS = (".weight", ".weights", ".kernel", "_weight", "_output_0")


def title(operator: Operator) -> str:
    """The PyTorch module, the name of the largest weight, or the node's id, whichever tells the most."""
    module = operator.node.metadata_props.get("irc.module", "")
    if module:
        return module
    for slot in operator.weights:
        if not _ANONYMOUS.fullmatch(slot.name):
            return _stem(slot.name)
    return _stem(node_id(operator.node))


def label(operator: Operator, shapes: ConcreteShapes) -> str:
    """The type, with what tells operators of it apart: "Conv 3x3 depthwise", "MatMul, no weight"."""
    node = operator.node
    if node.op_type not in CONVOLUTIONS:
        return node.op_type if operator.weights else f"{node.op_type}, no weight"
    weight = shapes.static(node.inputs[3 if node.op_type == "QLinearConv" else 1]) or ()
    groups = node.attributes.get_int("group", 1)
    inputs = (shapes.static(node.inputs[0]) or (0, 0))[1]
    parts = [node.op_type, "x".join(map(str, weight[2:]))]
    if groups > 1:
        parts.append("depthwise" if groups == inputs else f"in {groups} groups")
    return " ".join(part for part in parts if part)


def widths(node: ir.Node, shapes: ConcreteShapes) -> tuple[int | None, int | None]:
    """Sizes of the index an operator sums over, or looks up, and of the one it makes; None where a shape is unknown."""
    first = shapes.static(node.inputs[0]) if node.inputs else None
    made = shapes.static(node.outputs[0])
    if not first or not made:
        return None, None
    if node.op_type in CONVOLUTIONS:
        return first[1], made[1]
    if node.op_type == "Gather":
        return first[node.attributes.get_int("axis", 0)], made[-1]
    if node.op_type == "Gemm":
        return first[-2 if node.attributes.get_int("transA", 0) else -1], made[-1]
    if node.op_type in RECURRENT:
        return first[-1], node.attributes.get_int("hidden_size", 0) or None
    return first[-1], made[-1]


def _stem(name: str) -> str:
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name
