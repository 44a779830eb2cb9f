"""Run onnxsim in a process of its own: it is compiled code that may crash, hang, or keep what it allocates.

The child runs this file by path, so that it imports onnxsim and nothing of irc.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

FOLDED_BYTES = "1MB"
"""onnxsim computes no constant larger than this; what it stores beyond what it removes is refused anyway."""


def is_installed() -> bool:
    """Whether there is an onnxsim to run; it is not imported."""
    return importlib.util.find_spec("onnxsim") is not None


def simplified(proto: onnx.ModelProto, *, seconds: float) -> onnx.ModelProto | str:
    """What onnxsim makes of a model, or why there is nothing, as the end of a sentence that starts with "onnxsim".

    Args:
        proto: A model without external data; unchanged.
        seconds: Time after which the process is ended.
    """
    with tempfile.TemporaryDirectory(prefix="irc-") as folder:
        source, result = Path(folder) / "model.onnx", Path(folder) / "simplified.onnx"
        source.write_bytes(proto.SerializeToString(deterministic=True))
        # -P: the folder of this file holds modules that must not stand in for others.
        command = [sys.executable, "-P", __file__, str(source), str(result)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"did not finish within {seconds:g} s"
        except OSError as error:
            return f"could not be started: {error.strerror}"
        if done.returncode < 0:
            return f"crashed ({_signal_name(-done.returncode)})"
        if done.returncode != 0 or not result.is_file():
            return f"failed: {_last_line(done.stderr)}"
        found = onnx.ModelProto()
        try:
            found.ParseFromString(result.read_bytes())
        except Exception:
            return "wrote a file that is not a model"
        return found


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def main(source: str, result: str) -> None:
    """Simplifies a file; what the child does."""
    import onnxsim

    model = onnx.load(source)
    found, _ = onnxsim.simplify(model, check_n=0, certify=False, tensor_size_threshold=FOLDED_BYTES)
    Path(result).write_bytes(found.SerializeToString())


if __name__ == "__main__":
    main(*sys.argv[1:])
