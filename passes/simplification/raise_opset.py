"""Raise the opset of a model that is too old for what follows, by onnx's own version converter.

opset 11  =>  opset 13 (per-channel DequantizeLinear)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx
import onnx_ir as ir

from irc.ir import check
from irc.ir.names import track
from irc.ir.stripped import stripped_proto
from irc.pass_base import Context, Contract, ModelPass, Site, Skip

CONVERTER_BYTES = 8192


@dataclasses.dataclass(frozen=True)
class RaiseOpset(ModelPass):
    """Converts the default operator set to a higher version; does nothing when it is high enough.

    Attributes:
        to: The lowest version wanted.
    """

    name: ClassVar[str] = "raise-opset"
    contract: ClassVar[Contract] = Contract.ROUNDING
    establishes: ClassVar[tuple[str, ...]] = ("opset-13",)

    to: int = 13

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the model when its opset is too low."""
        if model.graph.opset_imports.get("", self.to) < self.to:
            yield from super().sites(model, ctx)

    def apply(self, model: ir.Model, ctx: Context) -> bool:
        """Converts the graph without its weights, then puts them back."""
        before = model.graph
        # stripped_proto takes weights out of bodies too; they come back to the main graph.
        scopes = (before, *before.subgraphs())
        weights = {value.name: value for graph in scopes for value in graph.initializers.values()}
        proto = stripped_proto(model, above=CONVERTER_BYTES)
        converted = ir.from_proto(onnx.version_converter.convert_version(proto, self.to))
        public = {value.name for value in before.inputs}
        graph = converted.graph
        for value in list(graph.inputs):
            if value.name not in public and value.name in weights:
                graph.inputs.remove(value)
                value.const_value = weights[value.name].const_value
                graph.register_initializer(value)
        metadata = {node.name: node.metadata_props for node in before if node.name}
        for node in graph:
            if node.name in metadata:
                node.metadata_props.update(metadata[node.name])
        model.graph = graph
        model.ir_version = max(model.ir_version or 0, 7)
        track(model)
        check(model)
        return True
