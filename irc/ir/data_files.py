"""External data: every weight lies complete in a regular file inside the model's folder, or the model is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from irc.errors import ModelError
from irc.ir.stripped import graphs_of

_COPY = "copy the model and its data into one folder (cp -L follows links)"


def check_external_data(model: ir.Model, base: Path) -> tuple[Path, ...]:
    """Checks every external tensor without reading any; runtimes would fail on them later, or read another file.

    Args:
        model: Freshly read; functions included.
        base: Absolute folder of the model file.

    Returns:
        The data files, in the order of their first use.

    Raises:
        ModelError: Naming the tensor, the file and what to do.
    """
    sizes: dict[str, int] = {}
    for tensor in all_tensors(model):
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        location = os.fspath(tensor.location) if tensor.location is not None else ""
        name = tensor.name or ""
        expected = tensor.nbytes
        if location not in sizes:
            sizes[location] = _file_size(location, base, name)
        offset = tensor.offset or 0
        length = tensor.length if tensor.length is not None else expected
        if length != expected:
            raise ModelError(
                f"weight {name!r} has {length} bytes in {location!r}, but {tensor.dtype.name} {_dims(tensor)} "
                f"needs {expected}; export the model again"
            )
        if offset < 0 or offset + length > sizes[location]:
            raise ModelError(
                f"weight {name!r} is bytes {offset} to {offset + length} of {location!r}, which has {sizes[location]}; "
                "the file is truncated or belongs to another model: copy it again"
            )
    return tuple(base / location for location in sizes)


def check_entries(proto: onnx.ModelProto) -> None:
    """Checks the fields of external tensors, which onnx_ir would reject with a message about itself.

    Raises:
        ModelError: Naming the tensor and the field.
    """
    for graph in graphs_of(proto.graph):
        constants = (a.t for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)
        for tensor in (*graph.initializer, *constants):
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            fields = {entry.key: entry.value for entry in tensor.external_data}
            if not fields.get("location"):
                raise ModelError(f"weight {tensor.name!r} is external but names no file; export the model again")
            for key in ("offset", "length"):
                if key in fields and not fields[key].isdecimal():
                    raise ModelError(
                        f"weight {tensor.name!r} has {key} {fields[key]!r} in {fields['location']!r}, not a number of "
                        "bytes; the file is damaged: export or copy it again"
                    )


def _dims(tensor: ir.TensorProtocol) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"


def _file_size(location: str, base: Path, name: str) -> int:
    what = f"weight {name!r} is in {location!r}"
    if not location or "\0" in location:
        raise ModelError(f"{what}, which is not a file name; export the model again")
    path = Path(os.path.normpath(base / location))
    if Path(location).is_absolute() or not path.is_relative_to(base):
        raise ModelError(f"{what}, outside the model's folder; {_COPY}")
    try:
        if not path.exists():
            raise ModelError(f"{what}, which is missing; put it beside the model")
        if not path.resolve().is_relative_to(base.resolve()):
            raise ModelError(f"{what}, a link to outside the model's folder; {_COPY}")
        if not path.is_file():
            raise ModelError(f"{what}, which is not a regular file; {_COPY}")
        status = path.stat()
        # onnx_ir and onnx refuse hard links when the first weight is read, long after the load.
        if status.st_nlink > 1:
            raise ModelError(f"{what}, which is hard-linked and so refused by onnx; {_COPY}")
        if not os.access(path, os.R_OK):
            raise ModelError(f"{what}, which cannot be read; give yourself permission (chmod u+r)")
    except OSError as error:
        raise ModelError(f"{what}: {error.strerror}; {_COPY}") from error
    return status.st_size


def all_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor of a model: initializers and attributes, in bodies and functions too."""
    graphs = [model.graph, *model.graph.subgraphs()]
    for function in model.functions.values():
        graphs += [function.graph, *function.graph.subgraphs()]
    for graph in dict.fromkeys(graphs):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    yield attribute.as_tensor()
                elif attribute.type == ir.AttributeType.TENSORS:
                    yield from attribute.as_tensors()
