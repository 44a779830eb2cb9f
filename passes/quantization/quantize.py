"""Static int8: weights per channel, activations by calibrated ranges, placed where the target has integer kernels.

    y = Conv(x, W, b);  z = Relu(y)
    =>  z' = DQ(Q(Relu(Conv(DQ(Q(x)), DQ(W_q), b))))          (a runtime that needs quantized outputs)
    y = MatMul(x, W)
    =>  y = MatMul(DQ(Q(x)), DQ(W_q))                           (no Q on its output)
    y = Gather(T, ids)
    =>  y = DQ(Gather(T_q, ids))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irc.calibration import StatisticRequest, Statistics
from irc.errors import UsageError
from irc.ir import add_initializer, constant, constant_tensor, unique_name
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.quantization import placement
from irc.passes.quantization.activations import ActivationScale, activation_scale
from irc.passes.quantization.local_error import local_errors
from irc.passes.quantization.pairs import (
    add_pair,
    find_pair,
    is_dequantized,
    pair_scale,
    quantize_output,
    shared_weight_zeros,
)
from irc.passes.quantization.table import quantize_table
from irc.passes.quantization.weights import quantize_bias, quantize_per_channel
from irc.target import QuantizationStyle, Target


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What one site needs: the statistics of the sweep and the target's style."""

    statistics: Statistics
    style: QuantizationStyle
    kind: Literal["weighted", "joining", "table"]


@dataclasses.dataclass(frozen=True)
class Quantize(Pass):
    """Makes Conv, Gemm, MatMul and what lies between them integer; embedding tables int8.

    Source: Jacob et al. 2018, arXiv:1712.05877, for the arithmetic; placement is the target's.

    Attributes:
        calibrator: How a range is taken from the data: "min-max".
        embeddings: Whether tables of Gather are stored as int8.
        joining: Whether Add, pooling and the like become integer between integer operators.
    """

    name: ClassVar[str] = "quantize"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("batch-norm-folded", "opset-13", "shapes-known")

    calibrator: Literal["min-max"] = "min-max"
    embeddings: bool = True
    joining: bool = True

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields weighted operators, lookups, and operators whose inputs are all quantized by the time they are reached.

        Raises:
            UsageError: If the context has no target or no data.
        """
        if ctx.target is None or ctx.collect is None:
            raise UsageError("quantize: needs a target and data; give --data, or use quantize-weights")
        target, style = ctx.target, ctx.target.quantization
        main = model.graph
        statistics = ctx.collect(model, self._requests(model, target))
        for node in list(main.all_nodes()):
            if node.domain != "":
                continue
            if node.op_type in style.weighted:
                yield from self._weighted(node, target, main, statistics)
            elif node.op_type == "ConvTranspose" and (reason := target.refuses(node)):
                yield Skip(node, reason)
            elif self.embeddings and style.embeddings and node.op_type == "Gather" and placement.is_table_lookup(node):
                reason = placement.why_not_table(node, main)
                yield Skip(node, reason) if reason else Site(node, _Plan(statistics, style, "table"))
            elif self.joining and node.op_type in style.joining and node.graph is main:
                if self._joins(node, style, statistics):
                    yield Site(node, _Plan(statistics, style, "joining"))

    def _weighted(
        self, node: ir.Node, target: Target, main: ir.Graph, statistics: Statistics
    ) -> Iterator[Site | Skip]:
        style = target.quantization
        if placement.is_product(node):
            return
        reason = placement.why_not_weighted(node, target, main)
        if reason is None:
            for value in self._observed(node, style):
                if statistics.get(value.name or "") is None:
                    why = statistics.missing.get(value.name or "", "no sample gave it an element")
                    reason = f"{value.name!r} has no calibrated range: {why}"
                    break
        yield Skip(node, reason) if reason else Site(node, _Plan(statistics, style, "weighted"))

    def _joins(self, node: ir.Node, style: QuantizationStyle, statistics: Statistics) -> bool:
        """Whether all inputs are quantized by now and somebody behind will read the result as integers."""
        if not node.inputs or not all(is_dequantized(v) and self._is_activation(v) for v in node.inputs):
            return False
        return statistics.get(placement.fused_output(node, style).name or "") is not None

    @staticmethod
    def _is_activation(value: ir.Value | None) -> bool:
        producer = value.producer() if value is not None else None
        source = producer.inputs[0] if producer is not None else None
        return source is not None and source.producer() is not None

    def _observed(self, node: ir.Node, style: QuantizationStyle) -> list[ir.Value]:
        """The values whose ranges a weighted operator needs."""
        source = node.inputs[0]
        assert source is not None
        values = [] if is_dequantized(source) else [placement.scale_source(source, style)]
        if node.op_type in style.needs_output:
            values.append(placement.fused_output(node, style))
        return values

    def _requests(self, model: ir.Model, target: Target) -> list[StatisticRequest]:
        style = target.quantization
        names: dict[str, None] = {}
        for node in model.graph:
            if node.domain != "":
                continue
            values: list[ir.Value] = []
            if node.op_type in style.weighted and not placement.is_product(node):
                if placement.why_not_weighted(node, target, model.graph) is None:
                    values = self._observed(node, style)
            elif self.joining and node.op_type in style.joining:
                values = [placement.fused_output(node, style)]
            names |= {value.name: None for value in values if value.name}
        return [StatisticRequest(name) for name in names]

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Quantizes one site; operators it shares values with may or may not have been quantized."""
        node, plan = site.node, site.match
        assert node is not None and isinstance(node.graph, ir.Graph)
        if plan.kind == "table":
            quantize_table(node)
        elif plan.kind == "joining":
            value = placement.fused_output(node, plan.style)
            quantize_output(value, _scale(value, plan), node.graph)
        else:
            _quantize_weighted(node, plan)
        return None

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """Relative error energy of each site's output with its own inputs and weights quantized, measured in one sweep."""
        if ctx.runner is None or ctx.data is None:
            return None
        return local_errors(ctx.runner, before, after, sites, ctx.data, progress=ctx.progress)


