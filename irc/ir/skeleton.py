"""A model split for execution: a small protobuf and references to its weights, so that no weight is serialized.

The skeleton can cross a process boundary: slices of files are mapped by whoever opens the session, arrays travel by
value, and `spill` turns large arrays and lazy tensors into slices one at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

LARGE_BYTES = 1024
SPILL_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class ExternalSlice:
    """Bytes of a tensor within a file.

    Attributes:
        path: Absolute path of the file.
        offset: First byte.
        length: Number of bytes.
        dtype: numpy dtype name; bfloat16 and float8 by their onnx names are not sliced.
        shape: Shape of the tensor.
    """

    path: str
    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]

    def array(self) -> np.ndarray[Any, Any]:
        """The tensor, mapped from the file."""
        count = int(np.prod(self.shape, dtype=np.int64))
        flat = np.memmap(self.path, dtype=np.dtype(self.dtype), mode="r", offset=self.offset, shape=(count,))
        return flat.reshape(self.shape)


@dataclasses.dataclass
class Skeleton:
    """A model without its large weights, and where they are.

    Attributes:
        proto: Serialized ModelProto whose large initializers are external placeholders.
        weights: Name to slice, array, or lazy tensor (before `spill`).
    """

    proto: bytes
    weights: dict[str, Any]

    def spill(self, folder: Path) -> Skeleton:
        """Writes every array above 1 MiB and every lazy tensor to a file, one at a time, and refers to it there."""
        spilled: dict[str, Any] = {}
        path = folder / "weights.bin"
        with path.open("wb") as file:
            for name, weight in self.weights.items():
                if isinstance(weight, ExternalSlice) or (
                    isinstance(weight, np.ndarray) and weight.nbytes <= SPILL_BYTES
                ):
                    spilled[name] = weight
                    continue
                array = np.ascontiguousarray(weight if isinstance(weight, np.ndarray) else weight.numpy())
                offset = -(-file.tell() // 4096) * 4096
                file.seek(offset)
                file.write(memoryview(array.reshape(-1)).cast("B") if array.size else b"")
                spilled[name] = ExternalSlice(str(path), offset, array.nbytes, array.dtype.name, array.shape)
        return Skeleton(self.proto, spilled)


_NUMPY_TYPES = {
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.INT8,
    ir.DataType.INT16,
    ir.DataType.INT32,
    ir.DataType.INT64,
    ir.DataType.UINT8,
    ir.DataType.UINT16,
    ir.DataType.UINT32,
    ir.DataType.UINT64,
    ir.DataType.BOOL,
}


def skeleton(model: ir.Model, *, extra_outputs: Sequence[str] = ()) -> Skeleton:
    """Splits a model into a small protobuf and its weights; the model is unchanged.

    Args:
        model: Any model, valid or not.
        extra_outputs: Names of values that become graph outputs as well.
    """
    replaced: list[tuple[ir.Value, ir.TensorProtocol]] = []
    weights: dict[str, Any] = {}
    added = 0
    graph = model.graph
    try:
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < LARGE_BYTES or tensor.dtype not in _NUMPY_TYPES:
                continue
            weights[name] = _weight(tensor)
            placeholder = ir.ExternalTensor(
                f"{name}.bin", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape), name=name
            )
            replaced.append((value, tensor))
            value.const_value = placeholder
        if extra_outputs:
            known = ir.convenience.create_value_mapping(graph)
            present = {value.name for value in graph.outputs}
            for name in extra_outputs:
                if name not in present:
                    graph.outputs.append(known[name])
                    added += 1
        inlined = _serializable(model)
        proto: onnx.ModelProto = ir.to_proto(inlined)
        return Skeleton(proto.SerializeToString(deterministic=True), weights)
    finally:
        for _ in range(added):
            graph.outputs.pop()
        for value, tensor in replaced:
            value.const_value = tensor


def _serializable(model: ir.Model) -> ir.Model:
    """The model, with remaining external tensors (small, in bodies, or of packed types) brought into memory."""
    placeholders = {id(v.const_value) for v in model.graph.initializers.values() if _is_placeholder(v)}
    remaining = [
        value
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor) and id(value.const_value) not in placeholders
    ]
    if not remaining:
        return model
    copy: ir.Model = model.clone()
    names = {value.name for value in remaining}
    for graph in (copy.graph, *copy.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.name in names and isinstance(value.const_value, ir.ExternalTensor):
                tensor = value.const_value
                value.const_value = ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)
    return copy


def _is_placeholder(value: ir.Value) -> bool:
    tensor = value.const_value
    return isinstance(tensor, ir.ExternalTensor) and tensor.location == f"{value.name}.bin" and not tensor.base_dir


def _weight(tensor: ir.TensorProtocol) -> Any:
    if isinstance(tensor, ir.ExternalTensor) and tensor.path:
        dtype = tensor.dtype.numpy().name
        shape = tuple(int(d) for d in tensor.shape)  # type: ignore[arg-type]
        return ExternalSlice(str(tensor.path), tensor.offset or 0, tensor.nbytes, dtype, shape)
    if isinstance(tensor, ir.LazyTensor):
        return tensor
    return np.asarray(tensor.numpy())
