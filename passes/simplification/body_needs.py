"""Which inputs a body needs to compute some of its outputs."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from irc.ir import bodies


class BodyNeeds:
    """What outputs of one body depend on, grown output by output.

    Attributes:
        inputs: The inputs of the body that are needed for the outputs added so far.

    Args:
        body: The body of a Loop or Scan.
    """

    def __init__(self, body: ir.Graph) -> None:
        self.inputs: set[ir.Value] = set()
        self._inputs = set(body.inputs)
        self._body = body
        self._nodes: set[ir.Node] = set()

    def add(self, outputs: Iterable[ir.Value]) -> None:
        """Also needs these values."""
        pending = list(outputs)
        while pending:
            value = pending.pop()
            if value in self._inputs:
                self.inputs.add(value)
            node = value.producer()
            if node is None or node.graph is not self._body or node in self._nodes:
                continue
            self._nodes.add(node)
            for user in (node, *(inner for graph in bodies(node) for inner in graph.all_nodes())):
                pending += [used for used in user.inputs if used is not None]
            for graph in bodies(node):
                pending += [value for inner in (graph, *graph.subgraphs()) for value in inner.outputs]
