"""Bring numbers out of the bodies of If, Loop and Scan: new outputs of the node, reduced to one number per run.

    If:          the body without the number gives the neutral element of the reduction
    Loop, Scan:  one number per iteration, stacked by the node, reduced again behind it

A body that never runs gives the neutral element: the number of an empty tensor. Bodies in bodies are left one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import onnx_ir as ir

from irc.ir import bodies, unique_name

Combination = Literal["ReduceMin", "ReduceMax", "ReduceSum"]
_NEUTRAL: dict[Combination, float] = {"ReduceMin": math.inf, "ReduceMax": -math.inf, "ReduceSum": 0.0}
_LISTED = ("scan_output_axes", "scan_output_directions")
"""Attributes of Scan with one element per stacked output."""


class Outlets:
    """Knows which node each body of a model belongs to.

    Args:
        model: Its bodies get more outputs.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._owners = {body: node for node in model.graph.all_nodes() for body in bodies(node)}

    def innermost(self, values: list[ir.Value]) -> ir.Graph:
        """The graph that sees all the values: that of the one that lies deepest."""
        graphs = [value.graph for value in values if isinstance(value.graph, ir.Graph)]
        return max(graphs, key=self._depth, default=self._model.graph)

    def _depth(self, graph: ir.Graph) -> int:
        depth = 0
        while (node := self._owners.get(graph)) is not None:
            assert isinstance(node.graph, ir.Graph)
            graph, depth = node.graph, depth + 1
        return depth

    def lead_out(
        self, number: ir.Value, how: Combination, reduced: Callable[[ir.Value, Combination], ir.Value]
    ) -> ir.Value:
        """The number in the main graph.

        Args:
            number: `[1, 1]`, its type set, in any graph of the model.
            how: What makes one number of several.
            reduced: Makes that number behind a node, of a value of any shape.
        """
        assert number.dtype is not None
        dtype = number.dtype
        while isinstance(number.graph, ir.Graph) and (node := self._owners.get(number.graph)) is not None:
            inside = number.graph
            for body in bodies(node):
                body.outputs.append(number if body is inside else self._neutral(body, how, dtype))
            node.resize_outputs(len(node.outputs) + 1)
            outer = node.outputs[-1]
            outer.name, outer.type = unique_name(self._model, "irc.outlet"), ir.TensorType(dtype)
            if node.op_type == "If":
                outer.shape = ir.Shape([1, 1])
            else:
                for name in _LISTED:
                    if (listed := node.attributes.get_ints(name)) is not None:
                        node.attributes.add(ir.AttrInt64s(name, [*listed, 0]))
                outer = reduced(outer, how)
                outer.type, outer.shape = ir.TensorType(dtype), ir.Shape([1, 1])
            number = outer
        return number

    def _neutral(self, body: ir.Graph, how: Combination, dtype: ir.DataType) -> ir.Value:
        tensor = ir.tensor(np.full((1, 1), _NEUTRAL[how], dtype.numpy()))
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1)
        value = node.outputs[0]
        value.name, value.type, value.shape = (
            unique_name(self._model, "irc.neutral"),
            ir.TensorType(dtype),
            ir.Shape([1, 1]),
        )
        node.name = value.name
        body.append(node)
        return value
