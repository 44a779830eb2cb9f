"""Which graphs the nodes of a body can take values from."""

from __future__ import annotations

import onnx_ir as ir

from irc.ir import bodies

STANDARD_DOMAINS = frozenset(("", "ai.onnx"))


def sees_outside(node: ir.Node) -> bool:
    """Whether the bodies of a node may use values of the graphs around them.

    ONNX says so of its own operators (If, Loop, Scan, SequenceMap); others (BeamSearch of com.microsoft) feed their
    bodies through inputs only.
    """
    return node.domain in STANDARD_DOMAINS


def enclosing_scopes(graph: ir.Graph) -> dict[ir.Graph, tuple[ir.Graph, ...]]:
    """Every graph of a model, outer ones first, with the graphs around it whose values it sees, nearest first."""
    scopes: dict[ir.Graph, tuple[ir.Graph, ...]] = {graph: ()}
    pending = [graph]
    while pending:
        current = pending.pop()
        inner = [(body, node) for node in current for body in bodies(node)]
        for body, node in inner:
            scopes[body] = (current, *scopes[current]) if sees_outside(node) else ()
        pending += [body for body, _ in reversed(inner)]
    return scopes
