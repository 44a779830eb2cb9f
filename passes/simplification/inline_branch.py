"""Replace an If whose condition is known by the branch it takes.

y = If(true) { p = Neg(x) -> p } else { ... }   =>   y = Neg(x)
"""

from __future__ import annotations

import onnx_ir as ir

from irc.ir import constant, replace_value
from irc.passes.simplification.unused import release_bodies, remove_unused


def known_branch(node: ir.Node) -> ir.Graph | None:
    """The body an If always runs, or None if the node is no If or its condition is not constant."""
    if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
        return None
    condition = constant(node.inputs[0])
    if condition is None or condition.size != 1:
        return None
    return node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()


def inline_branch(node: ir.Node, branch: ir.Graph) -> None:
    """Moves the nodes and constants of a branch to where the If is, and removes the If.

    Args:
        node: The If, in a model whose names are unique.
        branch: The one of its bodies that runs.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    results = move_before(node, branch)
    for old, new in zip(node.outputs, results, strict=True):
        new.type = new.type if new.type is not None else old.type
        new.shape = new.shape if new.shape is not None else old.shape
        replace_value(old, new)
    released = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    remove_unused([*released, *release_bodies(node)])


def move_before(node: ir.Node, body: ir.Graph) -> list[ir.Value]:
    """Moves the nodes and constants of a body in front of a node, which makes the body useless.

    Args:
        node: The one the body belongs to; it stays where it is.
        body: A body whose inputs nothing uses, in a model whose names are unique.

    Returns:
        What were the outputs of the body.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    results = list(body.outputs)
    body.outputs.clear()
    constants = list(body.initializers.values())
    body.initializers.clear()
    for value in constants:
        graph.register_initializer(value)
    inner = list(body)
    body.remove(inner)
    graph.insert_before(node, inner)
    return results
