"""Where quantization may go in a float graph, asked of the target; nothing here changes the graph.

A weighted operator needs its input quantized, and on some targets its output, behind the activation that fuses with it. An
operator without weights joins in when all its inputs are integers by then and an integer operator reads its result.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irc.ir import constant, constant_tensor
from irc.target import QuantizationStyle, Target, is_dequantized

MIN_OPSET = 13
"""The first whose DequantizeLinear has scales per channel."""
MIN_WEIGHTS = 64
"""A weight with fewer elements is not worth the operators around it."""
MIN_TABLE_BYTES = 4096
_LOOKAHEAD = 64
"""Values looked at before giving up on finding an integer reader."""


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """The constant weight of an operator.

    Attributes:
        origin: The initializer or constant.
        transposed: Whether a Transpose stands between it and the operator, as in a tied language model head.
        axis: The output channel axis, counted in the origin.
    """

    origin: ir.Value
    transposed: bool
    axis: int

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The constant."""
        tensor = constant_tensor(self.origin)
        assert tensor is not None
        return tensor


def weight_of(node: ir.Node) -> Weight | None:
    """The constant weight of a Conv, Gemm, MatMul or ConvTranspose, seen through a Transpose of a matrix; None if it has none."""
    if len(node.inputs) < 2:
        return None
    value = node.inputs[1]
    if value is None:
        return None
    axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}.get(node.op_type)
    if axis is None:
        axis = 0 if node.attributes.get_int("transB", 0) else 1
    tensor = constant_tensor(value)
    if tensor is not None:
        return Weight(value, False, axis % max(len(tensor.shape), 1))
    producer = value.producer()
    if producer is None or producer.op_type != "Transpose" or producer.domain != "":
        return None
    origin = producer.inputs[0]
    tensor = constant_tensor(origin)
    if origin is None or tensor is None or len(tensor.shape) != 2 or node.op_type not in ("MatMul", "Gemm"):
        return None
    if list(producer.attributes.get_ints("perm", [1, 0]) or [1, 0]) != [1, 0]:
        return None
    return Weight(origin, True, 1 - axis % 2)


def why_not_weighted(node: ir.Node, target: Target, main: ir.Graph) -> str | None:
    """Why a Conv, Gemm or MatMul cannot become integer, or None. Attention products are no near misses: see `is_product`."""
    if main.opset_imports.get("", MIN_OPSET) < MIN_OPSET:
        return f"opset {main.opset_imports['']} has no scales per channel; run raise-opset first"
    if is_dequantized(node.inputs[1]):
        return "it is already quantized"
    if is_dequantized(node.inputs[0]):
        return "its input is already quantized"
    weight = weight_of(node)
    if weight is None:
        if node.op_type == "MatMul" and constant_tensor(node.inputs[0]) is not None:
            return "its constant is on the left, where no integer kernel takes scales per channel"
        return "its weight is not constant"
    if constant_tensor(node.inputs[0]) is not None:
        return "its input is constant"
    if weight.tensor.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.tensor.dtype.name}; static int8 starts from FLOAT"
    if weight.tensor.size < MIN_WEIGHTS:
        return f"its weight has only {weight.tensor.size} elements"
    return target.refuses(node) or why_not_stored(weight.origin)


WEIGHTED = ("Conv", "Gemm", "MatMul")
RECURRENT = ("LSTM", "GRU", "RNN")
"""Their weights are `[directions, gates * hidden, in]`, and so are those of their state."""


def why_not_stored(origin: ir.Value, *, readers: tuple[str, ...] = WEIGHTED) -> str | None:
    """Why a weight must stay in float: for somebody else, so that an int8 copy would make the file larger, or for its values; or None."""
    array = constant(origin)
    if array is not None and not _all_finite(array):
        return "its weight contains NaN or infinity"
    if origin.is_graph_output():
        return "its weight is an output of the model"
    for use in origin.uses():
        user, index = use.node, use.idx
        if user.op_type == "Transpose" and user.domain == "":
            for inner in user.outputs[0].uses():
                if inner.node.op_type not in ("MatMul", "Gemm") or inner.idx != 1:
                    return f"its weight is also used by {inner.node.op_type} {inner.node.name!r}"
        elif not ((user.op_type in readers and index in stored_inputs(user)) or is_table_lookup(user)):
            return f"its weight is also used by {user.op_type} {user.name!r}"
    return None


