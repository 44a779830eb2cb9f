"""The compiler's side of the runtime process: start it, ask it, notice when it dies, leave no orphan."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from irc.errors import RunnerError
from irc.runner.protocol import ConnectionClosed, Reader, Writer, receive, send

MESSAGE_LENGTH = 400
PIPE_BYTES = 1 << 20
LOG_TAIL_BYTES = 4096


class WorkerProcess:
    """One child process running `irc.runner.worker`; started on the first call, and anew after a crash.

    Calls are answered in turn; threads may share the object.

    Attributes:
        folder: Files of this object's lifetime, for what is too large for a pipe.
        start_seconds: How long the last start took until the first answer could be asked for.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="irc-runner-"))
        self.start_seconds = 0.0
        self._generation = 0
        self._lock = threading.RLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._closed = False
        # Whatever happens to the owner, the child and the folder go with this object or with the interpreter.
        self._children: list[subprocess.Popen[bytes]] = []
        self._finalizer = weakref.finalize(self, _clean_up, self._children, self.folder, os.getpid())

    @property
    def generation(self) -> int:
        """Counts the processes there have been: what was opened in an earlier one is gone."""
        with self._lock:
            if self._child is not None and self._child.poll() is not None:
                self.kill()
            return self._generation

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._child.pid if self._child is not None else None

    def start(self) -> None:
        """Starts the child without waiting for it, if none runs.

        Raises:
            RunnerError: If this object was closed.
        """
        with self._lock:
            if self._closed:
                raise RunnerError("the runner was closed; open a new one")
            if self._child is not None and self._child.poll() is None:
                return
            self.kill()
            self._log.seek(0)
            self._log.truncate()
            # The paths of this interpreter, so that the child finds the same modules however irc was made importable.
            paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
            self._started = time.perf_counter()
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "irc.runner.worker", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": paths},
                # Ctrl-C is for the compiler, which then ends the child.
                start_new_session=True,
            )
            self._ready = False
            self._children[:] = [self._child]
            for stream in (self._child.stdin, self._child.stdout):
                _widen(stream)

    def call(
        self,
        method: str,
        *arguments: Any,
        progress: Callable[[float], None] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Asks the child and waits for the answer.

        Args:
            method: A public method of `irc.runner.worker.Worker`.
            arguments: Its arguments.
            progress: Told the share done, if the method reports it.
            timeout: Seconds after which the child is ended; None waits for ever.

        Raises:
            RunnerError: If the runtime refuses, or the child dies or is too slow (`crashed`).
        """
        with self._lock:
            self.start()
            child = cast("subprocess.Popen[bytes]", self._child)
            expired = threading.Event()
            timer = threading.Timer(timeout, _expire, (child, expired)) if timeout is not None else None
            if timer is not None:
                timer.daemon = True
                timer.start()
            try:
                if not self._ready:
                    receive(cast(Reader, child.stdout))
                    self.start_seconds = time.perf_counter() - self._started
                    self._ready = True
                send(cast(Writer, child.stdin), (method, arguments))
                status, value = receive(cast(Reader, child.stdout))
                while status == "progress":
                    if progress is not None:
                        progress(value)
                    status, value = receive(cast(Reader, child.stdout))
            except (BrokenPipeError, ConnectionClosed) as error:
                reason = f"no answer within {timeout:.0f} s" if expired.is_set() else self._cause_of_death(child)
                self.kill()
                raise RunnerError(f"the runtime process died in {method!r}: {reason}", crashed=True) from error
            except BaseException:
                # Interrupted between question and answer: the next answer would be taken for another's.
                self.kill()
                raise
            finally:
                if timer is not None:
                    timer.cancel()
            if status == "error":
                raise RunnerError(one_line(value))
            return value

    def kill(self) -> None:
        """Ends the child at once; the next call starts another."""
        with self._lock:
            child, self._child = self._child, None
            if child is None:
                return
            self._generation += 1
            self._children.clear()
            _end(child)

    def close(self) -> None:
        """Ends the child and removes the folder; calls are refused from now on."""
        with self._lock:
            self._closed = True
            self.kill()
            self._log.close()
            self._finalizer()

    def _cause_of_death(self, child: subprocess.Popen[bytes]) -> str:
        try:
            code = child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its side of the pipe"
        self._log.flush()
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL_BYTES))
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        said = f"; its last words: {one_line(lines[-1])}" if lines else ""
        if code >= 0:
            return f"exit code {code}{said}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (is the machine out of memory?)" if name == "SIGKILL" else ""
        return f"{name}{hint}{said}"


def one_line(message: str) -> str:
    """A message of the runtime in one line of bounded length."""
    text = " ".join(message.split())
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 3] + "..."


def _widen(stream: IO[bytes] | None) -> None:
    """Lets a pipe hold a sample of usual size, where the system can, so that writing it does not wait for the reader."""
    if stream is None:
        return
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        if (set_size := getattr(fcntl, "F_SETPIPE_SZ", None)) is not None:
            fcntl.fcntl(stream, set_size, PIPE_BYTES)


def _expire(child: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    with contextlib.suppress(OSError):
        child.kill()


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _clean_up(children: list[subprocess.Popen[bytes]], folder: Path, owner: int) -> None:
    # After a fork the copy of this object must not end its parent's child.
    if os.getpid() != owner:
        return
    for child in children:
        _end(child)
    shutil.rmtree(folder, ignore_errors=True)
