"""The compiler's side of the runtime process: start it, ask it, notice when it dies."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from irc.errors import RunnerError
from irc.runner.protocol import ConnectionClosed, receive, send


class WorkerProcess:
    """One child process running `irc.runner.worker`; started on the first call, restarted after a crash.

    Attributes:
        generation: Grows with every start: what was opened in an earlier generation is gone.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.folder: Path | None = None

    def call(self, method: str, *arguments: Any) -> Any:
        """Asks the worker and waits for the answer.

        Raises:
            RunnerError: If the runtime refuses, or the process dies (`crashed`).
        """
        process = self._start()
        try:
            send(cast(BinaryIO, process.stdin), (method, arguments))
            status, value = receive(cast(BinaryIO, process.stdout))
        except (BrokenPipeError, ConnectionClosed) as error:
            raise RunnerError(self._obituary(method), crashed=True) from error
        except BaseException:
            self.kill()
            raise
        if status == "error":
            raise RunnerError(_first_lines(value))
        return value

    def temporary_folder(self) -> Path:
        """A folder that lives as long as this object."""
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="irc-runner-"))
        return self.folder

    def kill(self) -> None:
        """Ends the process at once."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def close(self) -> None:
        """Ends the process and removes its files."""
        self.kill()
        if self._log is not None:
            self._log.close()
            self._log = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.kill()
        if self._log is not None:
            self._log.close()
        self._log = tempfile.TemporaryFile()
        paths = os.pathsep.join(p for p in sys.path if p)
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_WAIT_POLICY": "PASSIVE"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "irc.runner.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,
        )
        self.generation += 1
        return self._process

    def _obituary(self, method: str) -> str:
        assert self._process is not None and self._log is not None
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._log.seek(0)
        tail = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()][-1:]
        self._process = None
        return f"the runtime process died ({how}) during {method!r}" + (f": {tail[0]}" if tail else "")


def _first_lines(message: str) -> str:
    """ONNX Runtime's message without its line breaks and source locations."""
    text = " ".join(message.split())
    return text if len(text) <= 400 else text[:400] + "..."
