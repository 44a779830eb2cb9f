"""Loop and Scan in one form: a body that runs again and again, with values that are carried, scanned and collected."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from irc.passes.simplification.scopes import STANDARD_DOMAINS

SCAN_SINCE = 9
"""Before, Scan had a batch axis and an input of lengths."""


@dataclasses.dataclass(frozen=True, eq=False)
class RepeatedBody:
    """A Loop or a Scan.

    Attributes:
        node: The node.
        body: What it runs.
        fixed_inputs: Number of inputs, of the node and of the body, before those that are carried: 2 of a Loop.
        fixed_outputs: Number of outputs of the body before those that are carried: the condition of a Loop.
        carried: Number of carried values.
    """

    node: ir.Node
    body: ir.Graph
    fixed_inputs: int
    fixed_outputs: int
    carried: int

    @property
    def scanned(self) -> range:
        """Indices of scanned inputs of a Scan, of the node and of the body."""
        start = self.fixed_inputs + self.carried
        return range(start, len(self.body.inputs))

    @property
    def collected(self) -> range:
        """Indices of collected outputs of the node."""
        return range(self.carried, len(self.node.outputs))

    def inside(self, index: int) -> ir.Value:
        """The input of the body for the carried value of this index."""
        return self.body.inputs[self.fixed_inputs + index]

    def first(self, index: int) -> ir.Value | None:
        """What the carried value of this index is before the first round."""
        return self.node.inputs[self.fixed_inputs + index]

    def result(self, index: int) -> ir.Value:
        """The output of the body for the output of this index of the node."""
        return self.body.outputs[self.fixed_outputs + index]


def repeated_body(node: ir.Node, opset: int) -> RepeatedBody | None:
    """The node as a repeated body, or None if it is none or its parts do not fit together."""
    if node.domain not in STANDARD_DOMAINS or node.op_type not in ("Loop", "Scan"):
        return None
    body = node.attributes["body"].as_graph()
    if node.op_type == "Loop":
        found = RepeatedBody(node, body, 2, 1, len(body.inputs) - 2)
    elif opset >= SCAN_SINCE:
        found = RepeatedBody(node, body, 0, 0, len(body.inputs) - node.attributes.get_int("num_scan_inputs"))
    else:
        return None
    fits = len(node.inputs) == len(body.inputs) and len(body.outputs) == found.fixed_outputs + len(node.outputs)
    return found if fits and 0 <= found.carried <= len(node.outputs) else None
