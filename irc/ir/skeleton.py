"""A model split for execution: a small protobuf and references to its weights, so that no weight is serialized.

The skeleton can cross a process boundary: slices of files are mapped by whoever opens the session, arrays travel by
value, and `spill` turns large arrays and lazy tensors into slices one at a time.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from irc.errors import ModelError, OutputError
from irc.ir.stripped import weights_detached
from irc.ir.tensors import LARGE_BYTES

SPILL_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class ExternalSlice:
    """Bytes of a tensor within a file.

    Attributes:
        path: Absolute path of the file.
        offset: First byte.
        length: Number of bytes.
        dtype: numpy dtype name. Types numpy does not have are not sliced.
        shape: Shape of the tensor.
    """

    path: str
    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]

    def array(self) -> np.ndarray[Any, Any]:
        """The tensor, mapped read-only from the file."""
        dtype = np.dtype(self.dtype)
        if self.length == 0:
            return np.empty(self.shape, dtype)
        flat = np.memmap(self.path, dtype=np.uint8, mode="r", offset=self.offset, shape=(self.length,))
        return flat.view(np.ndarray).view(dtype).reshape(self.shape)


@dataclasses.dataclass
class Skeleton:
    """A model without its large weights, and where they are. Picklable after `spill`.

    Attributes:
        proto: Serialized ModelProto whose large initializers are external placeholders.
        weights: Name to slice, array, or lazy tensor (before `spill`).
    """

    proto: bytes
    weights: dict[str, Any]

    def spill(self, folder: Path) -> Skeleton:
        """Writes every array and lazy tensor of 1 MiB or more to one file, one at a time, and refers to it there.

        Args:
            folder: Where; each call writes a file of its own.

        Raises:
            OutputError: If the file cannot be written.
        """
        spilled: dict[str, Any] = {}
        large = [name for name, weight in self.weights.items() if _is_large(weight)]
        for name, weight in self.weights.items():
            if name not in large:
                spilled[name] = weight.numpy() if isinstance(weight, ir.LazyTensor) else weight
        if not large:
            return Skeleton(self.proto, spilled)
        try:
            descriptor, path = tempfile.mkstemp(dir=folder, prefix="weights-", suffix=".bin")
            with os.fdopen(descriptor, "wb") as file:
                for name in large:
                    weight = self.weights[name]
                    array = np.ascontiguousarray(weight if isinstance(weight, np.ndarray) else weight.numpy())
                    offset = -(-file.tell() // 4096) * 4096
                    file.seek(offset)
                    file.write(array.reshape(-1).view(np.uint8).data)
                    spilled[name] = ExternalSlice(path, offset, array.nbytes, array.dtype.name, array.shape)
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot hold the weights for a run: {error.strerror}; set TMPDIR elsewhere"
            ) from error
        return Skeleton(self.proto, {name: spilled[name] for name in self.weights})


def _is_large(weight: Any) -> bool:
    return not isinstance(weight, ExternalSlice) and weight.nbytes >= SPILL_BYTES


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

    Weights of 1 KiB and more in the main graph are split off; those in bodies and of types numpy lacks stay inside.

    Args:
        model: Any model, valid or not.
        extra_outputs: Names of values of the main graph that become outputs as well.

    Raises:
        ModelError: If an extra output is not a value of the main graph.
    """

    def split(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> bool:
        large = tensor.nbytes >= LARGE_BYTES and tensor.dtype in _NUMPY_TYPES
        return large and graph is model.graph and not value.is_graph_input()

    with weights_detached(model, detach=split) as detached:
        proto: onnx.ModelProto = ir.to_proto(model)
    if extra_outputs:
        _expose(model, proto, extra_outputs)
    weights = {name: _weight(tensor) for name, tensor in detached.items()}
    return Skeleton(proto.SerializeToString(deterministic=True), weights)


def _expose(model: ir.Model, proto: onnx.ModelProto, names: Sequence[str]) -> None:
    graph = model.graph
    known = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    known |= {value.name for node in graph for value in node.outputs}
    present = {value.name for value in model.graph.outputs}
    for name in names:
        if name in present:
            continue
        if name not in known:
            raise ModelError(f"{name!r} cannot be observed: the main graph has no such value")
        present.add(name)
        # Without a type: the runtime infers it, and what the graph says may be stale in the middle of an edit.
        proto.graph.output.add(name=name)


def _weight(tensor: ir.TensorProtocol) -> Any:
    shape = tuple(int(d) for d in tensor.shape)  # type: ignore[arg-type]
    if isinstance(tensor, ir.ExternalTensor):
        path = os.path.abspath(tensor.path)
        return ExternalSlice(path, tensor.offset or 0, tensor.nbytes, tensor.dtype.numpy().name, shape)
    return tensor if isinstance(tensor, ir.LazyTensor) else np.asarray(tensor.numpy())
