"""Let the users of a node use one of its inputs instead, which has been shown to be the same."""

from __future__ import annotations

import onnx_ir as ir

from irc.ir import bypass, replace_node
from irc.passes.simplification.unused import remove_unused


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
