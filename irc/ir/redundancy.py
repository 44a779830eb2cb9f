"""What a file need not say: names irc gave to nodes, types every reader infers, empty domains, bytes that are zero.

Without it an optimized small model would be larger than the original.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir

from irc.ir.origin import provenance
from irc.ir.shapes import is_invented
from irc.ir.stripped import graphs_of, is_opaque

_BRIEF: dict[int, str] = {
    onnx.TensorProto.INT64: "<i8",
    onnx.TensorProto.INT32: "<i4",
    onnx.TensorProto.INT16: "<i2",
    onnx.TensorProto.UINT16: "<u2",
}
MAX_COMPACT_ELEMENTS = 1024
"""Larger integer tensors keep their raw bytes: they are no longer cheap to look at one by one."""


def drop_redundant(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Clears invented node names and inferred types in a serialized model, and encodes small tensors briefly, in place.

    Types of inner values stay if the file the model was read from declared them, or if an operator that onnx does not
    know computes them; those of weights are in their tensors.

    Args:
        proto: `model` as protobuf.
        model: Tells what was there when it was read; no name or type is dropped of a model that irc did not read.
    """
    for opset in proto.opset_import:
        if not opset.domain:
            opset.ClearField("domain")
    for graph in graphs_of(proto.graph):
        for node in graph.node:
            if not node.domain:
                node.ClearField("domain")
        for tensor in _tensors(graph):
            _encode_briefly(tensor)
        for info in graph.value_info:
            for dim in info.type.tensor_type.shape.dim:
                if is_invented(dim.dim_param):
                    dim.ClearField("dim_param")
    origin = provenance(model)
    if origin.typed is None:
        return
    versions = {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import}
    functions = {(function.domain, function.name) for function in proto.functions}
    for graph in graphs_of(proto.graph):
        for info in (*graph.input, *graph.output) if graph is not proto.graph else ():
            if info.name in origin.unshaped and info.type.HasField("tensor_type"):
                info.type.tensor_type.ClearField("shape")
        weights = {tensor.name for tensor in graph.initializer}
        declared = set(origin.typed)
        for node in graph.node:
            if node.name in origin.named:
                node.ClearField("name")
            if is_opaque(node, versions, functions):
                declared.update(node.output)
        kept = [
            info
            for info in graph.value_info
            if (info.name in declared and info.name not in weights) or info.doc_string or info.metadata_props
        ]
        if len(kept) != len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(kept)


def varint_bytes(number: int) -> int:
    """Bytes protobuf takes for a signed integer: ten below zero, else one for every seven bits."""
    return 10 if number < 0 else max(1, -(-number.bit_length() // 7))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                if node.op_type == "Constant":
                    attribute.t.ClearField("name")  # its output has one
                yield attribute.t


def _encode_briefly(tensor: onnx.TensorProto) -> None:
    """Writes small integers, such as axes and shapes, in as many bytes as they need: -1 takes ten, 3 takes one."""
    dtype = _BRIEF.get(tensor.data_type)
    if dtype is None or not tensor.raw_data or len(tensor.raw_data) > MAX_COMPACT_ELEMENTS * int(dtype[-1]):
        return
    values = np.frombuffer(tensor.raw_data, dtype)
    length = sum(varint_bytes(int(value)) for value in values)
    if length >= len(tensor.raw_data):
        return
    tensor.ClearField("raw_data")
    (tensor.int64_data if dtype == "<i8" else tensor.int32_data).extend(values.tolist())
