"""Remove what a rewrite left without users, so that a single pass run on its own does not make a model larger."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from irc.ir import bodies


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
            pending += [v for v in node.inputs if v is not None]
            node.graph.remove(node, safe=True)
            pending += release_bodies(node)


def release_bodies(node: ir.Node) -> list[ir.Value]:
    """Empties the bodies of a removed node, so that they let go of the values they captured; returns those values.

    A node that was taken out of its graph is still a user of everything its bodies mention.
    """
    released: list[ir.Value] = []
    for body in bodies(node):
        for graph in (body, *body.subgraphs()):
            inner = list(graph)
            for user in inner:
                released += [value for value in user.inputs if value is not None]
                user.resize_inputs(0)
            graph.outputs.clear()
            graph.remove(inner)
    return released
