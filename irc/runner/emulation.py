"""Run a model in a type that the runtime does not have: in float32, every result rounded to the type.

    y = op(x, W) in bfloat16   =>   y = Cast<float>(Cast<bfloat16>(op(x, Cast<float>(W)))) in float32

Sums are float32 and only results are rounded, which is what hardware does; ONNX Runtime's CPU provider has the Casts, and
keeps those that are the model's own.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irc.ir import snapshot, unique_name

_EXACT = frozenset((
    "Cast", "Compress", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
    "If", "Loop", "Max", "MaxPool", "Min", "Neg", "Pad", "Relu", "Reshape", "ScatterElements", "ScatterND", "Scan", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
))  # fmt: skip
"""Operators that give numbers they were given, so that there is nothing to round."""


def needs_emulation(model: ir.Model, wanted: ir.DataType = ir.DataType.BFLOAT16) -> bool:
    """Whether a model computes in a type behind an interface without it."""
    if any(value.dtype == wanted for value in (*model.graph.inputs, *model.graph.outputs)):
        return False
    return any(value.dtype == wanted for node in model.graph.all_nodes() for value in node.outputs)


def emulated(model: ir.Model, dtype: ir.DataType = ir.DataType.BFLOAT16) -> ir.Model:
    """A copy that computes in float32 what the model computes in another type, and rounds every result to it.

    Args:
        model: Unchanged; its inputs and outputs are not of the type.
        dtype: bfloat16 or float16.
    """
    work = snapshot(model)
    for graph in dict.fromkeys((work.graph, *work.graph.subgraphs())):
        for value in graph.initializers.values():
            if value.dtype == dtype and value.const_value is not None:
                value.const_value = _widened(value.const_value)
                value.type = ir.TensorType(ir.DataType.FLOAT)
        for value in graph.inputs:
            if value.dtype == dtype:
                value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in list(work.graph.all_nodes()):
        made = [value for value in node.outputs if value.dtype == dtype]
        if node.op_type == "Cast" and made:
            _widen_behind(made[0])
            continue
        for name in ("value", "dtype"):
            attribute = node.attributes.get(name)
            if attribute is None or not made:
                continue
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == dtype:
                node.attributes[name] = ir.AttrTensor(name, _widened(attribute.as_tensor()))
            elif attribute.type == ir.AttributeType.INT and attribute.as_int() == dtype.value:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT.value)
        for value in made:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            if node.op_type not in _EXACT or node.domain != "":
                _widen_behind(_cast_behind(value, dtype))
    return work


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    def evaluate() -> ir.TensorProtocol:
        return ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)

    shape = ir.Shape([int(d) for d in tensor.shape])  # type: ignore[arg-type]
    return ir.LazyTensor(evaluate, dtype=ir.DataType.FLOAT, shape=shape, name=tensor.name)


def _widen_behind(value: ir.Value) -> None:
    _cast_behind(value, ir.DataType.FLOAT)


def _cast_behind(value: ir.Value, to: ir.DataType) -> ir.Value:
    """Puts a Cast behind a value, which all its readers read instead."""
    producer = value.producer()
    assert producer is not None and isinstance(producer.graph, ir.Graph)
    readers = [(use.node, use.idx) for use in value.uses()]
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to.value)], num_outputs=1)
    made = node.outputs[0]
    made.name = unique_name(producer.graph, f"{value.name}_rounded")
    made.type, made.shape = ir.TensorType(to), value.shape
    producer.graph.insert_after(producer, node)
    for reader, index in readers:
        reader.replace_input_with(index, made)
    for index, output in enumerate(producer.graph.outputs):
        if output is value:
            producer.graph.outputs[index] = made
            value.name, made.name = made.name, value.name
    return made
