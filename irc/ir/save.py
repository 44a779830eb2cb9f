"""Write an ONNX file: atomically, deterministically, weights inline or beside it by size."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import onnx_ir as ir

from irc.errors import ModelError, OutputError
from irc.ir.stripped import without_weights
from irc.ir.validity import first_line

INLINE_LIMIT = 1 << 30
"""Above this many bytes of weights (1 GiB), or where the input kept them outside, weights go to a data file."""
KEEP_EXTERNAL = 64 << 20
"""A model that came with external data keeps it external above 64 MiB."""


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, those in bodies included."""
    return sum(
        value.const_value.nbytes
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def needs_external_data(model: ir.Model) -> bool:
    """Whether the weights are written to a data file: above 1 GiB, or above 64 MiB when they came from one."""
    total = weight_bytes(model)
    came_external = any(
        isinstance(value.const_value, ir.ExternalTensor) for value in model.graph.initializers.values()
    )
    return total > INLINE_LIMIT or (came_external and total > KEEP_EXTERNAL)


def size_on_disk(model: ir.Model) -> int:
    """Bytes the model would take when saved: its graph and its weights."""
    with without_weights(model, above=0):
        graph_bytes: int = ir.to_proto(model).ByteSize()
    return graph_bytes + weight_bytes(model)


def save(model: ir.Model, path: str | Path) -> tuple[Path, ...]:
    """Writes a model; under the final names there is either the complete result or what was there before.

    Weights go inline up to 1 GiB, else to `NAME.onnx.data`; lazy tensors are evaluated one at a time. Equal models give equal
    bytes.

    Args:
        model: Unchanged.
        path: The `.onnx` file.

    Returns:
        The files written, the model first.

    Raises:
        OutputError: If the folder cannot be written or the disk is full; nothing is left behind.
        ModelError: If the model cannot be serialized.
    """
    target = Path(path)
    external = needs_external_data(model)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise _output_error(target, error) from error
    try:
        staged = folder / target.name
        data_name = f"{target.name}.data"
        _write(model.clone(), staged, data_name if external else None)
        moves = [(folder / data_name, target.with_name(data_name))] if (folder / data_name).exists() else []
        moves.append((staged, target))
        for source, _ in moves:
            _sync(source)
            os.chmod(source, 0o666 & ~_umask())
        for source, final in moves:
            os.replace(source, final)
    except OSError as error:
        raise _output_error(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return tuple(final for _, final in reversed(moves))


def _write(model: ir.Model, path: Path, data_name: str | None) -> None:
    if data_name is None:
        ir.external_data.load_to_model(model)
    try:
        if data_name is not None:
            ir.save(model, path, external_data=data_name, size_threshold_bytes=1024)
        else:
            path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    except OSError:
        raise
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, OSError):
            raise cause from error
        raise ModelError(f"the model cannot be serialized: {first_line(cause or error)}") from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _output_error(path: Path, error: OSError) -> OutputError:
    if error.errno == errno.ENOSPC:
        return OutputError(f"{path}: no space left on the device; free some or choose another -o")
    return OutputError(f"{path}: {error.strerror or error}; choose another -o")
