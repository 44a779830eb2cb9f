"""Fold inference BatchNormalization into the convolution or matrix product before it.

    y = BatchNormalization(Conv(x, W, b), gamma, beta, mean, var)
    =>  y = Conv(x, W * s, (b - mean) * s + beta),   s = gamma / sqrt(var + epsilon), one per output channel

The same for ConvTranspose, for Gemm (y = alpha * A @ B + beta * C: B takes s, C becomes the new bias with beta = 1) and
for a MatMul of a matrix with a constant matrix, which becomes a Gemm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant_tensor, module_metadata, only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.simplification.inference_batch_norm import has_constant_statistics, why_not_fixed
from irc.passes.simplification.linear_operator import (
    LINEAR,
    along_output,
    bias_array,
    dims_of,
    float64,
    is_finite,
    is_per_channel,
    output_channels,
    scaled_tensor,
    stays_finite,
)
from irc.passes.simplification.unused import remove_unused


@dataclasses.dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Spares the run-time cost of batch normalization, and gives quantizers one weight instead of two operators.

    Weights are scaled in float32 (float64 where they are float64), shared ones in a copy of their own; the bias is
    computed in float64.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2.
    """

    name: ClassVar[str] = "fold-batch-norm"
    contract: ClassVar[Contract] = Contract.ROUNDING
    establishes: ClassVar[tuple[str, ...]] = ("batch-norm-folded",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every BatchNormalization that can be folded, and why the others cannot."""
        opset = model.graph.opset_imports.get("", 0)
        for node in model.graph.all_nodes():
            if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx"):
                reason = _why_not(node, opset)
                yield Site(node) if reason is None else Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Replaces the normalization by the operator before it with a new weight and bias."""
        norm = site.node
        assert norm is not None and norm.inputs[0] is not None and isinstance(norm.graph, ir.Graph)
        graph, producer = norm.graph, norm.inputs[0].producer()
        assert producer is not None and producer.graph is graph
        weight = constant_tensor(producer.inputs[1])
        assert weight is not None
        gamma, beta, mean, variance = (float64(value) for value in norm.inputs[1:5])  # each [C_out]
        scale = gamma / np.sqrt(variance + _epsilon(norm))
        with np.errstate(over="ignore", invalid="ignore"):
            bias = ((bias_array(producer) - mean) * scale + beta).astype(weight.dtype.numpy())
        factor = along_output(scale, producer, weight)
        if not (is_finite(bias) and stays_finite(weight, factor)):
            return Skip(norm, f"the folded weight or bias does not fit {weight.dtype.name}")
        inputs = [
            producer.inputs[0],
            add_initializer(graph, f"{node_id(norm)}.weight", scaled_tensor(weight, factor)),
            add_initializer(graph, f"{node_id(norm)}.bias", ir.Tensor(bias, dtype=weight.dtype)),
        ]
        replaced = [*producer.inputs[1:], *norm.inputs[1:]]
        attributes = {k: v for k, v in producer.attributes.items() if k != "beta"}
        op_type = "Gemm" if producer.op_type == "MatMul" else producer.op_type
        folded = replace_node(norm, op_type, inputs, attributes, outputs=1)
        folded.name = producer.name
        folded.metadata_props.update(module_metadata(producer))
        graph.remove(producer, safe=True)
        remove_unused(replaced)
        return None


def _why_not(norm: ir.Node, opset: int) -> str | None:
    """The reason this normalization must stay, or None if folding it is sound."""
    if (reason := why_not_fixed(norm, opset)) is not None:
        return reason
    producer = norm.inputs[0].producer() if norm.inputs[0] is not None else None
    if producer is None or producer.op_type not in LINEAR or producer.domain not in ("", "ai.onnx"):
        return "its input is not a Conv, ConvTranspose, Gemm or MatMul"
    if producer.graph is not norm.graph:
        return f"it is in another graph than the {producer.op_type} before it"
    if not only_consumer(producer.outputs[0], norm):
        return f"the output of the {producer.op_type} before it has other users"
    weight = constant_tensor(producer.inputs[1])
    bias = producer.inputs[2] if len(producer.inputs) > 2 else None
    if weight is None or (bias is not None and constant_tensor(bias) is None):
        return f"weight or bias of the {producer.op_type} before it is not constant"
    if not has_constant_statistics(norm):
        return "its statistics are not constant"
    if producer.op_type == "MatMul" and not (len(dims_of(weight)) == 2 and _rank(producer) == 2):
        return "the MatMul before it is not known to be a product of two matrices"
    channels = output_channels(producer, weight)
    if any(constant_tensor(value).size != channels for value in norm.inputs[1:5]):  # type: ignore[union-attr]
        return f"its statistics do not have one entry for each of the {channels} channels"
    if bias is not None and not is_per_channel(dims_of(constant_tensor(bias)), channels):  # type: ignore[arg-type]
        return "the bias of the Gemm before it differs from row to row"
    variance = float64(norm.inputs[4]) + _epsilon(norm)
    if not (variance > 0).all():
        return "its variance plus epsilon is not positive in every channel"
    return None


def _rank(product: ir.Node) -> int | None:
    """The rank of what a MatMul multiplies and gives, as far as known."""
    for value in (product.inputs[0], product.outputs[0]):
        if value is not None and value.shape is not None:
            return len(value.shape)
    return None


def _epsilon(norm: ir.Node) -> float:
    """What is added to the variance: attributes are float32 numbers, the default too, which a double model shows."""
    return float(np.float32(norm.attributes.get_float("epsilon", 1e-5)))
