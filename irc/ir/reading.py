"""Read an ONNX file: everything that could go wrong later is found now and said in one line."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from irc.errors import ModelError
from irc.ir.data_files import all_tensors, check_external_data
from irc.ir.normal_form import normalize_in_place, read_proto
from irc.ir.origin import provenance, record
from irc.ir.validity import check

MAX_OPSET = onnx.defs.onnx_opset_version()
MAX_FILE_BYTES = (1 << 31) - 1
"""What protobuf can parse (2 GiB); larger models keep their weights in data files."""

_SIGNATURES = (
    (b"version https://git-lfs", "is a Git LFS pointer; run `git lfs pull`"),
    (b"PK\x03\x04", "is a zip archive (a PyTorch checkpoint?); export it to ONNX or unpack it"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it"),
    (b"\x80\x02", "is a Python pickle (a PyTorch checkpoint?); export it to ONNX"),
    (b"\x89HDF", "is an HDF5 file (a Keras model?); export it to ONNX"),
    (b"\x93NUMPY", "is a numpy array; give the .onnx file"),
    (b"<!", "is a web page; download the file itself"),
    (b"<html", "is a web page; download the file itself"),
)


def load(path: str | Path) -> ir.Model:
    """Loads and normalizes a model; external weights stay on disk, mapped when used.

    Functions are inlined, names made unique, constants turned into initializers and exporter traces dropped. The opset
    stays. What had to be repaired is in `provenance(model).notes`.

    Args:
        path: An ONNX file; its data files lie beside it.

    Raises:
        ModelError: If the file is missing, damaged, not ONNX, invalid, of an unknown opset, or refers to data files
            that are missing, too short or outside its folder.
    """
    file = Path(path)
    proto = _parse(file)
    try:
        # Not resolve(): data files lie beside the name that was given, even if it is a link.
        return _build(proto, Path(os.path.abspath(file)))
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error


def _parse(file: Path) -> onnx.ModelProto:
    try:
        if not file.exists():
            raise ModelError(f"{file}: there is no such file")
        if file.is_dir():
            raise ModelError(f"{file} is a directory; give the .onnx file in it")
        if not file.is_file():
            raise ModelError(f"{file} is not a regular file; copy the model to one")
        size = file.stat().st_size
        if size == 0:
            raise ModelError(f"{file} is empty; export or copy it again")
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{file} has {size} bytes, more than an ONNX file can (2 GiB); save it with external data")
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    hint = next((text for signature, text in _SIGNATURES if content.startswith(signature)), None)
    if hint is None and content[4:8] == b"ORTM":
        hint = "is in ONNX Runtime's own format; give the ONNX file it was made from"
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(f"{file} {hint or 'is not an ONNX model or is truncated; export or copy it again'}") from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError(f"{file} {hint or 'is not an ONNX model: it has no graph; export or copy it again'}")
    return proto


def _build(proto: onnx.ModelProto, file: Path) -> ir.Model:
    if not proto.graph.output:
        raise ModelError("the graph has no outputs; the file is truncated or was exported without them")
    _check_versions(proto)
    model = read_proto(proto)
    del proto
    for tensor in all_tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = str(file.parent)
    data = check_external_data(model, file.parent)
    record(model, dataclasses.replace(provenance(model), files=(file, *data), external=bool(data)))
    normalize_in_place(model)
    check(model)
    return model


def _check_versions(proto: onnx.ModelProto) -> None:
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"IR version {proto.ir_version} is not known; the installed onnx {onnx.__version__} knows up to "
            f"{onnx.IR_VERSION}: upgrade onnx or export again"
        )
    if not proto.opset_import:
        raise ModelError("the model names no opset; export it again")
    versions: dict[str, int] = {}
    for opset in proto.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        if versions.setdefault(domain, opset.version) != opset.version:
            raise ModelError(
                f"opset {domain or 'ai.onnx'} is imported as {versions[domain]} and {opset.version}; keep one"
            )
        if domain == "" and not 1 <= opset.version <= MAX_OPSET:
            raise ModelError(
                f"opset {opset.version} is not known; the installed onnx {onnx.__version__} knows 1 to {MAX_OPSET}: "
                "export with one of these or upgrade onnx"
            )
