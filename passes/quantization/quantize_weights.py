"""Weight-only int8: weights stored as int8 behind DequantizeLinear, arithmetic in float; needs no data.

    y = MatMul(x, W)   =>   y = MatMul(x, DequantizeLinear(W_q, W_s))

The file shrinks fourfold; a runtime that does not fold or fuse the DequantizeLinear pays for it on every run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, constant_tensor, unique_name
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.quantization import placement
from irc.passes.quantization.pairs import is_dequantized
from irc.passes.quantization.table import quantize_table
from irc.passes.quantization.weights import quantize_per_channel

CHANNEL_AXES = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}


@dataclasses.dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Stores the weights of Conv, ConvTranspose, Gemm, MatMul and embedding tables as int8; computes in float.

    Attributes:
        min_elements: Smaller weights stay float.
    """

    name: ClassVar[str] = "quantize-weights"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("opset-13", "shapes-known")

    min_elements: int = 1024

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields operators with a large constant float weight."""
        main = model.graph
        for node in list(main.all_nodes()):
            if node.domain != "":
                continue
            if node.op_type == "Gather" and placement.is_table_lookup(node):
                reason = placement.why_not_table(node, main)
                yield Skip(node, reason) if reason else Site(node)
            elif node.op_type in (*CHANNEL_AXES, "Gemm") and not placement.is_product(node):
                reason = self._why_not(node, main)
                yield Skip(node, reason) if reason else Site(node)

    def _why_not(self, node: ir.Node, main: ir.Graph) -> str | None:
        weight = constant_tensor(node.inputs[1])
        if is_dequantized(node.inputs[1]):
            return "it is already quantized"
        if weight is None:
            return "its weight is not constant"
        if node.graph is not main:
            return "it is in the body of an If, Loop or Scan"
        if weight.dtype != ir.DataType.FLOAT:
            return f"its weight is {weight.dtype.name}"
        if weight.size < self.min_elements:
            return f"its weight has fewer than {self.min_elements} elements"
        if len(weight.shape) < 2:
            return "its weight is a vector"
        if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
            return "grouped transposed convolutions have no single channel axis"
        return None

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts DequantizeLinear of an int8 copy in place of the weight."""
        node = site.node
        assert node is not None and isinstance(node.graph, ir.Graph)
        if node.op_type == "Gather":
            quantize_table(node)
            return None
        graph, weight = node.graph, node.inputs[1]
        assert weight is not None
        array = np.asarray(constant(weight))
        if node.op_type == "Gemm":
            axis = placement.weight_channel_axis(node)
        else:
            axis = CHANNEL_AXES[node.op_type] % array.ndim
        quantized, scale = quantize_per_channel(array, axis=axis)
        name = weight.name or "weight"
        stored = add_initializer(graph, f"{name}_q", quantized)
        scales = add_initializer(graph, f"{name}_s", scale)
        dequantize = ir.node("DequantizeLinear", [stored, scales], {"axis": axis}, name="")
        twin = dequantize.outputs[0]
        twin.name, twin.dtype = unique_name(graph, f"{name}_dq"), ir.DataType.FLOAT
        graph.insert_before(node, dequantize)
        node.replace_input_with(1, twin)
        if not weight.uses() and weight.is_initializer():
            del graph.initializers[weight.name]  # type: ignore[arg-type]
        return None