def _scale(value: ir.Value, plan: _Plan) -> ActivationScale | tuple[ir.Value, ir.Value]:
    """Scale and zero point for a value: those of the value it was moved from, if that has some already."""
    source = placement.scale_source(value, plan.style)
    if source is not value:
        if is_dequantized(source):
            return pair_scale(source.producer())  # type: ignore[arg-type]
        if (pair := find_pair(source)) is not None:
            return pair_scale(pair)
    observed = plan.statistics.get(source.name or "") or plan.statistics.get(value.name or "")
    assert observed is not None
    return activation_scale(observed, plan.style)


def _quantize_weighted(node: ir.Node, plan: _Plan) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    style = plan.style
    source = node.inputs[0]
    assert source is not None
    if not is_dequantized(source):
        pair = find_pair(source)
        twin = pair.outputs[0] if pair is not None else add_pair(source, _scale(source, plan), graph)
        node.replace_input_with(0, twin)
    activation = constant(node.inputs[0].producer().inputs[1])  # type: ignore[union-attr]
    assert activation is not None
    if node.op_type == "Gemm":
        _unit_factors(node, graph)
    weight_scale = _quantize_weight(node, graph, style)
    if node.op_type == "Gemm" and style.bias == "int32":
        _quantize_gemm_bias(node, graph, activation * weight_scale)
    if node.op_type in style.needs_output:
        value = placement.fused_output(node, style)
        quantize_output(value, _scale(value, plan), graph)


