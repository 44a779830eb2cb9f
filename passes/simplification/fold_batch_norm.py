"""Fold inference BatchNormalization into the convolution or matrix product before it.

    y = BatchNormalization(Conv(x, W, b), gamma, beta, mean, var)
    =>  y = Conv(x, W * s, (b - mean) * s + beta),   s = gamma / sqrt(var + epsilon), one per output channel

The same for ConvTranspose, for Gemm (y = alpha * A @ B + beta * C: B takes s, C becomes the new bias with beta = 1) and
for a MatMul of a matrix with a constant matrix, which becomes a Gemm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, constant_tensor, module_metadata, only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.simplification.unused import remove_unused

LAZY_BYTES = 1 << 20
"""A weight above this size (1 MiB) is scaled when the model is saved or run, not before, so that memory stays small."""
MIN_OPSET = 9
"""Before, BatchNormalization chose its mode by its number of outputs and could normalize per activation (`spatial`)."""

_Array = np.ndarray[Any, Any]
_FOLDABLE = ("Conv", "ConvTranspose", "Gemm", "MatMul")


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
        gamma, beta, mean, variance = (_float64(value) for value in norm.inputs[1:5])  # each [C_out]
        scale = gamma / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
        with np.errstate(over="ignore", invalid="ignore"):
            bias = ((_bias(producer) - mean) * scale + beta).astype(weight.dtype.numpy())
        factor = _broadcastable(scale, producer, weight)
        cheap = weight.dtype.itemsize <= 2 or weight.nbytes <= LAZY_BYTES
        if not (_is_finite(bias) and (not cheap or _is_finite(_scaled(weight, factor)))):
            return Skip(norm, f"the folded weight or bias does not fit {weight.dtype.name}")
        inputs = [
            producer.inputs[0],
            add_initializer(graph, f"{node_id(norm)}.weight", _scaled_tensor(weight, factor)),
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
    if opset < MIN_OPSET or "spatial" in norm.attributes:
        return f"BatchNormalization of opset {opset} is not folded; convert the model to opset {MIN_OPSET} or later"
    if norm.attributes.get_int("training_mode", 0) or (opset < 14 and any(o.name for o in norm.outputs[1:])):
        return "it is in training mode"
    if any(output.uses() or output.is_graph_output() for output in norm.outputs[1:]):
        return "its running statistics are used"
    producer = norm.inputs[0].producer() if norm.inputs[0] is not None else None
    if producer is None or producer.op_type not in _FOLDABLE or producer.domain not in ("", "ai.onnx"):
        return "its input is not a Conv, ConvTranspose, Gemm or MatMul"
    if producer.graph is not norm.graph:
        return f"it is in another graph than the {producer.op_type} before it"
    if not only_consumer(producer.outputs[0], norm):
        return f"the output of the {producer.op_type} before it has other users"
    weight = constant_tensor(producer.inputs[1])
    bias = producer.inputs[2] if len(producer.inputs) > 2 else None
    if weight is None or (bias is not None and constant_tensor(bias) is None):
        return f"weight or bias of the {producer.op_type} before it is not constant"
    if any(constant_tensor(value) is None for value in norm.inputs[1:5]):
        return "its statistics are not constant"
    if producer.op_type == "MatMul" and not (len(_dims(weight)) == 2 and _rank(producer) == 2):
        return "the MatMul before it is not known to be a product of two matrices"
    channels = _channels(producer, weight)
    if any(constant_tensor(value).size != channels for value in norm.inputs[1:5]):  # type: ignore[union-attr]
        return f"its statistics do not have one entry for each of the {channels} channels"
    if bias is not None and not _is_per_channel(_dims(constant_tensor(bias)), channels):  # type: ignore[arg-type]
        return "the bias of the Gemm before it differs from row to row"
    variance = _float64(norm.inputs[4]) + norm.attributes.get_float("epsilon", 1e-5)
    if not (variance > 0).all():
        return "its variance plus epsilon is not positive in every channel"
    return None


def _dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    return tuple(int(d) for d in tensor.shape)  # type: ignore[arg-type]


def _rank(product: ir.Node) -> int | None:
    """The rank of what a MatMul multiplies and gives, as far as known."""
    for value in (product.inputs[0], product.outputs[0]):
        if value is not None and value.shape is not None:
            return len(value.shape)
    return None


def _channels(producer: ir.Node, weight: ir.TensorProtocol) -> int:
    """Number of output channels."""
    dims = _dims(weight)
    if producer.op_type == "Conv":
        return dims[0]
    if producer.op_type == "ConvTranspose":
        return dims[1] * producer.attributes.get_int("group", 1)
    return dims[0] if producer.attributes.get_int("transB", 0) else dims[1]


def _is_per_channel(dims: tuple[int, ...], channels: int) -> bool:
    """Whether a bias of this shape adds the same to every row of a [N, C_out] matrix."""
    return all(d == 1 for d in dims[:-1]) and (not dims or dims[-1] in (1, channels))


def _broadcastable(scale: _Array, producer: ir.Node, weight: ir.TensorProtocol) -> _Array:
    """The scale per output channel, [C_out], in a shape that multiplies the weight channel by channel."""
    dims = _dims(weight)
    if producer.op_type == "Conv":  # [C_out, C_in / group, *kernel]
        return scale.reshape(-1, *(1 for _ in dims[1:]))
    if producer.op_type == "ConvTranspose":  # [C_in, C_out / group, *kernel], input channels in the order of the groups
        group = producer.attributes.get_int("group", 1)
        per_input = np.repeat(scale.reshape(group, dims[1]), dims[0] // group, axis=0)
        return per_input.reshape(*dims[:2], *(1 for _ in dims[2:]))
    return scale.reshape(-1, 1) if producer.attributes.get_int("transB", 0) else scale.reshape(1, -1)


def _bias(producer: ir.Node) -> _Array | float:
    """What the producer adds per output channel, [C_out] or a scalar, in float64."""
    if len(producer.inputs) < 3 or producer.inputs[2] is None:
        return 0.0
    bias = _float64(producer.inputs[2]).reshape(-1)
    return bias * producer.attributes.get_float("beta", 1.0) if producer.op_type == "Gemm" else bias


def _float64(value: ir.Value | None) -> _Array:
    array = constant(value)
    assert array is not None
    return array.astype(np.float64)


def _scaled(weight: ir.TensorProtocol, factor: _Array) -> _Array:
    """The weight times the factor, in the weight's own dtype."""
    array: _Array = np.asarray(weight.numpy())
    work = np.float64 if array.dtype == np.float64 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        product: _Array = array.astype(work, copy=False) * factor.astype(work)
        return product.astype(array.dtype, copy=False)


def _scaled_tensor(weight: ir.TensorProtocol, factor: _Array) -> ir.TensorProtocol:
    def evaluate() -> ir.TensorProtocol:
        return ir.Tensor(_scaled(weight, factor), dtype=weight.dtype)

    if weight.nbytes <= LAZY_BYTES:
        return evaluate()
    return ir.LazyTensor(evaluate, dtype=weight.dtype, shape=ir.Shape(_dims(weight)))


def _is_finite(array: _Array) -> bool:
    return bool(np.isfinite(array.astype(np.float32) if array.dtype.itemsize < 4 else array).all())
