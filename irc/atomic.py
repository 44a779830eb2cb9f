"""What every atomic write needs: Ctrl-C held back around renames, and one wording for a write that failed."""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from irc.errors import OutputError


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Holds Ctrl-C back until the block is done, so that files that belong together appear together."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: pending.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if pending and callable(previous):
            previous(*pending[0])


def refuse_special_file(path: Path) -> None:
    """Refuses to write where something other than a file stands: renaming would replace a device such as /dev/null.

    Raises:
        OutputError: If the path is a directory, a device, a pipe or a socket.
    """
    if path.is_dir():
        raise OutputError(f"output {path} is a directory; give a file name such as {path / 'model.irc.onnx'}")
    if path.exists() and not path.is_file():
        raise OutputError(f"output {path} is a device or a pipe, not a file; choose another -o")


def output_error(path: Path, error: OSError) -> OutputError:
    """The error that a failed write to `path` is reported as, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"{path}: no space left on the device; free some or choose another -o")
    if error.errno == errno.EFBIG:
        return OutputError(
            f"{path}: the file is too large for the file system or its limit (ulimit -f); choose another -o"
        )
    if error.errno is None:
        # numpy reports a short write in words of its own, without the reason.
        return OutputError(
            f"{path}: cannot write the weights ({error}): the disk is full or a limit is reached; choose another -o"
        )
    return OutputError(f"{path}: {error.strerror}; choose another -o")
