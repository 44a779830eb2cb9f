"""Where channels of activations can be divided by factors: the factors disappear into constants, or a Mul divides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, module_metadata, unique_name
from irc.pass_base import Context, Skip, node_id
from irc.passes.fusion.composite import target_of
from irc.passes.quantization import placement
from irc.passes.quantization.channel_layout import Layout
from irc.passes.quantization.channel_scaling import ChannelScaling, input_axis, reader_end, weighted_readers
from irc.passes.quantization.channel_tracing import scaling_of

Array = np.ndarray[Any, Any]
FEWEST_CHANNELS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class ScalingSite:
    """A place where factors may go.

    Attributes:
        value: What is divided; other values that scale with it, too, where `scaling` is given.
        axis: Its channels.
        readers: The layers that will be integer and read divided values, with the layout of what they read.
        scaling: How the factors disappear; None where a Mul in front of the readers divides.
        reason: Why they do not disappear, where a Mul divides.
    """

    value: ir.Value
    axis: int
    readers: dict[ir.Node, Layout]
    scaling: ChannelScaling | None
    reason: str = ""

    @property
    def node(self) -> ir.Node:
        """The first of the readers, after which the site is named."""
        return next(iter(self.readers))

    @property
    def id(self) -> str:
        """Site id."""
        return node_id(self.node)

    @property
    def count(self) -> int:
        """Number of channels."""
        shape = self.value.shape
        assert shape is not None
        count = shape[self.axis]
        assert isinstance(count, int)
        return count

    @property
    def convolutional(self) -> bool:
        """Whether one of the readers is a Conv."""
        return any(node.op_type == "Conv" for node in self.readers)

    def divide(self, scales: Array) -> None:
        """Divides the value."""
        if self.scaling is not None:
            self.scaling.apply(scales)
            return
        first, graph = self.node, self.node.graph
        assert isinstance(graph, ir.Graph)
        inverse = add_initializer(graph, f"{self.value.name}_smoothing", (1 / scales).astype(np.float32))
        mul = ir.Node("", "Mul", [self.value, inverse], num_outputs=1, metadata_props=module_metadata(first))
        mul.name = unique_name(graph, f"{self.value.name}_smooth")
        smooth = mul.outputs[0]
        smooth.name, smooth.type = unique_name(graph, f"{self.value.name}_smoothed"), self.value.type
        smooth.shape = self.value.shape
        graph.insert_before(first, mul)
        ends = []
        for node, layout in self.readers.items():
            end = reader_end(node, layout)
            assert end is not None
            ends.append(end)
            node.replace_input_with(0, smooth)
        ChannelScaling(self.count, {}, ends, []).apply(scales)


def scaling_sites(model: ir.Model, ctx: Context, *, inserting: bool) -> Iterator[ScalingSite | Skip]:
    """The places in graph order, each integer layer in one at most; where factors cannot go, the reason.

    Args:
        model: Unchanged.
        ctx: For the target.
        inserting: Whether a Mul in front of MatMul and Gemm is worth naming where factors do not disappear.
    """
    target, main = target_of(ctx), model.graph
    layers: dict[ir.Node, None] = {}
    for node in main:
        kind = node.op_type if node.domain == "" else ""
        if kind not in placement.WEIGHTED or kind not in target.quantization.weighted or placement.is_product(node):
            continue
        if placement.why_not_weighted(node, target, main) is None:
            layers[node] = None
    seen: set[ir.Node] = set()
    for node in layers:
        value, axis = node.inputs[0], input_axis(node)
        if node in seen or value is None:
            continue
        count = value.shape[axis] if axis is not None and value.shape is not None else None
        if axis is None or not isinstance(count, int):
            yield Skip(node, "it is not known where the channels of its input and of its weight are")
            continue
        if count < FEWEST_CHANNELS:
            continue
        found = scaling_of(value, axis, main)
        if isinstance(found, ChannelScaling):
            mine = {reader: _read_layout(reader, found) for reader in layers if reader in set(found.readers)}
            seen.update(mine)
            yield ScalingSite(value, axis, mine, found)
            continue
        readers = [reader for reader in weighted_readers(value) if reader in layers]
        seen.update(readers)
        layout = Layout((axis,), np.arange(count))
        reason = _why_no_mul(readers, layout) if inserting else found
        if reason is not None:
            yield Skip(node, reason)
        else:
            yield ScalingSite(value, axis, {reader: layout for reader in readers}, None, found)


def _read_layout(reader: ir.Node, scaling: ChannelScaling) -> Layout:
    value = reader.inputs[0]
    assert value is not None
    return scaling.layouts[value]


def _why_no_mul(readers: Sequence[ir.Node], layout: Layout) -> str | None:
    """Why no Mul may divide in front of layers, or None."""
    mine = set(readers)
    for node in readers:
        if node.op_type == "Conv":
            return "a Mul in front of a Conv costs more than it gains"
        weight = node.inputs[1]
        assert weight is not None
        if reader_end(node, layout) is None:
            return "its weight does not show which channel is which"
        other = next((use.node for use in weight.uses() if use.node not in mine or use.idx != 1), None)
        if other is not None:
            return f"its weight is also used by {other.op_type} {other.name!r}"
    return None
