"""Dynamic int8: weights quantized now, activations at run time by their own range; needs no data.

    y = MatMul(x, W) [+ b]
    =>  x_q, s, z = DynamicQuantizeLinear(x)
        y = Cast(MatMulInteger(x_q, W_q, z)) * (s * W_s) [+ b]

Standard operators only; ONNX Runtime fuses them into DynamicQuantizeMatMul or MatMulIntegerToFloat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.quantization import existing, offers, placement
from irc.passes.quantization.table import quantize_table
from irc.passes.quantization.workspace import Workspace, drop_if_unused, graph_of, home_of, take_over
from irc.target import QuantizationStyle, is_dequantized


@dataclasses.dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Makes MatMul and Gemm integer with run-time ranges, and embedding tables int8; needs no data.

    Source: ONNX operator specification, DynamicQuantizeLinear and MatMulInteger.

    Attributes:
        embeddings: Whether tables of Gather are stored as int8.
    """

    name: ClassVar[str] = "quantize-dynamic"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("opset-13", "shapes-known")

    embeddings: bool = True

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields MatMul and Gemm with a constant matrix, and table lookups, in bodies too; Conv is a near miss."""
        if (reason := existing.why_left_alone(model)) is not None:
            yield Skip(None, reason)
            return
        main = model.graph
        style = ctx.target.quantization if ctx.target is not None else QuantizationStyle("uint8")
        work = Workspace(main, style)
        offering = offers.offering(model)
        planned = [(node, self._plan(node, main, style, ctx)) for node in main.all_nodes() if node.domain == ""]
        for node, plan in planned:
            if isinstance(plan, Skip):
                yield plan
            elif plan:
                offering.add(node_id(node))
                yield Site(node, work)

    def _plan(self, node: ir.Node, main: ir.Graph, style: QuantizationStyle, ctx: Context) -> Skip | bool:
        reason: str | None
        if node.op_type in ("MatMul", "Gemm") and not placement.is_product(node):
            reason = why_not_dynamic(node, ctx)
        elif node.op_type in ("Conv", "ConvTranspose"):
            reason = "convolutions need calibration data to be faster in int8; give --data"
        elif self.embeddings and style.embeddings and placement.is_table_lookup(node):
            reason = placement.why_not_table(node, main)
        else:
            return False
        return Skip(node, reason) if reason else True

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Rewrites one operator."""
        node, work = site.node, site.match
        assert node is not None
        if node.op_type == "Gather":
            quantize_table(node, work)
        else:
            make_dynamic(node, work)
        return None


def ctx_supports_dynamic(ctx: Context) -> bool:
    """Whether the target runs DynamicQuantizeLinear."""
    return ctx.target is None or ctx.target.quantization.dynamic


def why_not_dynamic(node: ir.Node, ctx: Context) -> str | None:
    """Why a MatMul or Gemm cannot have ranges taken at run time, or None."""
    if not ctx_supports_dynamic(ctx):
        return "the target takes quantized activations with constant scales only"
    if is_dequantized(node.inputs[1]):
        return "it is already quantized"
    weight = placement.weight_of(node)
    if weight is None:
        return "its weight is not constant"
    if len(weight.tensor.shape) != 2:
        return "its weight is not a matrix"
    if weight.tensor.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.tensor.dtype.name}; int8 starts from FLOAT"
    if weight.tensor.size < placement.MIN_WEIGHTS:
        return f"its weight has only {weight.tensor.size} elements"
    if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1:
        return "its activation is transposed"
    return placement.why_not_stored(weight.origin)


def make_dynamic(node: ir.Node, work: Workspace) -> None:
    """Rewrites one MatMul or Gemm that `why_not_dynamic` has nothing against."""
    source = node.inputs[0]
    weight = placement.weight_of(node)
    assert source is not None and weight is not None
    old_weight, old_bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    stored = work.store(weight.origin, weight.axis)
    quantized = stored.quantized
    if weight.axis == 0:
        key = ("transposed", weight.origin)
        quantized = work.once(
            key, home_of(weight.origin), lambda: [ir.node("Transpose", [stored.quantized], {"perm": [1, 0]}, name="")]
        )
    alpha = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    beta = node.attributes.get_float("beta", 1.0) if node.op_type == "Gemm" else 1.0
    scales = stored.scales if alpha == 1.0 else work.constant(stored.numbers * np.float32(alpha), "s")
    dynamic = work.dynamic_pair(source)
    product = ir.node("MatMulInteger", [dynamic.outputs[0], quantized, dynamic.outputs[2]], name=node.name)
    number = ir.node("Cast", [product.outputs[0]], {"to": ir.DataType.FLOAT.value}, name="")
    factor = ir.node("Mul", [dynamic.outputs[1], scales], name="")
    nodes = [product, number, factor, ir.node("Mul", [number.outputs[0], factor.outputs[0]], name="")]
    if old_bias is not None:
        bias = old_bias
        if beta != 1.0:
            nodes.append(ir.node("Mul", [bias, work.constant(np.float32(beta))], name=""))
            bias = nodes[-1].outputs[0]
        nodes.append(ir.node("Add", [nodes[3].outputs[0], bias], name=""))
    for made in nodes:
        made.outputs[0].name = work.name("t")
    graph_of(node).insert_before(node, nodes)
    product.metadata_props.update(node.metadata_props)
    take_over(work, node.outputs[0], nodes[-1].outputs[0], kept=nodes)
    graph_of(node).remove(node, safe=True)
    for old in (old_weight, old_bias):
        drop_if_unused(old)
