"""What a tensor holds, as a short digest: equal bytes give equal digests, read in pieces so that large weights stay mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

PIECE_BYTES = 1 << 20
"""How much is read at a time (1 MiB)."""
SAMPLE_ELEMENTS = 1024
"""How many elements of the beginning, the middle and the end make a sample."""

ContentKey = tuple[ir.DataType, tuple[int, ...], bytes]


def content_key(tensor: ir.TensorProtocol) -> ContentKey:
    """Dtype, shape and digest: equal for two tensors exactly if every bit of them is equal.

    Numbers that compare equal but differ in their bits (0 and -0) differ here; NaNs of the same bits do not.
    """
    return tensor.dtype, _dims(tensor), content_digest(tensor)


def content_digest(tensor: ir.TensorProtocol) -> bytes:
    """A 256-bit digest of the bytes of a tensor; a lazy one is evaluated."""
    hasher = hashlib.sha256()
    tensor = _evaluated(tensor)
    if tensor.dtype == ir.DataType.STRING:
        for text in np.asarray(tensor.numpy(), dtype=object).flat:
            hasher.update(len(text).to_bytes(8, "little") + text)
    elif isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(_HashFile(hasher.update))  # reads the file piece by piece, without mapping it
    elif tensor.dtype.bitwidth < 8:
        hasher.update(tensor.tobytes())
    else:
        array = np.asarray(tensor.numpy())
        if array.flags.c_contiguous:
            hasher.update(array.reshape(-1).view(np.uint8).data)
        else:
            step = max(1, PIECE_BYTES // array.dtype.itemsize)
            for start in range(0, array.size, step):
                hasher.update(array.flat[start : start + step].tobytes())
    return hasher.digest()


def sample_key(tensor: ir.TensorProtocol) -> ContentKey:
    """Dtype, shape and digest of a few elements: different for tensors that differ there, without reading the rest.

    Tensors that are lazy, packed or of text are told apart by dtype and shape only.
    """
    hasher = hashlib.sha256()
    opaque = isinstance(tensor, ir.LazyTensor) or tensor.dtype == ir.DataType.STRING or tensor.dtype.bitwidth < 8
    if not opaque and tensor.size > 0:
        flat = np.asarray(tensor.numpy()).flat
        middle, end = tensor.size // 2, max(0, tensor.size - SAMPLE_ELEMENTS)
        for start in (0, middle, end):
            hasher.update(flat[start : start + SAMPLE_ELEMENTS].tobytes())
    return tensor.dtype, _dims(tensor), hasher.digest()


def _dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    return tuple(int(d) for d in tensor.shape)  # type: ignore[arg-type]


def _evaluated(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor behind a lazy one, so that its array is read where it lies and not copied."""
    while isinstance(tensor, ir.LazyTensor):
        tensor = tensor.raw()
    return tensor


class _HashFile:
    """A file that only remembers the digest of what is written to it."""

    def __init__(self, update: Callable[[bytes], None]) -> None:
        self._update = update

    def write(self, data: bytes) -> int:
        self._update(data)
        return len(data)