def _quantize_weight(node: ir.Node, graph: ir.Graph, style: QuantizationStyle) -> np.ndarray:  # type: ignore[type-arg]
    """Puts DQ(int8 weight) in place of the weight; operators that share a weight and its axis share the int8 tensor."""
    weight = node.inputs[1]
    assert weight is not None
    axis = placement.weight_channel_axis(node)
    spelled = node.op_type in style.weight_zero_points
    key = f"irc.int8.{axis}.{spelled}"
    shared = weight.meta.get(key)
    if shared is None or shared[0].graph is not graph:
        array = constant(weight)
        assert array is not None
        quantized, scale = quantize_per_channel(array, axis=axis, limit=style.weight_limit)
        name = weight.name or "weight"
        stored = add_initializer(graph, f"{name}_q", quantized)
        scales = add_initializer(graph, f"{name}_s", scale)
        inputs = [stored, scales, *([shared_weight_zeros(graph, len(scale))] if spelled else [])]
        dequantize = ir.node("DequantizeLinear", inputs, {"axis": axis}, name="")
        dequantize.outputs[0].name = unique_name(graph, f"{name}_dq")
        dequantize.outputs[0].dtype = ir.DataType.FLOAT
        graph.insert_before(graph[0], dequantize)
        weight.meta[key] = shared = (dequantize.outputs[0], scale)
    node.replace_input_with(1, shared[0])
    if not weight.uses() and weight.is_initializer():
        del graph.initializers[weight.name]
    return np.asarray(shared[1])


def _unit_factors(node: ir.Node, graph: ir.Graph) -> None:
    """Moves alpha and beta of a Gemm into its weight and bias, which integer kernels expect."""
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    if alpha != 1.0:
        weight = constant(node.inputs[1])
        assert weight is not None
        old = node.inputs[1]
        node.replace_input_with(1, add_initializer(graph, f"{old.name}_alpha", (weight * np.float32(alpha))))  # type: ignore[union-attr]
        node.attributes.pop("alpha")
    if beta != 1.0 and len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = node.inputs[2]
        factor = add_initializer(graph, f"{bias.name}_beta", np.float32(beta))
        product = ir.node("Mul", [bias, factor], name="")
        product.outputs[0].name = unique_name(graph, f"{bias.name}_scaled")
        product.outputs[0].dtype = ir.DataType.FLOAT
        array = constant(bias)
        if array is not None:
            node.replace_input_with(2, add_initializer(graph, f"{bias.name}_b", array * np.float32(beta)))
        else:
            graph.insert_before(node, product)
            node.replace_input_with(2, product.outputs[0])
        node.attributes.pop("beta")


def _quantize_gemm_bias(node: ir.Node, graph: ir.Graph, scale: np.ndarray) -> None:  # type: ignore[type-arg]
    """Stores the bias as int32 behind DequantizeLinear, or adds it in float behind the Gemm where it does not fit."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return
    array = constant(bias)
    quantized = None
    if array is not None and constant_tensor(bias) is not None and array.size == scale.size and array.shape[-1:] == scale.shape:
        quantized = quantize_bias(array.reshape(-1), scale)
    if quantized is not None:
        name = bias.name or "bias"
        stored = add_initializer(graph, f"{name}_q", quantized)
        scales = add_initializer(graph, f"{name}_s", scale.astype(np.float32))
        dequantize = ir.node("DequantizeLinear", [stored, scales], {"axis": 0}, name="")
        dequantize.outputs[0].name = unique_name(graph, f"{name}_dq")
        dequantize.outputs[0].dtype = ir.DataType.FLOAT
        graph.insert_before(node, dequantize)
        node.replace_input_with(2, dequantize.outputs[0])
    else:
        _add_bias_behind(node, bias, graph)
    if not bias.uses() and bias.is_initializer() and not bias.is_graph_input():
        del graph.initializers[bias.name]  # type: ignore[arg-type]


def _add_bias_behind(node: ir.Node, bias: ir.Value, graph: ir.Graph) -> None:
    node.replace_input_with(2, None)
    node.resize_inputs(2)
    output = node.outputs[0]
    add = ir.node("Add", [output, bias], name="")
    twin = add.outputs[0]
    twin.type, twin.shape = output.type, output.shape
    graph.insert_after(node, add)
    for use in list(output.uses()):
        if use.node is not add:
            use.node.replace_input_with(use.idx, twin)
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = twin
    twin.name = output.name
    output.name = unique_name(graph, f"{twin.name}_product")
