"""Read `.npz` files without trusting or loading more than needed: headers alone, whole, or row by row.

Python objects are never unpickled. Rows are read from the compressed stream one after another, so a file larger than
memory costs one row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from irc.calibration.data import Feed
from irc.calibration.input_signature import ArrayHeader
from irc.errors import DataError


@dataclasses.dataclass(frozen=True)
class _Member(ArrayHeader):
    """Header of an array in the archive, and how its bytes are laid out."""

    fortran: bool


def read_headers(path: Path, origin: str) -> dict[str, ArrayHeader]:
    """Types and shapes of all arrays of a file, by name.

    Raises:
        DataError: If the file is not a readable `.npz` of plain arrays.
    """
    with _archive(path, origin) as archive:
        return {name: _header(archive, member, origin)[0] for name, member in _members(archive, origin)}


def read_arrays(path: Path, origin: str) -> Feed:
    """All arrays of a file, by name.

    Raises:
        DataError: If the file is not a readable `.npz` of plain arrays.
    """
    arrays: Feed = {}
    with _archive(path, origin) as archive:
        for name, member in _members(archive, origin):
            _header(archive, member, origin)
            with archive.open(member) as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def read_rows(path: Path, origin: str) -> Iterator[Feed]:
    """Element after element of axis 0 of all arrays, each with a leading axis of 1.

    An array in Fortran order (`arrays.T` saved as it is) is read whole, since its rows are scattered.

    Raises:
        DataError: If the file is not a readable `.npz` of plain arrays, or damaged further on.
    """
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(_archive(path, origin))
        columns: dict[str, Iterator[np.ndarray[Any, Any]]] = {}
        count = 0
        for name, member in _members(archive, origin):
            header, stream = _header(archive, member, origin, stack)
            count = header.shape[0]
            columns[name] = _rows(header, stream)
        for _ in range(count):
            yield {name: next(column) for name, column in columns.items()}


def _rows(header: _Member, stream: IO[bytes]) -> Iterator[np.ndarray[Any, Any]]:
    size = header.dtype.itemsize * math.prod(header.shape[1:])
    if header.fortran:
        data = _exactly(stream, size * header.shape[0])
        whole = np.frombuffer(data, header.dtype).reshape(header.shape, order="F")
        for i in range(header.shape[0]):
            yield np.ascontiguousarray(whole[i : i + 1])
        return
    for _ in range(header.shape[0]):
        yield np.frombuffer(_exactly(stream, size), header.dtype).reshape(1, *header.shape[1:])


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:
        part = stream.read(min(size - len(data), 1 << 24))
        if not part:
            raise EOFError(f"an array ends after {len(data)} of {size} bytes")
        data += part
    return data


@contextlib.contextmanager
def _archive(path: Path, origin: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        with contextlib.suppress(OSError), path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise DataError(
                    f"{origin} holds one array without a name (.npy); write it with np.savez(path, NAME=array)"
                ) from error
        raise DataError(f"{origin} is not a readable .npz (truncated or damaged): {error}; write it again") from error
    except (OSError, EOFError, ValueError, KeyError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{origin} is not a readable .npz (truncated or damaged): {error}; write it again") from error


def _members(archive: zipfile.ZipFile, origin: str) -> list[tuple[str, zipfile.ZipInfo]]:
    found = [
        (info.filename.removesuffix(".npy"), info) for info in archive.infolist() if info.filename.endswith(".npy")
    ]
    if not found:
        raise DataError(f"{origin} holds no arrays; write it with np.savez(path, NAME=array)")
    return found


def _header(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, origin: str, stack: contextlib.ExitStack | None = None
) -> tuple[_Member, IO[bytes]]:
    """The header of a member and the stream behind it, open as long as `stack` is."""
    stream = archive.open(member)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except BaseException:
        stream.close()
        raise
    if stack is not None:
        stack.enter_context(stream)
    else:
        stream.close()
    name = member.filename.removesuffix(".npy")
    if dtype.hasobject:
        raise DataError(
            f"{origin}: array {name!r} holds Python objects, which irc does not unpickle; save a plain array"
        )
    if dtype.names is not None:
        raise DataError(f"{origin}: array {name!r} has fields {list(dtype.names)}; save one plain array per field")
    return _Member(dtype, tuple(int(n) for n in shape), bool(fortran)), stream
