"""Write an ONNX file: atomically, deterministically, weights inline or beside it by size."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

import onnx
import onnx_ir as ir

from irc.atomic import interrupts_deferred, output_error, refuse_special_file
from irc.errors import ModelError, OutputError
from irc.ir.copying import snapshot
from irc.ir.messages import first_line
from irc.ir.origin import provenance
from irc.ir.redundancy import drop_redundant
from irc.ir.stripped import graphs_of, weights_detached
from irc.ir.tensors import LARGE_BYTES

INLINE_LIMIT = 1 << 30
"""Above this many bytes of weights (1 GiB) they go to a data file: protobuf ends at 2 GiB and copies on the way."""
KEEP_EXTERNAL = 64 << 20
"""A model that came with external data keeps it external above 64 MiB."""
_ALIGNMENT = 4096
_ALIGN_ABOVE = 32 << 10


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, those in bodies included."""
    return sum(
        value.const_value.nbytes
        for graph in dict.fromkeys((model.graph, *model.graph.subgraphs()))
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def needs_external_data(model: ir.Model) -> bool:
    """Whether the weights are written to a data file: above 1 GiB, or above 64 MiB when they came from one."""
    came_external = provenance(model).external or any(
        isinstance(value.const_value, ir.ExternalTensor) for value in model.graph.initializers.values()
    )
    return weight_bytes(model) > (KEEP_EXTERNAL if came_external else INLINE_LIMIT)


def size_on_disk(model: ir.Model) -> int:
    """Bytes the model takes in one file, graph and weights; weights are not read."""
    with weights_detached(model, detach=lambda graph, value, tensor: tensor.nbytes >= LARGE_BYTES) as detached:
        proto: onnx.ModelProto = ir.to_proto(model)
    drop_redundant(proto, model)
    for graph in graphs_of(proto.graph):
        for tensor in graph.initializer:
            if tensor.name in detached:
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
    framing = sum(1 + (tensor.nbytes.bit_length() + 6) // 7 for tensor in detached.values())
    graph_bytes: int = proto.ByteSize()
    return graph_bytes + framing + sum(tensor.nbytes for tensor in detached.values())


def save(model: ir.Model, path: str | Path, *, external_threshold: int | None = None) -> tuple[Path, ...]:
    """Writes a model; under the final names there is either the complete result or what was there before.

    Weights go inline, or to one file `NAME.onnx.data` when they are large; lazy tensors are evaluated one at a time.
    Equal models give equal bytes.

    Args:
        model: Unchanged.
        path: The `.onnx` file.
        external_threshold: Bytes of weights above which they go to the data file; by default 1 GiB, or 64 MiB if the
            model came with external data.

    Returns:
        The files written, the model first.

    Raises:
        OutputError: If the folder cannot be written, the disk is full, or the path is a file the model was loaded from;
            nothing is left behind.
        ModelError: If the model cannot be serialized.
    """
    target = Path(path)
    external = needs_external_data(model) if external_threshold is None else weight_bytes(model) > external_threshold
    data_target = target.with_name(f"{target.name}.data")
    _check_target(model, target)
    if external:
        _check_target(model, data_target)
    try:
        folder = Path(tempfile.mkdtemp(prefix=".irc-", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise output_error(target, error) from error
    try:
        staged = folder / target.name
        _write(model, staged, data_target.name if external else None)
        moves = [(staged, target)]
        if (folder / data_target.name).exists():
            moves.append((folder / data_target.name, data_target))
        for source, _ in moves:
            _sync(source)
        with interrupts_deferred():
            for source, final in reversed(moves):
                os.replace(source, final)
        _sync(target.parent)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        with interrupts_deferred():
            shutil.rmtree(folder, ignore_errors=True)
    return tuple(final for _, final in moves)


def _check_target(model: ir.Model, target: Path) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a directory; give the name of a file in it")
    refuse_special_file(target)
    sources = list(provenance(model).files)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            sources.append(Path(value.const_value.path))
    for source in dict.fromkeys(sources):
        with contextlib.suppress(OSError):
            if os.path.samefile(source, target):
                raise OutputError(f"{target} is an input of this build, which irc never modifies; choose another -o")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{target} exists and is read-only; choose another -o")


def _write(model: ir.Model, path: Path, data_name: str | None) -> None:
    """Serializes into a private folder; a copy of `model`, since onnx_ir turns weights into references to the file."""
    copy = snapshot(model)
    _sort_metadata(copy)
    try:
        if data_name is not None:
            ir.external_data.unload_from_model(
                copy,
                str(path.parent),
                data_name,
                size_threshold_bytes=LARGE_BYTES,
                alignment=_ALIGNMENT,
                align_threshold=_ALIGN_ABOVE,
            )
            proto = ir.to_proto(copy)
        else:
            with weights_detached(copy, detach=lambda graph, value, tensor: False):
                proto = ir.to_proto(copy)
        drop_redundant(proto, model)
        content = proto.SerializeToString(deterministic=True)
        path.write_bytes(content)
    except OSError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError):
                raise cause from error
            cause = cause.__cause__
        raise ModelError(f"the model cannot be serialized: {first_line(error)}") from error


def _sort_metadata(model: ir.Model) -> None:
    _sort(model.metadata_props)
    for graph in dict.fromkeys((model.graph, *model.graph.subgraphs())):
        _sort(graph.metadata_props)
        for value in (*graph.inputs, *graph.initializers.values()):
            _sort(value.metadata_props)
        for node in graph:
            _sort(node.metadata_props)
            for value in node.outputs:
                _sort(value.metadata_props)


def _sort(properties: MutableMapping[str, str]) -> None:
    if len(properties) > 1:
        items = sorted(properties.items())
        properties.clear()
        properties.update(items)


def _sync(path: Path) -> None:
    """Flushes a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
