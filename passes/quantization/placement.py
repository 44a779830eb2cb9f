"""Where quantization may go in a float graph, asked of the target; nothing here changes the graph.

A weighted operator needs its input quantized, and on some targets its output, behind the activation that fuses with it. An
operator without weights joins in when all its inputs are quantized by then. Values that are only moved (MaxPool,
Reshape, ...) take the scale of the value they come from.
"""

from __future__ import annotations

import onnx_ir as ir

from irc.ir import constant_tensor
from irc.passes.quantization.pairs import is_dequantized
from irc.target import QuantizationStyle, Target

MIN_WEIGHTS = 64
"""A weight with fewer elements is not worth two operators around it."""
MIN_TABLE_BYTES = 4096


def weight_channel_axis(node: ir.Node) -> int:
    """The output channel axis of the constant weight of a weighted operator."""
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return {"Conv": 0, "MatMul": 1}[node.op_type]


def why_not_weighted(node: ir.Node, target: Target, main: ir.Graph) -> str | None:
    """Why a Conv, Gemm or MatMul cannot become integer, or None. Attention products are no near misses: see `is_product`."""
    if node.graph is not main:
        return "it is in the body of an If, Loop or Scan, whose activations are not calibrated"
    if is_dequantized(node.inputs[1]):
        return "it is already quantized"
    weight = constant_tensor(node.inputs[1])
    if weight is None:
        return "its weight is not constant"
    if constant_tensor(node.inputs[0]) is not None:
        return "its input is constant"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype.name}; static int8 starts from FLOAT"
    if weight.size < MIN_WEIGHTS:
        return f"its weight has only {weight.size} elements"
    return target.refuses(node)


def is_product(node: ir.Node) -> bool:
    """Whether a MatMul multiplies two activations, as attention does: not a site of weight quantization at all."""
    return node.op_type == "MatMul" and all(constant_tensor(value) is None for value in node.inputs[:2])


def fused_output(node: ir.Node, style: QuantizationStyle) -> ir.Value:
    """The value to quantize behind a node: past the one activation that disappears into the quantization."""
    value = node.outputs[0]
    uses = list(value.uses())
    if len(uses) == 1 and not value.is_graph_output():
        user = uses[0].node
        if user.op_type in style.fused and use_is_data(uses[0]) and user.graph is node.graph and _constant_bounds(user):
            return user.outputs[0]
    return value


def use_is_data(use: object) -> bool:
    """Whether a use is the data input of its node, not a bound or a shape."""
    return use.idx == 0  # type: ignore[attr-defined,no-any-return]


def _constant_bounds(node: ir.Node) -> bool:
    return all(value is None or constant_tensor(value) is not None for value in node.inputs[1:])


def scale_source(value: ir.Value, style: QuantizationStyle) -> ir.Value:
    """The value whose scale a moved value takes: itself, unless operators that only move data made it."""
    while (producer := value.producer()) is not None and producer.op_type in style.commuting:
        source = producer.inputs[0]
        if source is None or constant_tensor(source) is not None:
            break
        value = source
    return value


def is_table_lookup(node: ir.Node) -> bool:
    """Whether a Gather looks up rows of a constant float matrix worth quantizing."""
    table = constant_tensor(node.inputs[0])
    return (
        node.op_type == "Gather"
        and table is not None
        and len(table.shape) == 2
        and table.dtype == ir.DataType.FLOAT
        and table.nbytes >= MIN_TABLE_BYTES
        and node.attributes.get_int("axis", 0) == 0
    )


def why_not_table(node: ir.Node, main: ir.Graph) -> str | None:
    """Why the table of a lookup cannot be stored as int8, or None."""
    table = node.inputs[0]
    assert table is not None
    others = [use.node for use in table.uses() if not is_table_lookup(use.node)]
    if others:
        return f"its table is also used by {others[0].op_type} {others[0].name!r}"
    if node.graph is not main:
        return "it is in the body of an If, Loop or Scan"
    return None
