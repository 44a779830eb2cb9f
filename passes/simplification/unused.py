"""Remove what a rewrite left without users, so that a single pass run on its own does not make a model larger."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


def remove_unused(values: Iterable[ir.Value | None]) -> None:
    """Removes the initializers and nodes behind these values that nothing uses any more, and what only they used.

    Graph inputs and outputs stay, as do nodes of which another output is used.
    """
    pending = [value for value in values if value is not None]
    while pending:
        value = pending.pop()
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        graph, node = value.graph, value.producer()
        if node is None:
            if value.is_initializer() and isinstance(graph, ir.Graph) and value.name is not None:
                graph.initializers.pop(value.name, None)
        elif node.graph is not None and not any(o.uses() or o.is_graph_output() for o in node.outputs):
            pending += (*(v for v in node.inputs if v is not None), *captured(node))
            node.graph.remove(node, safe=True)


def captured(node: ir.Node) -> list[ir.Value]:
    """Values of enclosing graphs that the bodies of a node use, in order of use, each once."""
    bodies = list(node.subgraphs())
    inside = {id(graph) for graph in bodies}
    found: dict[int, ir.Value] = {}
    for body in bodies:
        for user in body:
            for value in user.inputs:
                if value is not None and id(value.graph) not in inside:
                    found.setdefault(id(value), value)
        for value in body.outputs:
            if id(value.graph) not in inside:
                found.setdefault(id(value), value)
    return list(found.values())
