"""Spell a product with a weight in blocks so that ONNX Runtime makes one kernel of it that reads the integers (MatMulNBits).

    y = Gemm<transB=1>(x, W, b)   =>   y = Gemm(x, DequantizeLinear<axis=0, block_size=32>(W_q [K, N], scales [K / 32, N]), b)

Read from its sources and tried with 1.31: the weight must be `[K, N]` with blocks of 16, 32, 64, 128 or 256 along axis 0, each
DequantizeLinear and each constant it reads must have one reader, a Gemm no factors, no transposition and a bias `[N]`. A Gemm in
front of an activation becomes a float FusedGemm before that, and a product of matrices with a sum behind it a Gemm: there the sum is
kept apart.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, unique_name
from irc.passes.quantization.block_format import BlockWeight
from irc.passes.quantization.weights import Array
from irc.passes.quantization.workspace import drop_if_unused, graph_of, home_of

_FUSED_WITH_GEMM = frozenset(
    ("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu")
)


def store(node: ir.Node, origin: ir.Value, weight: BlockWeight, *, merging: bool) -> None:
    """Makes a product read a weight in blocks.

    Args:
        node: A MatMul, or a Gemm whose input is not transposed; its alpha must be in the weight already.
        origin: The float constant, removed with its last reader.
        weight: What to read instead.
        merging: Whether the runtime merges a product of matrices with a sum and an activation behind it.
    """
    graph, dtype = graph_of(node), weight.format.dtype
    tensors = {"q": _tensor(weight.levels, dtype), "s": _tensor(weight.scales, ir.DataType.FLOAT)}
    if not weight.format.symmetric:
        tensors["z"] = _tensor(weight.zero_points, dtype)
    # In the graph of the product, which has a copy of its own anyway: the runtime refuses those of a graph around it.
    inputs = [add_initializer(graph, f"{origin.name}_{kind}", tensor) for kind, tensor in tensors.items()]
    attributes = {"axis": 0, "block_size": weight.format.block_size}
    dequantize = ir.node("DequantizeLinear", inputs, attributes, name="")
    made = dequantize.outputs[0]
    made.name = unique_name(graph, f"{origin.name}_d")
    made.type, made.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(weight.levels.shape[::-1])
    graph.insert_before(node, dequantize)
    old = node.inputs[1]
    node.replace_input_with(1, made)
    drop_if_unused(old)
    if node.op_type == "Gemm":
        _plain(node, len(weight.levels))
        if merging:
            _apart_from_activation(node)
    elif merging:
        _apart_from_sum(node)


def _tensor(array: Array, dtype: ir.DataType) -> ir.TensorProtocol:
    """An array `[N, ...]` as a tensor `[..., N]`."""
    return ir.tensor(np.ascontiguousarray(array.T).astype(dtype.numpy()), dtype=dtype)


def _plain(node: ir.Node, channels: int) -> None:
    """Takes the factors and the transposition out of a Gemm whose weight has them already, and makes a constant bias `[N]`."""
    for name in ("transB", "alpha"):
        node.attributes.pop(name, None)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant(bias) if bias is not None else None
    beta = node.attributes.get_float("beta", 1.0)
    if bias is None or array is None or (array.shape == (channels,) and beta == 1.0):
        return
    if array.dtype == np.float32 and array.size in (1, channels) and array.shape[-1:] in ((), (1,), (channels,)):
        row = np.broadcast_to(array.reshape(-1) * np.float32(beta), (channels,)).copy()
        node.replace_input_with(2, add_initializer(home_of(bias), f"{bias.name}_row", row))
        node.attributes.pop("beta", None)
        drop_if_unused(bias)


def _apart_from_activation(node: ir.Node) -> None:
    """Moves the bias of a Gemm behind it, or makes a MatMul of one without, where the runtime would merge it with an activation."""
    if not _read_by_activation(node.outputs[0]) or node.attributes.get_float("beta", 1.0) != 1.0:
        return
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        node.resize_inputs(2)
        node.op_type = "MatMul"
        node.attributes.pop("beta", None)
        return
    node.resize_inputs(2)
    graph, total = graph_of(node), node.outputs[0]
    # The sum takes over the name, by which the site is known.
    add = ir.node("Add", [total, bias], name="")
    new = add.outputs[0]
    graph.insert_after(node, add)
    for use in list(total.uses()):
        if use.node is not add:
            use.node.replace_input_with(use.idx, new)
    new.type, new.shape = total.type, total.shape
    public, total.name = total.name, unique_name(graph, f"{total.name}_product")
    new.name = public


def _apart_from_sum(node: ir.Node) -> None:
    """Makes a Gemm without bias of a product of matrices whose sum the runtime would merge with it and with an activation."""
    uses = list(node.outputs[0].uses())
    source = node.inputs[0]
    if source is None or source.shape is None or len(source.shape) != 2 or node.outputs[0].is_graph_output():
        return
    if len(uses) == 1 and uses[0].node.op_type == "Add" and _read_by_activation(uses[0].node.outputs[0]):
        node.op_type = "Gemm"


def _read_by_activation(value: ir.Value) -> bool:
    uses = list(value.uses())
    return len(uses) == 1 and uses[0].node.op_type in _FUSED_WITH_GEMM and not value.is_graph_output()
