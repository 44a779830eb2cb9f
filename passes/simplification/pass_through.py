"""Let the users of a node use one of its inputs instead, which has been shown to be the same."""

from __future__ import annotations

import onnx_ir as ir

from irc.ir import bypass, can_replace, constant_tensor, replace_node
from irc.passes.simplification.node_size import node_bytes
from irc.passes.simplification.unused import remove_unused

NO_GAIN = "it gives a graph output a name that its input cannot take, as an Identity would"


def why_no_gain(node: ir.Node, source: ir.Value) -> str | None:
    """Why `pass_through` would win nothing: an Identity of the same size would take the place of the node; or None.

    Args:
        node: Its other outputs are unused.
        source: What its users are to use instead.
    """
    if can_replace(node.outputs[0], source):
        return None
    identity = 16 + len(source.name or "") + len(node.outputs[0].name or "")
    freed = node_bytes(node)
    for value in dict.fromkeys(node.inputs):
        tensor = constant_tensor(value)
        if value is not None and tensor is not None and all(use.node is node for use in value.uses()):
            freed += tensor.nbytes
    return NO_GAIN if freed <= identity else None


def pass_through(node: ir.Node, source: ir.Value) -> None:
    """Removes a node with one used output in favour of an input, and what only the node used.

    Where the output is an output of its graph whose name the input cannot take, an Identity takes the node's place.

    Args:
        node: Its other outputs are unused.
        source: The same tensor as its first output, whatever the model is fed; one of its inputs, or behind one.
    """
    target = node.outputs[0]
    type_, shape = target.type, target.shape
    known = source.shape
    others = [value for value in node.inputs if value is not None and value is not source]
    if not bypass(node, source):
        replace_node(node, "Identity", [source], outputs=1)
    elif source.is_graph_output():
        source.shape = _refined(shape, known)
    elif not source.is_graph_input():
        source.type = source.type if source.type is not None else type_
        source.shape = source.shape if source.shape is not None else shape
    remove_unused(others)


def _refined(declared: ir.Shape | None, known: ir.Shape | None) -> ir.Shape | None:
    """The shape a graph output declares, with the numbers that are known."""
    if declared is None or known is None or len(declared) != len(known):
        return declared if declared is not None else known
    return ir.Shape(
        [k if isinstance(k, int) and not isinstance(d, int) else d for d, k in zip(declared, known, strict=True)]
    )
