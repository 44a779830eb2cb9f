"""Store an embedding table as int8 and dequantize only the rows that are looked up.

    y = Gather(T, ids)   =>   y = DequantizeLinear(Gather(T_q, ids), s, axis=-1)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, unique_name
from irc.passes.quantization.weights import quantize_per_channel

META = "irc.int8.table"


def quantize_table(node: ir.Node) -> None:
    """Rewrites one lookup; lookups into one table share its int8 copy."""
    graph, table = node.graph, node.inputs[0]
    assert isinstance(graph, ir.Graph) and table is not None
    shared = table.meta.get(META)
    if shared is None or shared[0].graph is not graph:
        array = constant(table)
        assert array is not None
        quantized, scale = quantize_per_channel(np.asarray(array), axis=1)
        name = table.name or "table"
        table.meta[META] = (add_initializer(graph, f"{name}_q", quantized), add_initializer(graph, f"{name}_s", scale))
    stored, scales = table.meta[META]
    output = node.outputs[0]
    node.replace_input_with(0, stored)
    dequantize = ir.node("DequantizeLinear", [output, scales], {"axis": -1}, name="")
    twin = dequantize.outputs[0]
    twin.type, twin.shape = output.type, output.shape
    graph.insert_after(node, dequantize)
    for use in list(output.uses()):
        if use.node is not dequantize:
            use.node.replace_input_with(use.idx, twin)
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = twin
    twin.name = output.name
    output.name = unique_name(graph, f"{twin.name}_q")
    output.type = ir.TensorType(ir.DataType.INT8)
    if not table.uses() and table.is_initializer():
        del graph.initializers[table.name]  # type: ignore[arg-type]
