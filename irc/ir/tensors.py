"""Tensors in the form irc keeps them: arrays that are read without copying, files that stay mapped."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from irc.errors import ModelError
from irc.ir.messages import first_line

LARGE_BYTES = 1024
"""Tensors of this size and above are weights, not shapes; smaller ones may drive shape inference."""


def tensor_shape(tensor: ir.TensorProtocol) -> ir.Shape:
    """The shape of a tensor as a shape of its own, which a value may change."""
    return ir.Shape([int(d) for d in tensor.shape])  # type: ignore[arg-type]


def settle_tensors(model: ir.Model) -> None:
    """Brings every tensor of a freshly read model into its final form, in place.

    Inline weights become read-only arrays, decoded once: onnx_ir would decode and copy them at every access, and they
    would keep the whole parsed file in memory. External tensors below 1 KiB are read, since shapes depend on them;
    larger ones stay mapped.

    Raises:
        ModelError: If the bytes of a tensor do not fit its type and shape.
    """
    graphs = [model.graph, *model.graph.subgraphs()]
    for function in model.functions.values():
        graphs += [function.graph, *function.graph.subgraphs()]
    for graph in dict.fromkeys(graphs):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = settled(value.const_value, value.name or "")
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, settled(attribute.as_tensor(), f"{node.name}.{name}"))
                elif attribute.type == ir.AttributeType.TENSORS:
                    tensors = [settled(tensor, f"{node.name}.{name}") for tensor in attribute.as_tensors()]
                    node.attributes[name] = ir.AttrTensors(name, tensors)


def settled(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """One tensor in its final form.

    Args:
        tensor: Any tensor; lazy ones are not evaluated.
        name: Used in the message of an error.

    Raises:
        ModelError: If the bytes do not fit the type and shape.
    """
    if any(not isinstance(d, int) or d < 0 for d in tensor.shape):
        raise ModelError(
            f"weight {name!r} has shape {list(map(str, tensor.shape))}, which is impossible; export it again"
        )
    if isinstance(tensor, ir.ExternalTensor):
        if tensor.nbytes >= LARGE_BYTES or not tensor.base_dir:
            return tensor
        return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)
    raw = getattr(tensor, "raw", None)
    try:
        if isinstance(tensor, ir.StringTensor):
            return ir.StringTensor(
                [bytes(s) for s in tensor.string_data()], shape=ir.Shape(tensor.shape), name=tensor.name
            )
        if not isinstance(raw, onnx.TensorProto):
            return tensor
        if raw.HasField("raw_data") and len(raw.raw_data) != tensor.nbytes:
            raise ModelError(
                f"weight {name!r} has {len(raw.raw_data)} bytes, but {tensor.dtype.name} {list(tensor.shape)} needs "
                f"{tensor.nbytes}; the file is damaged: export or copy it again"
            )
        array = tensor.numpy()
        if array.size != tensor.size:
            raise ValueError(f"it has {array.size} elements")
        if tensor.dtype.bitwidth < 8:
            own = onnx.TensorProto()
            own.CopyFrom(raw)
            return ir.serde.TensorProtoTensor(own)
        array = np.ascontiguousarray(array).reshape(array.shape)
        array.flags.writeable = False
        return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"weight {name!r} cannot be read as {tensor.dtype.name} {list(tensor.shape)}: {first_line(error)}"
        ) from error
