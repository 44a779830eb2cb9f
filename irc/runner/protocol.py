"""Messages between the compiler and its runtime process: length-prefixed pickles over two pipes."""

from __future__ import annotations

import pickle
import struct
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<Q")


class ConnectionClosed(Exception):
    """The other side has gone."""


def send(stream: BinaryIO, message: Any) -> None:
    """Writes one message.

    Raises:
        BrokenPipeError: If the other side has gone.
    """
    payload = pickle.dumps(message, protocol=5)
    stream.write(_LENGTH.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Reads one message.

    Raises:
        ConnectionClosed: If the stream ends.
    """
    header = _read(stream, _LENGTH.size)
    return pickle.loads(_read(stream, _LENGTH.unpack(header)[0]))


def _read(stream: BinaryIO, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = stream.read(count - len(parts))
        if not part:
            raise ConnectionClosed
        parts += part
    return bytes(parts)
