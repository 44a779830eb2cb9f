"""Messages between the compiler and its runtime process, and the same bytes in a file.

A message is a pickle whose large arrays follow it as raw blocks, aligned so that arrays can be used where they lie:

    magic, number of blocks, lengths | pickle | block | block | ...

Over a pipe no array is copied into the pickle; from a file (`mapped`) arrays are not even read until they are used.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
from pathlib import Path
from typing import Any, Protocol

MAGIC = b"irc1"
ALIGNMENT = 64
_HEAD = struct.Struct("<4sI")
_LENGTH = struct.Struct("<Q")


class Writer(Protocol):
    """Where messages are written: an unbuffered or a buffered binary stream."""

    def write(self, data: Any, /) -> int | None:
        """Writes some bytes and returns how many (all of them if None)."""


class Reader(Protocol):
    """Where messages are read from."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Fills the start of a buffer and returns how many bytes it got; 0 at the end."""


class ConnectionClosed(Exception):
    """The stream ended within or before a message."""


def encode(message: Any) -> list[memoryview]:
    """The blocks of a message, in order, padding included.

    Raises:
        pickle.PicklingError: If the message holds something that cannot cross a process boundary.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    blocks = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    header = _HEAD.pack(MAGIC, len(blocks)) + b"".join(_LENGTH.pack(block.nbytes) for block in blocks)
    parts = [memoryview(header + bytes(-len(header) % ALIGNMENT))]
    for block in blocks:
        parts.append(block)
        if block.nbytes % ALIGNMENT:
            parts.append(memoryview(bytes(-block.nbytes % ALIGNMENT)))
    return parts


def send(stream: Writer, message: Any) -> None:
    """Writes one message.

    Raises:
        BrokenPipeError: If the other side has gone.
        pickle.PicklingError: If the message cannot be pickled; nothing was written.
    """
    for part in encode(message):
        while part.nbytes:
            written = stream.write(part)
            part = part[written:] if written is not None else part[part.nbytes :]


def receive(stream: Reader) -> Any:
    """Reads one message; its arrays are writable and own their memory.

    Raises:
        ConnectionClosed: If the stream ends, or holds something else.
    """
    magic, count = _HEAD.unpack(_read(stream, _HEAD.size))
    if magic != MAGIC:
        raise ConnectionClosed
    lengths = [length for (length,) in _LENGTH.iter_unpack(_read(stream, count * _LENGTH.size))]
    _read(stream, -(_HEAD.size + count * _LENGTH.size) % ALIGNMENT)
    blocks = []
    for length in lengths:
        blocks.append(_read(stream, length))
        _read(stream, -length % ALIGNMENT)
    return pickle.loads(blocks[0], buffers=blocks[1:])


def store(path: Path, message: Any) -> None:
    """Writes one message to a file of its own; an interrupted write leaves the file as it was."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        send(file, message)
    partial.replace(path)


def mapped(path: str | os.PathLike[str]) -> Any:
    """Reads a stored message; its large arrays are read-only views of the file."""
    with Path(path).open("rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    _, count = _HEAD.unpack(whole[: _HEAD.size])
    offset = _HEAD.size + count * _LENGTH.size
    lengths = [length for (length,) in _LENGTH.iter_unpack(whole[_HEAD.size : offset])]
    offset += -offset % ALIGNMENT
    blocks = []
    for length in lengths:
        blocks.append(whole[offset : offset + length])
        offset += length + -length % ALIGNMENT
    return pickle.loads(blocks[0], buffers=blocks[1:])


def _read(stream: Reader, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view.nbytes:
        got = stream.readinto(view)
        if not got:
            raise ConnectionClosed
        view = view[got:]
    return data
