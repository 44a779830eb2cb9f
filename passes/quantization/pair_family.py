"""Pairs of QuantizeLinear and DequantizeLinear that share one scale, because what lies between them only moves integers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant
from irc.passes.quantization.integer_layer import IntegerLayer
from irc.passes.quantization.layer_geometry import Array
from irc.passes.quantization.layer_sample import simulated
from irc.passes.quantization.workspace import drop_if_unused, graph_of
from irc.target import QuantizationStyle, is_dequantized


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Pairs that share one scale since they hold the same integers, moved.

    Attributes:
        quantizers: Their QuantizeLinear nodes.
        moves: The operators between them.
    """

    quantizers: Sequence[ir.Node]
    moves: Sequence[ir.Node]

    @property
    def readers(self) -> list[ir.Node]:
        """Their DequantizeLinear nodes."""
        uses = (use for quantize in self.quantizers for use in quantize.outputs[0].uses())
        return [use.node for use in uses if use.node.op_type == "DequantizeLinear"]

    @property
    def now(self) -> tuple[float, int]:
        """Their scale and zero point."""
        scale, zero_point = (_array(value).reshape(-1)[0] for value in self.quantizers[0].inputs[1:3])
        return float(scale), int(zero_point)

    @property
    def state(self) -> str:
        """A short hash of their scale and zero point."""
        scale, zero_point = self.now
        return hashlib.sha256(f"{scale!r} {zero_point}".encode()).hexdigest()[:12]

    def simulated(self, x: Array, scale: float, zero_point: int) -> Array:
        """What is left of numbers at some scale and zero point."""
        info = np.iinfo(_array(self.quantizers[0].inputs[2]).dtype)
        return simulated(x, scale, zero_point, int(info.min), int(info.max))

    def others(self, layers: Sequence[IntegerLayer]) -> bool:
        """Whether anybody but some layers computes with what they hold."""
        known = {layer.node for layer in layers} | {*self.moves, *self.quantizers}
        values = [node.outputs[0] for node in (*self.readers, *self.moves)]
        return any(v.is_graph_output() or any(use.node not in known for use in v.uses()) for v in values)

    def rescale(self, scale: np.float32, zero_point: int) -> None:
        """Gives all of them a scale and zero point of their own."""
        first = self.quantizers[0]
        dtype = _array(first.inputs[2]).dtype
        graph = graph_of(first)
        new = (
            add_initializer(graph, "s", np.asarray(scale, np.float32)),
            add_initializer(graph, "z", np.asarray(zero_point, dtype)),
        )
        for node in (*self.quantizers, *self.readers):
            for index, value in zip((1, 2), new, strict=True):
                old = node.inputs[index]
                shape = _array(old).shape
                one = value if not shape else add_initializer(graph, "s", np.full(shape, constant(value)))
                node.replace_input_with(index, one)
                drop_if_unused(old)


def family_of(quantize: ir.Node, style: QuantizationStyle) -> Family:
    """The pairs that hold the integers of one, moved or not."""
    quantizers, moves, pending = [quantize], [], [quantize]
    while pending:
        node = pending.pop()
        above, passed = node.inputs[0], []
        while above is not None and (mover := above.producer()) is not None and _moves(mover, style):
            passed.append(mover)
            above = mover.inputs[0]
        maker = above.producer() if above is not None and is_dequantized(above) else None
        found = []
        if maker is not None and maker.inputs[0] is not None and maker.inputs[1] is node.inputs[1] and passed:
            found.append(maker.inputs[0].producer())
            moves += passed
        values = [use.node.outputs[0] for use in node.outputs[0].uses() if use.node.op_type == "DequantizeLinear"]
        while values:
            for use in values.pop().uses():
                if _moves(use.node, style) and use.idx == 0:
                    values.append(use.node.outputs[0])
                    moves.append(use.node)
                elif use.node.op_type == "QuantizeLinear" and use.node.inputs[1] is node.inputs[1]:
                    found.append(use.node)
        new = [other for other in dict.fromkeys(found) if other is not None and other not in quantizers]
        quantizers += new
        pending += new
    return Family(quantizers, list(dict.fromkeys(moves)))


def _moves(node: ir.Node, style: QuantizationStyle) -> bool:
    return node.domain == "" and node.op_type in style.commuting


def _array(value: ir.Value | None) -> Array:
    array = constant(value)
    assert array is not None
    return array
