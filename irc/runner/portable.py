"""Models on their way to the runtime process: a small protobuf, and weights by reference to files.

Weights that are already in a file stay there. Other large weights are written once, one at a time, to a file of the
runner's folder, and are found there again by every model that shares the tensor (tensors are immutable, and copies of
a model share them); the file goes when neither the tensor nor a model that uses it lives.
"""

from __future__ import annotations

import dataclasses
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irc.errors import RunnerError

if TYPE_CHECKING:
    import onnx_ir as ir

INLINE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class FileSlice:
    """A weight within a file.

    Attributes:
        path: Absolute path of the file.
        offset: First byte.
        dtype: numpy dtype name.
        shape: Shape of the tensor.
    """

    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class PortableModel:
    """What crosses to the runtime process.

    Attributes:
        proto: Serialized ModelProto whose large initializers are placeholders.
        weights: Those initializers, by name.
    """

    proto: bytes
    weights: dict[str, FileSlice | np.ndarray[Any, Any]]


class SpilledWeight:
    """A file that holds one weight; deleted with the last reference to this object."""

    def __init__(self, path: Path, array: np.ndarray[Any, Any]) -> None:
        data = np.ascontiguousarray(array)
        try:
            with path.open("wb") as file:
                data.tofile(file)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise RunnerError(
                f"cannot write {data.nbytes / 1e6:.0f} MB of weights to {path.parent}: {error.strerror or error}; "
                "set TMPDIR to a folder with more space"
            ) from error
        self.slice = FileSlice(str(path), 0, data.dtype.name, data.shape)
        weakref.finalize(self, _unlink, str(path), os.getpid())


class WeightStore:
    """The weights of one runner that had to be written to files.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[int, tuple[weakref.ref[Any], SpilledWeight]] = {}
        self._count = 0

    def portable(self, model: ir.Model, extra_outputs: Sequence[str]) -> tuple[PortableModel, list[SpilledWeight]]:
        """A model ready to cross, and the files it needs, to be kept while it may be opened.

        Raises:
            RunnerError: If weights cannot be written.
        """
        import onnx_ir as ir

        from irc.ir.splitting import skeleton

        split = skeleton(model, extra_outputs=extra_outputs)
        weights: dict[str, FileSlice | np.ndarray[Any, Any]] = {}
        spilled = []
        for name, tensor in split.weights.items():
            if isinstance(tensor, ir.ExternalTensor):
                path, shape = os.path.abspath(tensor.path), tuple(int(d) for d in tensor.shape)  # type: ignore[arg-type]
                weights[name] = FileSlice(path, tensor.offset or 0, tensor.dtype.numpy().name, shape)
            elif tensor.nbytes <= INLINE_BYTES:
                weights[name] = np.ascontiguousarray(tensor.numpy())
            else:
                kept = self._spill(tensor)
                weights[name] = kept.slice
                spilled.append(kept)
        return PortableModel(split.proto, weights), spilled

    def _spill(self, tensor: ir.TensorProtocol) -> SpilledWeight:
        key = id(tensor)
        if key in self._known and self._known[key][0]() is tensor:
            return self._known[key][1]
        self._count += 1
        spilled = SpilledWeight(self._folder / f"weight-{self._count}.bin", tensor.numpy())
        known = self._known
        known[key] = (weakref.ref(tensor, lambda _: known.pop(key, None)), spilled)
        return spilled


def _unlink(path: str, owner: int) -> None:
    # A fork of the compiler (a data loader's worker) inherits the object, but not the file.
    if os.getpid() == owner:
        Path(path).unlink(missing_ok=True)
