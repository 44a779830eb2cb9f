"""A PyTorch network as ONNX in memory, and what it was checked with."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.application import SiteKey
from irc.ledger import Ledger
from irc.trace.example_inputs import Feed
from irc.trace.lowering import detach
from irc.trace.tensor_difference import TensorReference


@dataclasses.dataclass
class Traced:
    """A PyTorch network as ONNX.

    Attributes:
        model: The ONNX model.
        name: What the network is called.
        exporter: Which exporter made it, with the version of torch, in words.
        feeds: The example inputs as an ONNX session takes them; none without examples.
        reference: What the module returns on them.
        kept_outputs: Places of the model's outputs among the tensors that the module returns.
        shares_memory: Whether the weights of the model are the memory of the module.
        ledger: What the FX passes did.
        undone: Rewrites of FX passes that were taken back.
        notes: What a report should say.
    """

    model: ir.Model
    name: str
    exporter: str
    feeds: list[Feed] = dataclasses.field(default_factory=list)
    reference: TensorReference | None = None
    kept_outputs: list[int] = dataclasses.field(default_factory=list)
    ledger: Ledger = dataclasses.field(default_factory=Ledger)
    undone: dict[SiteKey, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    shares_memory: bool = True

    def detach(self) -> Traced:
        """Copies the weights, so that training the module further leaves the model as it is; returns itself."""
        if self.shares_memory:
            gc.collect()  # the exporter leaves its graphs behind in cycles
            detach(self.model)
            self.shares_memory = False
        return self

    def save(self, path: Path) -> tuple[Path, ...]:
        """Writes the model as `torch.onnx.export(..., path)` does: large weights in a file beside it."""
        from torch.onnx import ONNXProgram

        if self.exporter.startswith("torchscript"):
            from irc.ir import save

            return save(self.model, path)
        ONNXProgram(self.model, None).save(path, external_data=True)
        return (path,)

    def difference(self, outputs: Sequence[Sequence[np.ndarray[Any, Any]]]) -> str | None:
        """What is wrong with the outputs of an ONNX session on the example inputs, or None: the module itself is the reference.

        Args:
            outputs: The outputs of each feed, in the order of the graph.
        """
        if self.reference is None:
            return None
        names = [value.name or "" for value in self.model.graph.outputs]
        for number, found in enumerate(outputs):
            if len(found) != len(self.kept_outputs):
                return f"the module returns {len(self.kept_outputs)} tensors and the ONNX model {len(found)}"
            places = dict(zip(self.kept_outputs, found, strict=True))
            labels = [""] * (max(self.kept_outputs, default=-1) + 1)
            for place, name in zip(self.kept_outputs, names, strict=True):
                labels[place] = name
            if (message := self.reference.difference(number, places, names=labels)) is not None:
                return message
        return None
