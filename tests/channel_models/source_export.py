"""How a PyTorch module becomes a stored model: exported, cleaned, emptied of its weights, compressed."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from channel_models.stored import EXTENSION, FOLDER
from torch import nn

from irc.ir import load

Example = dict[str, torch.Tensor]
Axes = dict[str, dict[int, str]]
"""Input -> axis -> name of a dimension that stays open; the names are those of `stored.SIZES`."""
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
SMALLEST_EMPTY = 17
"""Elements from which on a float initializer is stored without data."""
SHORTEST_FRESH = 5
"""The same for one whose elements are all equal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One model of the collection.

    Attributes:
        make: Gives the module, in inference mode, and an example of each input by name. Or, with exporter "file", a
            finished model.
        about: What the model is there for; a line of the README.
        axes: Dimensions that stay open.
        exporter: "dynamo", "torchscript", "batch-norm" (TorchScript, BatchNormalization kept), or "file".
        opset: Version of the operators.
    """

    make: Callable[[], tuple[nn.Module, Example] | onnx.ModelProto]
    about: str
    axes: Axes = dataclasses.field(default_factory=dict)
    exporter: str = "dynamo"
    opset: int = 20


def batch_norm_kept(source: Source) -> Source:
    """The same model with its BatchNormalization operators."""
    about = source.about + "; BatchNormalization kept"
    return dataclasses.replace(source, exporter="batch-norm", opset=17, about=about)


def spelled_otherwise(source: Source) -> Source:
    """The same model by the exporter through TorchScript."""
    return dataclasses.replace(source, exporter="torchscript", opset=17, about=source.about + ": spelled otherwise")


class Named(nn.Module):
    """A module called with keyword arguments, as one called by position; only tensors of floats come back."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, first, second=None, third=None, fourth=None):
        given = (first, second, third, fourth)[: len(self.names)]
        return self.module(**dict(zip(self.names, given, strict=True)))


def export(source: Source) -> onnx.ModelProto:
    """The model as the exporter gives it."""
    torch.manual_seed(0)
    made = source.make()
    if isinstance(made, onnx.ModelProto):
        return made
    module, example = made
    wrapped, names, given = Named(module.eval(), list(example)), list(example), tuple(example.values())
    with tempfile.TemporaryDirectory() as folder, _quiet(), torch.no_grad():
        path = Path(folder) / "model.onnx"
        if source.exporter == "dynamo":
            shapes = tuple(source.axes.get(name) for name in names)
            program = torch.onnx.export(
                wrapped,
                given,
                input_names=names,
                dynamic_shapes=shapes if any(shapes) else None,
                opset_version=source.opset,
                dynamo=True,
                verbose=False,
            )
            program.save(str(path))
        else:
            kept = source.exporter == "batch-norm"
            mode = torch.onnx.TrainingMode
            torch.onnx.export(
                wrapped,
                given,
                str(path),
                input_names=names,
                dynamic_axes=source.axes,
                opset_version=source.opset,
                dynamo=False,
                training=mode.PRESERVE if kept else mode.EVAL,
                do_constant_folding=not kept,
            )
        return onnx.load(path)


def store(name: str, proto: onnx.ModelProto, *, weights: bool = False) -> int:
    """Writes a model, with its weights only if asked to; gives the bytes it takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path)
        emptied = ir.to_proto(load(path))
    for tensor in emptied.graph.initializer:
        if not weights and _is_weight(tensor):
            for field in ("raw_data", "float_data", "double_data", "int32_data"):
                tensor.ClearField(field)
    del emptied.metadata_props[:]
    data = gzip.compress(emptied.SerializeToString(deterministic=True), 9, mtime=0)
    (FOLDER / (name + EXTENSION)).write_bytes(data)
    return len(data)


def _is_weight(tensor: onnx.TensorProto) -> bool:
    """Whether the values do not matter; a large tensor of two to four different values is a mask.

    A fresh bias or scale has equal elements, which would hide that two channels were exchanged: also short ones are filled.
    """
    count = math.prod(tensor.dims)
    if tensor.data_type not in _FLOATS or count < SHORTEST_FRESH:
        return False
    different = len(np.unique(onnx.numpy_helper.to_array(tensor)))
    return different == 1 or (count >= SMALLEST_EMPTY and different > 4)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
