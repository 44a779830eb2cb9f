"""Where weights read and make channels: Conv, Gemm and MatMul of the main graph, their biases, and the sums they run into.

A layer is `y = x W (+ b)`, with b its own input or the constant of an Add behind it. In a residual network y is added to a shortcut, and
what the next layer sees is the sum: a repair that knows the shortcut can correct its errors too. Where several layers read one W, as in
the towers of a siamese network, it changes for all of them at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family, Propagation
from irc.ir import constant
from irc.ir.bodies import bodies
from irc.passes.pruning.repair.recurrent_layers import RecurrentLayers
from irc.passes.pruning.repair.weight_storage import StoredWeight, bias_of, layer_of
from irc.passes.quantization.layer_geometry import Convolution, Product
from irc.passes.quantization.layer_sample import Layer
from irc.target import is_dequantized

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class WeightedLayer:
    """A layer of the model that was analysed.

    Attributes:
        layer: Rows and matrices of it.
        index: Of its node in the graph.
        output: Name of its result, bias included.
        adds_bias: Node and input of the bias: its own, or those of an Add behind it; None where it has none and takes none.
        total: Name of its result plus a shortcut; None without.
        shortcut: Name of the shortcut; it depends on no later layer.
        channel_axis: Of the input: the one that the weight reads.
        output_axis: Of the result: the one that the weight makes.
        shared_by: How many layers read the same weight; see `WeightedLayers.weights`.
    """

    layer: Layer
    index: int
    output: str
    adds_bias: tuple[ir.Node, int] | None
    total: str | None
    shortcut: str | None
    channel_axis: int
    output_axis: int
    shared_by: int

    @property
    def node(self) -> ir.Node:
        """The operator."""
        return self.layer.node

    @property
    def convolves(self) -> bool:
        """Whether it is a Conv."""
        return isinstance(self.layer.geometry, Convolution)

    @property
    def weight(self) -> StoredWeight:
        """The constant."""
        found = StoredWeight.of(self.node)
        assert found is not None
        return found


class WeightedLayers:
    """All layers of a model, in the order of the graph.

    Args:
        propagation: Labels of the model.
    """

    def __init__(self, propagation: Propagation) -> None:
        self.propagation = propagation
        self.all = list(self._found())

    @functools.cached_property
    def recurrent(self) -> RecurrentLayers:
        """The recurrent operators, which are none of these."""
        return RecurrentLayers(self.propagation)

    @functools.cached_property
    def weights(self) -> list[tuple[WeightedLayer, ...]]:
        """The layers that read one weight, for every weight that can be changed for all that read it; in the order of the first ones."""
        found: dict[ir.Value, list[WeightedLayer]] = {}
        for layer in self.all:
            found.setdefault(layer.weight.origin, []).append(layer)
        return [tuple(uses) for uses in found.values() if uses[0].shared_by == 1 or _serves_all(uses)]

    def _found(self) -> Iterator[WeightedLayer]:
        graph = self.propagation.model.graph
        layers: list[tuple[int, Layer, StoredWeight]] = []
        for index, node in enumerate(graph):
            layer = layer_of(node) if node in self.propagation.products else None
            weight = StoredWeight.of(node)
            if layer is not None and weight is not None:
                layers.append((index, layer, weight))
        upstream = _latest_layers(graph, {layer.node: index for index, layer, _weight in layers})
        for index, layer, weight in layers:
            bias, value = self._bias(layer.node)
            total, shortcut = self._sum(value)
            if shortcut is not None and upstream.get(str(shortcut.name), -1) >= index:
                total, shortcut = None, None
            convolves = isinstance(layer.geometry, Convolution)
            source, result = layer.node.inputs[0], layer.node.outputs[0]
            dims, made = self.propagation.dims(source), self.propagation.dims(result)  # type: ignore[arg-type]
            if dims is None or made is None:
                continue
            flipped = isinstance(layer.geometry, Product) and layer.geometry.transposed_input
            yield WeightedLayer(
                layer,
                index,
                str(value.name),
                bias,
                None if total is None else str(total.name),
                None if shortcut is None else str(shortcut.name),
                1 if convolves else 0 if flipped else len(dims) - 1,
                1 if convolves else len(made) - 1,
                _readers(weight, layer.node),
            )

    def _bias(self, node: ir.Node) -> tuple[tuple[ir.Node, int] | None, ir.Value]:
        """Where the bias is, and the value behind it."""
        value = node.outputs[0]
        if node.op_type == "Conv":
            own = node.inputs[2] if len(node.inputs) > 2 else None
            return ((node, 2) if own is None or bias_of(node, 2) is not None else None), value
        if node.op_type == "Gemm":
            own = node.inputs[2] if len(node.inputs) > 2 else None
            vector = self._is_vector(bias_of(node, 2), value)
            plain = node.attributes.get_float("beta", 1.0) == 1.0 and (own is None or vector)
            return ((node, 2) if plain else None), value
        uses = list(value.uses())
        if len(uses) == 1 and not value.is_graph_output() and uses[0].node.op_type == "Add":
            add, other = uses[0].node, uses[0].node.inputs[1 - uses[0].idx]
            array = constant(other)
            if add.graph is node.graph and self._is_vector(array, value):
                return (add, 1 - uses[0].idx), add.outputs[0]
        return None, value

    def _is_vector(self, array: Array | None, value: ir.Value) -> bool:
        """Whether an array is a number for every element of a value's last axis."""
        dims = self.propagation.dims(value)
        if array is None or not dims or array.ndim > len(dims):
            return False
        return bool(array.shape[-1:] == (array.size,) == dims[-1:])

    def _sum(self, value: ir.Value) -> tuple[ir.Value | None, ir.Value | None]:
        """The sum of a value and another activation of its size, and that other."""
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != "Add":
            return None, None
        add = uses[0].node
        other = add.inputs[1 - uses[0].idx]
        if other is None or add.graph is not value.graph or constant(other) is not None or not other.name:
            return None, None
        dims = self.propagation.dims(other)
        if dims is None or dims != self.propagation.dims(value):
            return None, None
        return add.outputs[0], other

    # -- labels -------------------------------------------------------------------------------------------------------

    def classes_read(self, layer: WeightedLayer, groups: ChannelGroups) -> Array:
        """`[G, K]`: the class of each element of a row; -1 where it cannot be cut."""
        channels = layer.layer.channel_of_input
        labels = self.labels_read(layer)
        if labels is None:
            return np.full(channels.shape, -1)
        found: Array = groups.class_of[labels][channels]
        return found

    def labels_read(self, layer: WeightedLayer) -> Array | None:
        """Labels of the channels of its input, or None where they have none."""
        bundle = self.propagation.recorded(layer.node, 0).on(layer.channel_axis)
        return None if bundle is None or len(bundle.axes) != 1 else bundle.labels

    def labels_made(self, layer: WeightedLayer) -> Array | None:
        """Labels of the channels of its result, or None where they have none."""
        bundle = self.propagation.known(layer.node.outputs[0]).on(layer.output_axis)
        return None if bundle is None or len(bundle.axes) != 1 else bundle.labels

    def readers(self, family: Family, groups: ChannelGroups) -> list[tuple[WeightedLayer, int, Array]]:
        """Layers that read a family: with the group of their matrices, and the atom, from 0, of every element of a row, or -1.

        A group that reads a single atom, as those of a depthwise convolution do, has nothing that could take over.
        """
        index = np.full(self.propagation.constraints.count, -1)
        index[family.atoms] = np.arange(len(family.atoms))
        found = []
        for layer in self.all:
            classes = self.classes_read(layer, groups)
            blocks = np.where(classes >= 0, index[np.maximum(classes, 0)], -1)
            for group, row in enumerate(blocks):
                if len(np.unique(row)) > 1 and (row >= 0).any():
                    found.append((layer, group, row))
        return found


