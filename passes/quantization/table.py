"""Store an embedding table as int8 and dequantize only the rows that are looked up.

    per column:  y = DequantizeLinear(Gather(T_q, ids), s, axis=-1)
    per row:     y = Cast(Gather(T_q, ids)) * Gather(s, ids)

Per column is one operator and the smallest; per row is taken where columns would lose much more, or where the table is
tied to a projection that has its scales along the rows already.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.passes.quantization import placement
from irc.passes.quantization.weights import relative_error
from irc.passes.quantization.workspace import Workspace, drop_if_unused, graph_of, take_over

ROW_GAIN = 4.0
"""Rows must have at least this many times less rounding error to be worth their operators and scales."""


def quantize_table(node: ir.Node, work: Workspace) -> None:
    """Rewrites one lookup; lookups into one table share its int8 copy."""
    table, ids = node.inputs[0], node.inputs[1]
    assert table is not None and ids is not None
    axis = _axis(table)
    stored = work.store(table, axis)
    output = node.outputs[0]
    node.replace_input_with(0, stored.quantized)
    if axis == 1:
        nodes = [ir.node("DequantizeLinear", [output, stored.scales], {"axis": -1}, name="")]
    else:
        cast = ir.node("Cast", [output], {"to": ir.DataType.FLOAT.value}, name="")
        rows = ir.node("Gather", [stored.scales, ids], name="")
        column = ir.node("Unsqueeze", [rows.outputs[0], work.constant(np.array([-1], np.int64))], name="")
        nodes = [cast, rows, column, ir.node("Mul", [cast.outputs[0], column.outputs[0]], name="")]
    for new in nodes:
        new.outputs[0].name = work.name("t")
    twin = nodes[-1].outputs[0]
    graph_of(node).insert_after(node, nodes)
    take_over(work, output, twin, kept=nodes)
    # A new object: the type of a value may be shared with its twin in another model.
    output.type = ir.TensorType(ir.DataType.INT8)
    drop_if_unused(table)


def _axis(table: ir.Value) -> int:
    """0 for scales per row, 1 for scales per column."""
    if any(use.node.op_type != "Gather" for use in table.uses()):
        weights = [placement.weight_of(user) for user in _weighted_users(table)]
        return next((w.axis for w in weights if w is not None), 1)
    array = constant(table)
    assert array is not None
    return 0 if relative_error(array, axis=1) > ROW_GAIN * relative_error(array, axis=0) else 1


def _weighted_users(table: ir.Value) -> list[ir.Node]:
    users = []
    for use in table.uses():
        if use.node.op_type == "Transpose":
            users += [inner.node for inner in use.node.outputs[0].uses()]
        elif use.node.op_type != "Gather":
            users.append(use.node)
    return users
