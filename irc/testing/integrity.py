"""Whether a model or one of its tensors was touched, and whether its initializers are what they say."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from irc.ir import snapshot


def with_read_only_tensors(model: ir.Model) -> ir.Model:
    """A copy whose tensors in memory refuse to be written into."""
    armed = snapshot(model)
    for graph in dict.fromkeys((armed.graph, *armed.graph.subgraphs())):
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None or isinstance(tensor, ir.ExternalTensor | ir.LazyTensor | ir.StringTensor):
                continue
            if tensor.dtype == ir.DataType.STRING:
                continue
            array = np.array(tensor.numpy())
            array.flags.writeable = False
            value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=name, shape=tensor.shape)  # type: ignore[arg-type]
    return armed


def model_bytes(model: ir.Model) -> bytes:
    """Everything a model says, to compare."""
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return content


def untrue_initializers(model: ir.Model) -> list[str]:
    """Initializers whose name, type or shape is not that of their tensor, in words."""
    wrong = []
    for graph in dict.fromkeys((model.graph, *model.graph.subgraphs())):
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None or value.name != name or tensor.name != name:
                wrong.append(
                    f"initializer {name!r} is called {value.name!r}, its tensor {getattr(tensor, 'name', None)!r}"
                )
            elif value.dtype != tensor.dtype or value.shape is None or tuple(value.shape) != tuple(tensor.shape):
                wrong.append(
                    f"initializer {name!r} is declared {value.dtype}{value.shape}, its tensor is {tensor.dtype}{tensor.shape}"
                )
    return wrong


def tensor_digests(model: ir.Model) -> dict[str, str]:
    """A digest of the content of each initializer of the main graph, by name; texts aside."""
    return {
        name: hashlib.sha256(value.const_value.tobytes()).hexdigest()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype != ir.DataType.STRING
    }
