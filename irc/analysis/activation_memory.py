"""Peak memory of activations if nodes run in graph order, one after the other.

A tensor is alive from the node that writes it to the last one that reads it; inputs from the start, outputs to the end.
Views (Reshape and the like) share their source. Operators are not assumed to work in place, nor to need scratch memory,
so this is what an arena of the runtime needs at least if it reuses memory perfectly; weights come on top.
"""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.model_cost import VIEWS, value_bytes
from irc.analysis.weights import Weights
from irc.pass_base import node_id


@dataclasses.dataclass(frozen=True)
class PeakMemory:
    """The largest sum of live activations.

    Attributes:
        size_bytes: That sum.
        node: The node at which it is reached; "" for a model without nodes.
        op_type: Its operator.
    """

    size_bytes: int
    node: str
    op_type: str


def peak_memory(shapes: ConcreteShapes, weights: Weights) -> PeakMemory | None:
    """The peak over the nodes of the main graph, or None if some shape is unknown; bodies count by what they return.

    Args:
        shapes: Shapes of the model.
        weights: Its constants.
    """
    model = shapes.model
    nodes = [node for node in model.graph if not weights.is_unpacking(node)]
    roots: dict[int, ir.Value] = {}
    last: dict[int, int] = {}

    def root(value: ir.Value) -> ir.Value:
        return roots.get(id(value), value)

    for index, node in enumerate(nodes):
        if (
            node.op_type in VIEWS
            and node.inputs
            and node.inputs[0] is not None
            and node.op_type not in ("Shape", "Size")
        ):
            roots[id(node.outputs[0])] = root(node.inputs[0])
        for value in _read(node):
            last[id(root(value))] = index
    for value in model.graph.outputs:
        last[id(root(value))] = len(nodes)

    alive: dict[int, int] = {}

    def start(value: ir.Value) -> bool:
        unread = id(value) not in last and not value.is_graph_input()  # an optional output that is not asked for
        if id(value) in roots or weights.is_constant(value) or unread:
            return True
        size = value_bytes(value, shapes)
        if size is None:
            return False
        alive[id(value)] = size
        return True

    if not all([start(value) for value in model.graph.inputs]):
        return None
    peak = PeakMemory(sum(alive.values()), "", "")
    for index, node in enumerate(nodes):
        if not all([start(value) for value in node.outputs]):
            return None
        total = sum(alive.values())
        if total > peak.size_bytes or not peak.node:
            peak = PeakMemory(total, node_id(node), node.op_type)
        for key in [key for key in alive if last.get(key, -1) <= index]:
            del alive[key]
    return peak


def _read(node: ir.Node) -> list[ir.Value]:
    """What a node reads, captures of its bodies included."""
    found = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph().all_nodes():
                found += [value for value in inner.inputs if value is not None]
            found += list(attribute.as_graph().outputs)
    return found
