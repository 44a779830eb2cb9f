"""What to look at before a replacement that somebody else's rule built takes its place.

Each function gives the reason against it in words, or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir

from irc.ir import constant, constant_tensor
from irc.passes.simplification.scopes import STANDARD_DOMAINS

_COMPARES_SHAPES = frozenset(("Expand", "ScatterND"))
_BELIEVES_SHAPES = frozenset(("Expand", "Reshape", "ScatterND"))
_NO_COST = frozenset(("Constant", "Identity"))


def missing_in_opset(node: ir.Node, opset: int) -> str | None:
    """An operator, attribute or number of inputs that the opset of the model does not have."""
    if node.domain not in STANDARD_DOMAINS:
        return f"it would need operators of {node.domain}"
    try:
        schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=opset, domain="")
    except onnx.defs.SchemaError:
        return f"there is no {node.op_type} in opset {opset}"
    unknown = [name for name in node.attributes if name not in schema.attributes]
    if unknown:
        return f"{node.op_type} of opset {opset} has no attribute {unknown[0]}"
    if not schema.min_input <= len(node.inputs) <= schema.max_input:
        return f"{node.op_type} of opset {opset} does not take {len(node.inputs)} inputs"
    return None


def lost_attribute(root: ir.Node, new_nodes: Sequence[ir.Node]) -> str | None:
    """An attribute that the operator had and its successor of the same type has not; or one that no rule looks at."""
    for node in new_nodes:
        gone = [name for name in root.attributes if name not in node.attributes]
        if node.op_type == root.op_type and gone:
            return f"the rule forgets the attribute {gone[0]} of {root.op_type}"
    reduction = root.attributes.get_string("reduction", "none") if root.op_type == "ScatterND" else "none"
    return None if reduction == "none" else f"the rule overlooks that ScatterND has reduction {reduction}"


def undefined_shape(new_nodes: Sequence[ir.Node]) -> str | None:
    """A Reshape to a 0 that stands for itself beside a -1, which could then be any number."""
    for node in new_nodes:
        dims = constant(node.inputs[1]) if node.attributes.get_int("allowzero", 0) else None
        if dims is not None and {0, -1} <= set(dims.tolist()):
            return "a Reshape cannot tell what -1 is beside a dimension of 0"
    return None


def wrong_rank(nodes: Sequence[ir.Node]) -> str | None:
    """An Expand that adds axes, or enlarges the input of a PRelu: what follows does not make up for it."""
    root = nodes[0]
    for node in nodes:
        if node.op_type != "Expand":
            continue
        if root.op_type == "PRelu":
            return "PRelu does not enlarge its input"
        expanded = node.outputs[0]
        source = node.inputs[0]
        others = [value for value in (source, *root.inputs) if value is not None and value is not expanded]
        ranks = [-1 if value.shape is None else len(value.shape) for value in others]
        if expanded.shape is None or len(expanded.shape) > max(ranks):
            return "the Expand may add axes"
    return None


def unsure_shape(nodes: Sequence[ir.Node], model: ir.Model) -> str | None:
    """A dimension that a rule may have believed although it need not be what it says.

    Unnamed dimensions look equal to each other, a name may stand for several sizes in bodies, and what outputs of the
    model declare no runtime checks.
    """
    values = [value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None]
    if any(node.op_type in _BELIEVES_SHAPES for node in nodes):
        for value in values:
            if value.is_graph_output() and value.graph is model.graph and not value.is_graph_input():
                return f"{value.name!r} is an output of the model, whose declared shape no runtime checks"
    if not any(node.op_type in _COMPARES_SHAPES for node in nodes):
        return None
    for value in values:
        if constant_tensor(value) is not None:
            continue
        if value.shape is None:
            return f"the rank of {value.name!r} is not known"
        symbols = [dim for dim in value.shape if not isinstance(dim, int)]
        if any(dim.value is None for dim in symbols):
            return f"not all dimensions of {value.name!r} are known"
        if symbols and value.graph is not model.graph:
            return f"dimensions of {value.name!r} may change from one iteration to the next"
    return None


def not_smaller(delta: Any) -> str | None:
    """That there would be more nodes or bytes than before, or as many of both.

    Args:
        delta: A `ReplacementSubgraph` of onnxscript whose new values have names.
    """
    removed, constants = _freed(delta.match.nodes[0])
    added = [node for node in delta.new_nodes if node.op_type not in _NO_COST]
    if len(added) > len(removed):
        return f"it would make {len(added)} nodes of {len(removed)}"
    stored = [constant_tensor(value) for value in delta.new_initializers]
    stored += [constant_tensor(node.outputs[0]) for node in delta.new_nodes if node.op_type == "Constant"]
    before = sum(map(_node_bytes, removed)) + sum(map(_tensor_bytes, map(constant_tensor, constants)))
    after = sum(map(_node_bytes, added)) + sum(map(_tensor_bytes, stored))
    # What is new says the names of what it replaces as soon as it takes its place.
    named = zip(delta.new_outputs, delta.match.outputs, strict=True)
    after += sum(len(old.name or "") + 2 for new, old in named if new.producer() in added)
    if after > before or (after == before and len(added) == len(removed)):
        return f"the replacement takes {after} bytes, and what it replaces {before}"
    return None


def _freed(root: ir.Node) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes and initializers that go when the outputs of a node are computed otherwise."""
    removed: dict[ir.Node, None] = {root: None}
    constants: dict[ir.Value, None] = {}
    pending = list(root.inputs)
    while pending:
        value = pending.pop()
        if value is None or value.is_graph_output():
            continue
        if any(use.node not in removed for use in value.uses()):
            continue
        node = value.producer()
        if node is None:
            if value.is_initializer():
                constants[value] = None
        elif node not in removed and all(
            not other.is_graph_output() and all(use.node in removed for use in other.uses()) for other in node.outputs
        ):
            removed[node] = None
            pending += node.inputs
    return list(removed), list(constants)


def _node_bytes(node: ir.Node) -> int:
    """Bytes of a node without what says nothing about its work: its name and the module it came from."""
    size: int = ir.serde.serialize_node(node).ByteSize()
    name = len(node.name) + 2 if node.name else 0
    return 2 + size - name - sum(len(key) + len(text) + 6 for key, text in node.metadata_props.items())


def _tensor_bytes(tensor: ir.TensorProtocol | None) -> int:
    return 0 if tensor is None else tensor.nbytes + len(tensor.name or "") + 10 + 2 * len(tensor.shape)