def stored_inputs(node: ir.Node) -> tuple[int, ...]:
    """Which inputs of an operator are weights."""
    return (1, 2) if node.op_type in RECURRENT else (1,)


def _all_finite(array: npt.NDArray[Any]) -> bool:
    """Whether no element is NaN or infinite; a finite sum says so at the speed of memory."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def is_product(node: ir.Node) -> bool:
    """Whether a MatMul multiplies two activations, as attention does: not a site of weight quantization at all."""
    return (
        node.op_type == "MatMul"
        and weight_of(node) is None
        and constant_tensor(node.inputs[0]) is None
        and not (is_dequantized(node.inputs[1]) and not _is_activation_pair(node.inputs[1]))
    )


def why_not_product(node: ir.Node, main: ir.Graph) -> str | None:
    """Why a product of two activations cannot become integer, or None."""
    if main.opset_imports.get("", MIN_OPSET) < MIN_OPSET:
        return f"opset {main.opset_imports['']} is too old; run raise-opset first"
    if any(is_dequantized(value) for value in node.inputs):
        return "it is already quantized"
    for value in node.inputs:
        if value is None or value.dtype != ir.DataType.FLOAT:
            return "its operands are not known to be FLOAT"
        if value.shape is not None and (len(value.shape) < 2 or 1 in (value.shape[-1], value.shape[-2])):
            return "one of its operands is a vector"
    return None


def _is_activation_pair(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    source = producer.inputs[0] if producer is not None else None
    return source is not None and source.producer() is not None


def fused_output(node: ir.Node, style: QuantizationStyle) -> ir.Value:
    """The value to quantize behind a node: past the one activation that disappears into the quantization."""
    value = node.outputs[0]
    uses = list(value.uses())
    if len(uses) == 1 and not value.is_graph_output():
        user = uses[0].node
        bounds_are_constant = all(v is None or constant_tensor(v) is not None for v in user.inputs[1:])
        if user.op_type in style.fused and uses[0].idx == 0 and user.graph is node.graph and bounds_are_constant:
            return user.outputs[0]
    return value


def read_as_integers(value: ir.Value, target: Target, main: ir.Graph) -> bool:
    """Whether some operator behind a value, moves and joining operators of its graph passed, reads it as integers."""
    style = target.quantization
    pending, seen = [value], {value}
    while pending and len(seen) <= _LOOKAHEAD:
        for use in pending.pop(0).uses():
            node = use.node
            if node.domain != "":
                continue
            if node.op_type in style.weighted and use.idx == 0 and why_not_weighted(node, target, main) is None:
                return True
            moved = node.op_type in (*style.commuting, *style.fused) and use.idx == 0
            here = node.graph is value.graph
            if here and (moved or node.op_type in style.joining):
                new = [output for output in node.outputs if output not in seen]
                seen.update(new)
                pending += new
    return False


def is_table_lookup(node: ir.Node) -> bool:
    """Whether a Gather looks up rows of a constant float matrix worth quantizing."""
    table = constant_tensor(node.inputs[0]) if node.op_type == "Gather" and node.domain == "" else None
    return (
        table is not None
        and len(table.shape) == 2
        and table.dtype == ir.DataType.FLOAT
        and table.size * 4 >= MIN_TABLE_BYTES
        and node.attributes.get_int("axis", 0) in (0, -2)
    )


def why_not_table(node: ir.Node, main: ir.Graph) -> str | None:
    """Why the table of a lookup cannot be stored as int8, or None."""
    if main.opset_imports.get("", MIN_OPSET) < MIN_OPSET:
        return f"opset {main.opset_imports['']} has no scales per channel; run raise-opset first"
    table = node.inputs[0]
    assert table is not None
    reason = why_not_stored(table)
    return None if reason is None else reason.replace("its weight", "its table")
