"""Read an ONNX file: everything that could go wrong later is found now and said in one line."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from irc.errors import ModelError
from irc.ir.normalize import normalize_in_place, refuse_unsupported
from irc.ir.validity import check, first_line

MAX_OPSET = onnx.defs.onnx_opset_version()


def load(path: str | Path) -> ir.Model:
    """Loads and normalizes a model; external weights stay on disk, mapped when used.

    Args:
        path: An ONNX file; its data files lie beside it.

    Raises:
        ModelError: If the file is missing, damaged, not ONNX, invalid, of an unknown opset, or refers to data files that are
            missing, too short or outside its folder.
    """
    file = Path(path)
    if not file.exists():
        raise ModelError(f"{file}: there is no such file")
    if file.is_dir():
        raise ModelError(f"{file} is a directory; give the .onnx file in it")
    try:
        if file.stat().st_size == 0:
            raise ModelError(f"{file} is empty; export or copy it again")
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(f"{file} is not an ONNX model or is truncated: {first_line(error)}; export or copy it again") from error
    del content
    try:
        return _from_proto(proto, file)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error


def _from_proto(proto: onnx.ModelProto, file: Path) -> ir.Model:
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError("this is not an ONNX model: it has no graph; export or copy it again")
    if not proto.graph.node and not proto.graph.output:
        raise ModelError("the graph is empty: it has no nodes and no outputs")
    refuse_unsupported(proto)
    _check_opsets(proto)
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        raise ModelError(f"the model is damaged: {first_line(error)}") from error
    base = file.resolve().parent
    ir.external_data.set_base_dir(model.graph, base)
    for function in model.functions.values():
        ir.external_data.set_base_dir(function.graph, base)
    del proto
    check_external_data(model, base)
    _check_tensors(model)
    normalize_in_place(model)
    check(model)
    return model


def _check_opsets(proto: onnx.ModelProto) -> None:
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and not 1 <= opset.version <= MAX_OPSET:
            raise ModelError(
                f"opset {opset.version} is not known; the installed onnx {onnx.__version__} knows 1 to {MAX_OPSET}: "
                "export with a lower opset or upgrade onnx"
            )
    if not proto.opset_import:
        raise ModelError("the model names no opset; export it again")


def check_external_data(model: ir.Model, base: Path) -> None:
    """Checks that every external tensor lies in a regular file inside the model's folder and is complete.

    Raises:
        ModelError: Naming the tensor, the file and what to do.
    """
    root = base.resolve()
    sizes: dict[str, int] = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for tensor in _tensors(graph):
            if not isinstance(tensor, ir.ExternalTensor):
                continue
            location = str(tensor.location)
            if location not in sizes:
                sizes[location] = _data_file_size(location, root, tensor.name or "")
            expected = tensor.nbytes
            offset, length = tensor.offset or 0, tensor.length if tensor.length is not None else expected
            if length != expected:
                raise ModelError(
                    f"weight {tensor.name!r} has {length} bytes in {location!r}; "
                    f"{tensor.dtype.name} {list(tensor.shape)} needs {expected}"
                )
            if offset < 0 or offset + length > sizes[location]:
                raise ModelError(
                    f"weight {tensor.name!r} ends at byte {offset + length} of {location!r}, which has only "
                    f"{sizes[location]}; the data file is truncated or belongs to another model"
                )


def _data_file_size(location: str, root: Path, name: str) -> int:
    path = root / location
    advice = "copy the model and its data into one folder"
    if Path(location).is_absolute() or not path.resolve().is_relative_to(root):
        raise ModelError(f"weight {name!r} is in {location!r}, outside the model's folder; {advice}")
    if not path.exists():
        raise ModelError(f"weight {name!r} is in {location!r}, which is missing; keep it beside the model")
    if not path.is_file():
        raise ModelError(f"weight {name!r} is in {location!r}, which is not a regular file; {advice}")
    status = path.stat()
    if status.st_nlink > 1:
        raise ModelError(f"weight {name!r} is in {location!r}, which is a hard link, refused by onnx; {advice}")
    return status.st_size


def _tensors(graph: ir.Graph) -> list[ir.TensorProtocol]:
    tensors = [v.const_value for v in graph.initializers.values() if v.const_value is not None]
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                tensors.append(attribute.as_tensor())
    return tensors


def _check_tensors(model: ir.Model) -> None:
    """Finds inline weights whose bytes do not fit their shape, before a pass stumbles over them."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for tensor in _tensors(graph):
            if isinstance(tensor, ir.ExternalTensor) or tensor.dtype == ir.DataType.STRING:
                continue
            if any(not isinstance(d, int) or d < 0 for d in tensor.shape):
                raise ModelError(f"weight {tensor.name!r} has shape {list(map(str, tensor.shape))}, which is impossible")
            raw = getattr(tensor, "raw", None)
            if isinstance(raw, onnx.TensorProto) and raw.HasField("raw_data") and len(raw.raw_data) != tensor.nbytes:
                raise ModelError(
                    f"weight {tensor.name!r} has {len(raw.raw_data)} bytes; "
                    f"{tensor.dtype.name} {list(tensor.shape)} needs {tensor.nbytes}"
                )