def by_bias(layers: Iterable[WeightedLayer]) -> list[list[WeightedLayer]]:
    """Layers of one weight by their bias: those that have one together, or none yet, keep one together."""
    found: dict[Any, list[WeightedLayer]] = {}
    for layer in layers:
        holder, index = layer.adds_bias or (None, 0)
        value = holder.inputs[index] if holder is not None and len(holder.inputs) > index else None
        reader = value.producer() if value is not None and is_dequantized(value) else None
        # A bias that cannot be changed is none to share.
        key = (holder is not None, value) if reader is None else tuple(reader.inputs)
        found.setdefault(key, []).append(layer)
    return list(found.values())


def _serves_all(uses: list[WeightedLayer]) -> bool:
    """Whether all that reads a weight are these layers, each of them in the same way, so that it can be changed for all at once."""
    first, *others = uses
    pending, readers = [first.weight.origin], 0
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            return False
        for use in value.uses():
            if use.node.op_type in ("DequantizeLinear", "Transpose") and use.idx == 0:
                pending += use.node.outputs
            else:
                readers += 1
    return readers == len(uses) and all(_layout(layer) == _layout(first) for layer in others)


def _layout(layer: WeightedLayer) -> tuple[Any, ...]:
    """How the matrices of a layer come of its weight, and what they are multiplied by."""
    geometry, reader = layer.layer.geometry, layer.weight.dequantize
    sideways = isinstance(geometry, Product) and geometry.transposed_weight
    scale = constant(reader.inputs[1]) if reader is not None else None
    integers = None if reader is None or scale is None else (reader.attributes.get_int("axis", 1), scale.tolist())
    return type(geometry), geometry.groups, sideways, layer.layer.factor, integers


def _readers(weight: StoredWeight, node: ir.Node) -> int:
    """How many operators read a weight, its integers, or what stands between these and an operator."""
    found = [weight.origin, *([] if weight.dequantize is None else weight.dequantize.outputs), node.inputs[1]]
    return max(len(value.uses()) for value in found if value is not None)


def _latest_layers(graph: ir.Graph, layers: dict[ir.Node, int]) -> dict[str, int]:
    """The index of the last layer that each value depends on."""
    found: dict[str, int] = {}
    for node in graph:
        # What a body captures is not among the inputs.
        read = (
            found.values() if any(bodies(node)) else (found.get(v.name or "", -1) for v in node.inputs if v is not None)
        )
        latest = max(read, default=-1)
        latest = max(latest, layers.get(node, -1))
        for value in node.outputs:
            if value.name:
                found[value.name] = latest
    return found
