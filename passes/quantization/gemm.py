"""What integer kernels ask of a product and the sum behind it.

A Gemm wants a bias of int32 with the scale of the accumulator, and beta = 1. A MatMul wants a sum behind it that the runtime
does not take for the bias of a Gemm.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.passes.quantization.weights import Array, quantized_bias
from irc.passes.quantization.workspace import Workspace, drop_if_unused, graph_of, take_over


def integer_bias(node: ir.Node, accumulator_scale: Array, work: Workspace) -> None:
    """Stores the bias as int32 behind DequantizeLinear; where it does not fit, adds it in float behind the Gemm.

    Args:
        node: A Gemm.
        accumulator_scale: Activation scale times weight scales, `[N]`, without alpha.
        work: Of this run.
    """
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    array = constant(bias)
    channels = len(accumulator_scale)
    quantized = None
    if array is not None and array.shape in ((channels,), (1, channels)) and alpha == 1.0:
        quantized = quantized_bias(array.reshape(-1) * np.float32(beta), accumulator_scale)
    if quantized is not None:
        dequantize = ir.node(
            "DequantizeLinear",
            [
                work.constant(quantized, "b"),
                work.constant(accumulator_scale.astype(np.float32), "s"),
                work.constant(np.zeros(channels, np.int32), "z"),
            ],
            {"axis": 0},
            name="",
        )
        dequantize.outputs[0].name = work.name("d")
        graph_of(node).insert_before(node, dequantize)
        node.replace_input_with(2, dequantize.outputs[0])
        node.attributes.pop("beta", None)
    else:
        _add_behind(node, bias, beta, work)
    drop_if_unused(bias)


def keep_sum_apart(node: ir.Node, work: Workspace) -> None:
    """Rewrites a float MatMul so that the sum behind it stays an Add, where the runtime would make a float Gemm of both.

    A product of matrices becomes a Gemm without bias; behind a batched product, a constant row gets a second dimension.

    Args:
        node: A MatMul that is going to be quantized; other operators are left as they are.
        work: Of this run.
    """
    uses = list(node.outputs[0].uses())
    source = node.inputs[0]
    if not work.style.sums_become_bias or node.op_type != "MatMul" or source is None or source.shape is None:
        return
    if len(uses) != 1 or uses[0].node.op_type != "Add" or uses[0].node.domain != "":
        return
    add, position = uses[0].node, 1 - uses[0].idx
    if len(source.shape) == 2:
        node.op_type = "Gemm"
        return
    addend = add.inputs[position]
    row = constant(addend)
    if row is not None and row.ndim == 1:
        add.replace_input_with(position, work.constant(row.reshape(1, -1), "b"))
        drop_if_unused(addend)


def _add_behind(node: ir.Node, bias: ir.Value, beta: float, work: Workspace) -> None:
    node.resize_inputs(2)
    node.attributes.pop("beta", None)
    nodes = []
    if beta != 1.0:
        nodes.append(ir.node("Mul", [bias, work.constant(np.float32(beta), "c")], name=""))
        bias = nodes[0].outputs[0]
        bias.name = work.name("t")
    product = node.outputs[0]
    nodes.append(ir.node("Add", [product, bias], name=""))
    total = nodes[-1].outputs[0]
    graph_of(node).insert_after(node, nodes)
    take_over(work, product, total, kept=nodes)
