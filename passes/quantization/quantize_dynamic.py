"""Dynamic int8: weights quantized now, activations at run time by their own range; needs no data.

    y = MatMul(x, W) [+ b]
    =>  x_q, s, z = DynamicQuantizeLinear(x)
        y = Cast(MatMulInteger(x_q, W_q, z)) * (s * W_s) [+ b]

Standard operators only; ONNX Runtime fuses them into DynamicQuantizeMatMul.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, module_metadata, unique_name
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.quantization import placement
from irc.passes.quantization.table import quantize_table
from irc.passes.quantization.weights import quantize_per_channel


@dataclasses.dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Makes MatMul and Gemm integer with run-time ranges, and embedding tables int8; needs no data.

    Source: ONNX operator specification, DynamicQuantizeLinear and MatMulInteger; placement as in ONNX Runtime's dynamic mode.

    Attributes:
        embeddings: Whether tables of Gather are stored as int8.
    """

    name: ClassVar[str] = "quantize-dynamic"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("opset-13", "shapes-known")

    embeddings: bool = True

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields MatMul and Gemm with a constant matrix, and table lookups; Conv is a near miss."""
        main = model.graph
        for node in list(main.all_nodes()):
            if node.domain != "":
                continue
            if node.op_type in ("MatMul", "Gemm") and not placement.is_product(node):
                reason = self._why_not(node, ctx, main)
                yield Skip(node, reason) if reason else Site(node)
            elif node.op_type in ("Conv", "ConvTranspose"):
                yield Skip(node, "convolutions need calibration data to be faster in int8; give --data")
            elif self.embeddings and node.op_type == "Gather" and placement.is_table_lookup(node):
                reason = placement.why_not_table(node, main)
                yield Skip(node, reason) if reason else Site(node)

    @staticmethod
    def _why_not(node: ir.Node, ctx: Context, main: ir.Graph) -> str | None:
        weight = node.inputs[1]
        if weight is not None and weight.shape is not None and len(weight.shape) != 2:
            return "its weight is not a matrix"
        if node.op_type == "Gemm" and node.attributes.get_int("transA", 0):
            return "Gemm with transA has no integer kernel"
        if ctx.target is not None:
            return placement.why_not_weighted(node, ctx.target, main)
        return None if constant(weight) is not None else "its weight is not constant"

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Rewrites one operator."""
        node = site.node
        assert node is not None and isinstance(node.graph, ir.Graph)
        if node.op_type == "Gather":
            quantize_table(node)
        else:
            limit = ctx.target.quantization.weight_limit if ctx.target is not None else 127
            _make_dynamic(node, node.graph, limit)
        return None


def _make_dynamic(node: ir.Node, graph: ir.Graph, limit: int) -> None:
    source, weight = node.inputs[0], node.inputs[1]
    assert source is not None and weight is not None
    array = np.asarray(constant(weight), np.float32)
    factor = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    if node.op_type == "Gemm" and node.attributes.get_int("transB", 0):
        array = array.T
    quantized, scale = quantize_per_channel(np.ascontiguousarray(array), axis=1, limit=limit)
    output = node.outputs[0]
    metadata = module_metadata(node)
    public = output.name or "matmul"

    def add(op_type: str, inputs: list[ir.Value], **attributes: object) -> ir.Node:
        made = ir.Node(
            "",
            op_type,
            inputs,
            [ir.convenience.convert_attribute(k, v) for k, v in attributes.items()],
            num_outputs=3 if op_type == "DynamicQuantizeLinear" else 1,
            metadata_props=dict(metadata),
        )
        for index, value in enumerate(made.outputs):
            value.name = unique_name(graph, f"{public}_{op_type}{index or ''}")
        graph.insert_before(node, made)
        return made

    existing = next((u.node for u in source.uses() if u.node.op_type == "DynamicQuantizeLinear" and u.node.graph is graph), None)
    dynamic = existing if existing is not None else _dynamic_behind(source, graph, metadata)
    weight_q = add_initializer(graph, f"{weight.name}_q", quantized)
    weight_s = add_initializer(graph, f"{weight.name}_s", (scale * np.float32(factor)).astype(np.float32))
    product = add("MatMulInteger", [dynamic.outputs[0], weight_q, dynamic.outputs[2]])
    number = add("Cast", [product.outputs[0]], to=ir.DataType.FLOAT.value)
    factors = add("Mul", [dynamic.outputs[1], weight_s])
    last = add("Mul", [number.outputs[0], factors.outputs[0]])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        beta = node.attributes.get_float("beta", 1.0)
        if beta != 1.0:
            bias = add("Mul", [bias, add_initializer(graph, f"{public}_beta", np.float32(beta))]).outputs[0]
        last = add("Add", [last.outputs[0], bias])
    twin = last.outputs[0]
    twin.type, twin.shape = output.type, output.shape
    output.replace_all_uses_with(twin, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    output.name = None
    twin.name = public
    if not weight.uses() and weight.is_initializer():
        del graph.initializers[weight.name]  # type: ignore[arg-type]


def _dynamic_behind(source: ir.Value, graph: ir.Graph, metadata: dict[str, str]) -> ir.Node:
    """The quantizer of a value, placed right behind it so that every consumer can share it."""
    made = ir.Node("", "DynamicQuantizeLinear", [source], num_outputs=3, metadata_props=dict(metadata))
    for value, suffix in zip(made.outputs, ("q", "s", "z"), strict=True):
        value.name = unique_name(graph, f"{source.name}_{suffix}")
    producer = source.producer()
    if producer is not None and producer.graph is graph:
        graph.insert_after(producer, made)
    else:
        graph.insert_before(graph[0], made)
    return made
