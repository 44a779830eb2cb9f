"""From an exported program, or a module by the older exporter, to an `onnx_ir.Model` in memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.errors import ModelError, UsageError
from irc.trace.dynamic_dimensions import is_axes
from irc.trace.example_inputs import Example
from irc.trace.module_source import is_foreign
from irc.trace.module_state import state_kept
from irc.trace.silence import quiet
from irc.trace.stop_reason import explain

if TYPE_CHECKING:
    import torch

LARGE_BYTES = (1 << 31) - (64 << 20)
"""A model with more weights than protobuf holds goes through a folder on its way out of the older exporter."""


def lower(
    program: torch.export.ExportedProgram,
    *,
    shapes: Any = None,
    opset: int | None = None,
    module: torch.nn.Module | None = None,
    outputs: Sequence[str] | None = None,
) -> ir.Model:
    """The ONNX form of a program, as `torch.onnx.export` makes it; nothing is written to disk.

    Args:
        program: What was captured.
        shapes: `dynamic_shapes` it was captured with: the names in it become names of dimensions.
        opset: Version of the operators; by default the exporter's own.
        module: For messages.
        outputs: Names of the outputs; by default the exporter's, which depend on what computes them.

    Returns:
        A model whose large weights are the memory of the program's parameters: `detach` copies them.

    Raises:
        ModelError: If an operation has no ONNX form.
    """
    import torch

    try:
        with quiet(), torch.no_grad():
            exported = torch.onnx.export(
                program, dynamo=True, dynamic_shapes=shapes, opset_version=opset, verbose=False
            )
            if exported is not None and shapes is not None:
                _name_dimensions(exported, program, shapes)
    except ImportError as error:
        raise UsageError(
            f"PyTorch's ONNX exporter needs onnxscript: {error}; run: pip install irc-compiler[torch]"
        ) from error
    except Exception as error:
        raise explain(error, module, what="lowered to ONNX") from error
    assert exported is not None
    model: ir.Model = exported.model
    if opset is not None and model.graph.opset_imports.get("") != opset:
        raise ModelError(
            f"the exporter gives opset {model.graph.opset_imports.get('')}, not {opset}: it has no conversion; leave --opset out"
        )
    if outputs is not None:
        _rename_outputs(model, outputs)
    return model


def _name_dimensions(exported: Any, program: torch.export.ExportedProgram, shapes: Any) -> None:
    """Names the dimensions of inputs where the exporter gave up: it does not count arguments that are no tensors."""
    from torch.export.graph_signature import InputKind, TensorArgument
    from torch.utils import _pytree as pytree

    flat = pytree.tree_leaves(shapes, is_leaf=is_axes)
    users = [s for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    if len(flat) != len(users) or all(isinstance(user.arg, TensorArgument) for user in users):
        return
    tensors = [dims for user, dims in zip(users, flat, strict=True) if isinstance(user.arg, TensorArgument)]
    names: dict[str, str] = {}
    for value, dims in zip(exported.model.graph.inputs, tensors, strict=False):
        for axis, dim in (dims or {}).items():
            symbol = value.shape[axis] if value.shape is not None else None
            name = dim if isinstance(dim, str) else getattr(dim, "__name__", "")
            if name and symbol is not None and not isinstance(symbol, int) and symbol.value:
                names.setdefault(symbol.value, name)
    exported.rename_axes(names)


def _rename_outputs(model: ir.Model, names: Sequence[str]) -> None:
    """Names the outputs; a value inside that has one of the names gets another."""
    from irc.ir import unique_name

    if len(set(names)) != len(names):  # a tensor that is returned twice
        return
    mine = dict(zip(model.graph.outputs, names, strict=True))
    for value in (*model.graph.initializers.values(), *(o for node in model.graph.all_nodes() for o in node.outputs)):
        if value not in mine and value.name in names:
            value.name = unique_name(model, value.name or "value")
    for value, name in mine.items():
        if not value.is_graph_input() and not value.is_initializer():
            value.name = name


def lower_with_torchscript(
    module: torch.nn.Module,
    example: Example,
    names: Sequence[str],
    *,
    shapes: Any = None,
    opset: int | None = None,
    notes: list[str] | None = None,
) -> ir.Model:
    """The ONNX form of a module by the TorchScript exporter, which runs it once and keeps what it saw.

    Control flow that depends on values is kept as the example took it. Nodes are named for the modules they came from.

    Args:
        module: In inference mode.
        example: What it is called with.
        names: Names of the leaves of the example.
        shapes: Dynamic dimensions as `dynamic_dimensions.dynamic_shapes` gives them.
        opset: Version of the operators; by default the exporter's own.
        notes: Takes what a report should say.

    Raises:
        ModelError: If it cannot be traced, an operation has no ONNX form, or nothing depends on the inputs.
    """
    import torch

    leaves = example.leaves()
    inputs = [name for name, leaf in zip(names, leaves, strict=True) if isinstance(leaf, torch.Tensor)]
    axes = _axes(inputs, names, leaves, shapes)
    # A forward that writes into its input writes into a copy.
    example = example.copied()
    buffer = io.BytesIO()
    size = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    options: dict[str, Any] = {
        "kwargs": example.kwargs or None,
        "dynamo": False,
        "input_names": inputs,
        "dynamic_axes": axes or None,
        "opset_version": opset,
        # Folding would untie weights that are shared with a transposed copy; irc folds what does not grow the model.
        "do_constant_folding": False,
    }
    try:
        with quiet() as caught, torch.no_grad(), _written_out_attention(), state_kept(module):
            if size < LARGE_BYTES:
                torch.onnx.export(module, example.args, buffer, **options)  # type: ignore[arg-type]
                model = ir.serde.deserialize_model(_parsed(buffer))
            else:
                model = _through_folder(module, example, options)
    except Exception as error:
        raise explain(error, module, what="exported by TorchScript", other="export") from error
    _mark_modules(model, module)
    if not model.graph.inputs:
        raise ModelError(
            f"TorchScript turned {type(module).__name__} into constants: it computes with values outside torch; change that, or try "
            "--exporter export"
        )
    if notes is not None:
        traced = [w for w in caught if w.category.__name__ == "TracerWarning"]
        lines = [f"{Path(w.filename).name}:{w.lineno}" for w in traced if not is_foreign(w.filename)]
        if lines:
            shown = ", ".join(dict.fromkeys(lines[:5]))
            notes.append(
                f"TorchScript keeps values of the first example as constants where Python computes with them ({shown})"
            )
    return model


@contextlib.contextmanager
def _written_out_attention() -> Iterator[None]:
    """Keeps attention layers to operations that this exporter knows, instead of their fused kernel."""
    import torch

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _parsed(buffer: io.BytesIO) -> Any:
    import onnx

    proto = onnx.ModelProto()
    proto.ParseFromString(buffer.getbuffer())
    return proto


def _through_folder(module: torch.nn.Module, example: Example, options: dict[str, Any]) -> ir.Model:
    import tempfile

    import torch

    with tempfile.TemporaryDirectory(prefix="irc-") as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(module, example.args, path, **options)
        model = ir.load(path)
        return detach(model)


def _axes(inputs: Sequence[str], names: Sequence[str], leaves: Sequence[Any], shapes: Any) -> dict[str, dict[int, str]]:
    """Dynamic dimensions as the older exporter takes them: names by axis by input."""
    import torch
    from torch.utils import _pytree as pytree

    if shapes is None:
        return {}

    flat = pytree.tree_leaves(shapes, is_leaf=is_axes)
    if len(flat) != len(leaves):
        raise UsageError("--exporter torchscript takes dynamic dimensions by input and axis: {'image': {0: 'batch'}}")
    found = {}
    for name, leaf, dims in zip(names, leaves, flat, strict=True):
        if isinstance(leaf, torch.Tensor) and isinstance(dims, dict) and name in inputs:
            named = {
                axis: dim if isinstance(dim, str) else getattr(dim, "__name__", f"{name}_dim_{axis}")
                for axis, dim in dims.items()
                if dim is not None and not isinstance(dim, int)
            }
            if named:
                found[name] = named
    return found


def _mark_modules(model: ir.Model, module: torch.nn.Module) -> None:
    """Gives each node the path of its module, which this exporter writes into names: `/layer1/layer1.0/conv1/Conv`."""
    from irc.ir import MODULE_KEY

    known = {name for name, _ in module.named_modules()}
    for node in model.graph.all_nodes():
        path = ""
        for part in (node.name or "").split("/")[1:-1]:
            here = [f"{path}.{part}" if path else part]
            here.append(f"{path}.{part.rpartition('.')[2]}" if path else part)
            path = next((name for name in here if name in known), path)
        if path:
            node.metadata_props[MODULE_KEY] = path


def detach(model: ir.Model) -> ir.Model:
    """Copies the weights of a model, in place, so that it no longer shares memory with the module; shared ones stay shared.

    Weights that are the same memory, as tied embeddings are, are copied once.
    """
    copies: dict[tuple[Any, ...], np.ndarray[Any, Any]] = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is None:
                continue
            array = tensor.numpy()
            key = (array.__array_interface__["data"], array.dtype, array.shape, array.strides)
            if key not in copies:
                copies[key] = np.array(array)
            value.const_value = ir.Tensor(
                copies[key], dtype=tensor.dtype, name=tensor.name, shape=ir.Shape(tensor.shape.numpy())
            )
    return model
