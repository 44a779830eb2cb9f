"""Which values ONNX Runtime keeps in blocks of channels, and what it converts between: elements by survivors.

Convolutions on blocks read and make blocks. Some operators work on either layout and hand on what they get; any other
wants plain tensors. Where a cut leaves a width that is no multiple of 4, a convolution leaves the blocks, and what was
converted nowhere is converted on both sides of it.

Source: `nchwc_transformer.cc` of ONNX Runtime 1.31.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from irc.latency_table.kernels import Convolution
from irc.latency_table.surviving_shapes import Alive, SurvivingShapes

_EITHER = frozenset(
    {
        *("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip", "BatchNormalization"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
    }
)
_JOINING = frozenset({"Add", "Sum", "Mul"})


class Layouts:
    """Conversions between layouts.

    Args:
        shapes: Of the model.
        convolutions: Its convolutions that are measured.
        block: Channels per block; 1 if there are none.
    """

    def __init__(self, shapes: SurvivingShapes, convolutions: Mapping[ir.Node, Convolution], block: int) -> None:
        self._shapes, self._convolutions, self._block = shapes, convolutions, block

    def converted(self, alive: Alive | None) -> tuple[int, int, int]:
        """Elements converted into blocks and out of them, and the number of conversions, in one inference.

        Args:
            alive: A boolean per label; None for the model as it is.
        """
        if self._block == 1 or not self._convolutions:
            return 0, 0, 0
        blocked: set[ir.Value] = set()
        inward: dict[ir.Value, None] = {}
        outward: dict[ir.Value, None] = {}
        graph = self._shapes.propagation.model.graph
        for node in graph:
            reads, makes = self._wants(node, blocked, alive)
            for value in node.inputs:
                if value is None or value.is_initializer():
                    continue
                if reads and value not in blocked and value is node.inputs[0]:
                    inward[value] = None
                elif not reads and value in blocked:
                    outward[value] = None
            if makes:
                blocked.update(node.outputs[:1])
        outward.update(dict.fromkeys(value for value in graph.outputs if value in blocked))
        return self._elements(inward, alive), self._elements(outward, alive), len(inward) + len(outward)

    def _wants(self, node: ir.Node, blocked: set[ir.Value], alive: Alive | None) -> tuple[bool, bool]:
        """Whether a node reads blocks, and whether it makes them."""
        convolution = self._convolutions.get(node)
        if convolution is not None:
            sizes = convolution.sizes(alive)
            return convolution.reads_blocks(sizes, self._block), convolution.blocked(sizes, self._block)
        if node.domain not in ("", "ai.onnx"):
            return False, False
        if node.op_type in _EITHER and node.inputs[0] in blocked:
            return True, True
        if node.op_type in _JOINING and all(value in blocked for value in node.inputs):
            shapes = {self._shapes.made(value, alive) for value in node.inputs if value is not None}
            return (True, True) if len(shapes) == 1 else (False, False)
        if node.op_type == "Concat" and node.attributes.get_int("axis", 0) == 1:
            whole = all(value in blocked and self._aligned(value, alive) for value in node.inputs)
            return whole, whole
        return False, False

    def _aligned(self, value: ir.Value | None, alive: Alive | None) -> bool:
        shape = self._shapes.made(value, alive) if value is not None else None
        return shape is not None and len(shape) > 1 and shape[1] % self._block == 0

    def _elements(self, values: Mapping[ir.Value, None], alive: Alive | None) -> int:
        return sum(math.prod(self._shapes.made(value, alive) or (0,)) for value in values)
