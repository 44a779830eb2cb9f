"""How like each other channels are by the weights that make them, where there are no data.

Channels of one family are followed from what makes them to what reads them, pairwise (`channel_relation`), as if what the makers read were
white noise of unit variance, so that rows p = (w, b) of a weight and its bias have a = p_c . p_k / |p_k|^2 and D = |p_c - a p_k|^2. What
lies between decides the law. Depthwise filters, scales and biases by channel have to go along: y = d x + e asks for
d_c a x_k + e_c ~ a' (d_k x_k + e_k).

Duplicates are found exactly. The size of what is lost otherwise is rough: activations are not white.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family
from irc.ir import constant
from irc.passes.pruning.merging.channel_likeness import Likeness, Replacements, matrix_of, spread_out
from irc.passes.pruning.merging.channel_relation import Law, Relation
from irc.passes.pruning.merging.family_readers import FamilyAtoms, FamilyReader, NotMergeable
from irc.passes.pruning.repair.weight_storage import bias_of
from irc.passes.pruning.repair.weighted_layers import WeightedLayer, WeightedLayers
from irc.passes.pruning.rotation.linear_operators import MOVES, PICKS, kind_of, where

Array = np.ndarray[Any, Any]
LINEAR = frozenset(
    {
        *("Neg", "Dropout", "Cast", "ReduceMean", "ReduceSum", "Resize", "Upsample", "AveragePool", "Expand"),
        *("Add", "Sub", "Sum", "Mul", "Div", "BatchNormalization", "Conv", "Gemm", "MatMul", *MOVES),
    }
)
POSITIVE = frozenset({"Relu", "LeakyRelu", "PRelu", "MaxPool", "GlobalMaxPool", "Abs", "ReduceMax", "ReduceMin"})
EQUAL = frozenset(
    {
        *("Sigmoid", "Tanh", "Gelu", "Clip", "HardSwish", "HardSigmoid", "Elu", "Selu", "Celu", "Softplus", "Softsign"),
        *("Erf", "Exp", "Log", "Sqrt", "Swish", "Mish", "Pow", "Reciprocal", "Sin", "Cos", "ThresholdedRelu", "Max"),
        *("Min", "QuickGelu", "BiasGelu", "FastGelu", "Floor", "Round"),
    }
)
FLOATING = frozenset(
    int(kind) for kind in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
)
PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})


def by_weights(
    family: Family, groups: ChannelGroups, layers: WeightedLayers, readers: Sequence[FamilyReader]
) -> Replacements:
    """What the weights say.

    Raises:
        NotMergeable: If the channels cannot be followed.
    """
    found = _Walk(family, groups, layers).relations(readers)
    return Replacements.of(readers, [_read(reader, relation) for reader, relation in zip(readers, found, strict=True)])


def _read(reader: FamilyReader, relation: Relation) -> Likeness:
    weight, mine = matrix_of(reader), np.flatnonzero(reader.reads)
    strength = np.square(weight[reader.elements[mine]]).sum(axis=(1, 2))
    own = relation.energy[mine] * strength
    square = np.ix_(mine, mine)
    lost, scale = relation.apart[square] * strength[:, None], relation.scale[square]
    worse = lost >= own[:, None]
    return spread_out(reader, np.where(worse, 0.0, scale), np.minimum(lost, own[:, None]), own, float(own.sum()), None)


class _Walk:
    """One family, followed through its model."""

    def __init__(self, family: Family, groups: ChannelGroups, layers: WeightedLayers) -> None:
        self._propagation, self._layers = groups.propagation, layers
        self._atoms = FamilyAtoms(family, groups)
        self._by_node = {layer.node: layer for layer in layers.all}
        self._found: dict[ir.Value, Relation] = {}
        self._law: Law = "linear"

    def relations(self, readers: Sequence[FamilyReader]) -> list[Relation]:
        """How the channels of what each reader reads are related."""
        reading = {reader.layer.node for reader in readers}
        nodes = [node for node in self._propagation.model.graph if self._makes(node)]
        self._law = self._strictest([node for node in nodes if node not in reading and self._reads(node)])
        for node in nodes:
            layer, read = self._by_node.get(node), self._reads(node)
            if layer is not None and (not read or node in reading):
                relation = self._made(layer)
            elif layer is not None:
                relation = self._filtered(layer, self._of(node, 0))
            elif not read:
                raise NotMergeable(f"without data, {where(node)}, which makes its channels, is not compared")
            else:
                relation = self._followed(node, read)
            relation = relation.lawful()
            for value in node.outputs:
                self._found[value] = self._held(relation, value)
        return [self._of(reader.layer.node, 0) for reader in readers]

    # -- what is where --------------------------------------------------------------------------------------------

    def _makes(self, node: ir.Node) -> bool:
        varies = any(self._propagation.varies(value) for value in node.outputs)
        return varies and any(self._atoms.within(self._propagation.known(value)) for value in node.outputs)

    def _held(self, relation: Relation, value: ir.Value) -> Relation:
        """The part of a relation that is in a value."""
        there = self._atoms.within(self._propagation.known(value))
        if len(there) == self._atoms.count:
            return relation
        energy = np.zeros_like(relation.energy)
        energy[sorted(there)] = relation.energy[sorted(there)]
        return dataclasses.replace(relation, energy=energy)

    def _reads(self, node: ir.Node) -> list[int]:
        """Inputs with channels that depend on those of the model."""
        varying = [i for i, v in enumerate(node.inputs) if v is not None and self._propagation.varies(v)]
        return [i for i in varying if self._atoms.within(self._propagation.recorded(node, i))]

    def _positions(self, node: ir.Node, index: int) -> int:
        """How often a channel is found along the axes of an input, at most."""
        found = [self._atoms.of(b.labels).ravel() for b in self._propagation.recorded(node, index).bundles]
        return max((int(np.bincount(atoms[atoms >= 0]).max(initial=0)) for atoms in found), default=0)

    def _of(self, node: ir.Node, index: int) -> Relation:
        value = node.inputs[index]
        if value not in self._found:
            raise NotMergeable(f"without data, what {where(node)} reads is not followed")
        return self._found[value]

    def _strictest(self, nodes: Sequence[ir.Node]) -> Law:
        law: Law = "linear"
        for node in nodes:
            kind = kind_of(node) or node.op_type
            if kind in EQUAL or (kind in LINEAR and self._breaks(node, kind)):
                law = "equal"
            elif kind in POSITIVE:
                law = "positive" if law == "linear" else law
            elif kind not in LINEAR:
                raise NotMergeable(f"without data, channels are not followed through {where(node)}")
        return law

    def _breaks(self, node: ir.Node, kind: str) -> bool:
        """Whether an operator that is linear as a rule is not, as it is used here."""
        others = [i for i, v in enumerate(node.inputs) if v is not None and self._propagation.varies(v)]
        others = [i for i in others if i not in self._reads(node)]
        if kind in ("Add", "Sub", "Sum"):
            return bool(others)  # all channels get the same
        if kind in ("Mul", "Div"):
            return len(self._reads(node)) > 1 or (kind == "Div" and self._reads(node) != [0])
        if kind == "Cast":
            return node.attributes.get_int("to", 0) not in FLOATING
        if kind == "Pad":
            filled = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
            return filled is None or bool(np.any(filled))
        return False

    # -- relations ------------------------------------------------------------------------------------------------

    def _made(self, layer: WeightedLayer) -> Relation:
        rows = self._outputs(layer)
        if rows.shape[1] > 1:
            raise NotMergeable("without data, blocks of several channels are not compared")
        if layer.layer.groups != 1:
            raise NotMergeable(f"without data, the groups of {where(layer.node)} are not compared")
        matrix = self._matrices(layer)[0].T * layer.layer.factor
        parts = [_taken(matrix, rows)]
        if (bias := self._bias(layer)) is not None:
            parts.append(_taken(bias[:, None], rows))
        return Relation.of(self._law, np.concatenate(parts, axis=1))

    def _filtered(self, layer: WeightedLayer, before: Relation) -> Relation:
        """A depthwise convolution: the matrix of a group, `[K, N / G]`, is the filter of its channels."""
        matrices = self._matrices(layer)
        bundle = self._layers.labels_read(layer)
        if bundle is None:
            raise NotMergeable(f"without data, {where(layer.node)} is not followed")
        of_group = self._atoms.of(bundle)[layer.layer.channel_of_input[:, 0]]
        filters = _taken(matrices.reshape(len(matrices), -1), self._atoms.places(of_group))
        bias = self._bias(layer)
        shifts = np.zeros((self._atoms.count, 1)) if bias is None else _taken(bias[:, None], self._outputs(layer))
        return before.affine(filters, shifts)

    def _followed(self, node: ir.Node, read: Sequence[int]) -> Relation:
        kind = kind_of(node) or node.op_type
        if kind in PRODUCTS:
            raise NotMergeable(f"without data, channels are not followed through {where(node)}")
        if kind in PICKS and any(self._positions(node, index) > 1 for index in read):
            raise NotMergeable(f"without data, positions of channels are not followed through {where(node)}")
        parts = [self._of(node, index) for index in read]
        if kind == "Concat" and len(parts) > 1:
            if np.sum([part.energy > 0 for part in parts], axis=0).max() > 1:
                raise NotMergeable(f"without data, channels that {where(node)} has twice are not followed")
            return Relation.joined(parts)
        if kind in ("Add", "Sub", "Sum") and len(parts) > 1:
            return Relation.summed(parts)
        if len(parts) > 1:
            return Relation.multiplied(parts)
        (before,) = parts
        if kind == "BatchNormalization":
            return self._normalized(node, before)
        labelled = [i for i in range(len(node.inputs)) if i not in read and self._constant_by_channel(node, i)]
        if not labelled:
            return before
        if len(labelled) > 1 or kind not in ("Add", "Sub", "Mul", "Div", "PRelu"):
            raise NotMergeable(f"without data, what {where(node)} does channel by channel is not compared")
        values = self._by_channel(node, labelled[0])
        one, none = np.ones((self._atoms.count, 1)), np.zeros((self._atoms.count, 1))
        if kind in ("Add", "Sub"):
            return before.affine(one if read[0] == 0 or kind == "Add" else -one, values)
        if kind == "Mul" or (kind == "Div" and read[0] == 0):
            with np.errstate(divide="ignore"):
                return before.affine(values if kind == "Mul" else 1 / values, none)
        squares = np.square(values).sum(axis=1)
        unlike = np.maximum(squares[:, None] - 2 * values @ values.T + squares, 0.0)  # of the slopes of a PRelu
        return dataclasses.replace(before, apart=before.apart + before.energy * unlike)

    def _normalized(self, node: ir.Node, before: Relation) -> Relation:
        scale, bias, mean, variance = (self._by_channel(node, index) for index in range(1, 5))
        factor = scale / np.sqrt(np.maximum(variance, 0.0) + node.attributes.get_float("epsilon", 1e-5))
        return before.affine(factor, bias - mean * factor)

    # -- constants ------------------------------------------------------------------------------------------------

    def _outputs(self, layer: WeightedLayer) -> Array:
        labels = self._layers.labels_made(layer)
        if labels is None:
            raise NotMergeable(f"without data, what {where(layer.node)} makes is not compared")
        return self._atoms.places(self._atoms.of(labels))

    def _matrices(self, layer: WeightedLayer) -> Array:
        weight = layer.weight.values
        if not np.isfinite(weight).all():
            raise NotMergeable(f"the weight of {where(layer.node)} is not finite")
        return layer.layer.matrices(weight).astype(np.float64)

    def _bias(self, layer: WeightedLayer) -> Array | None:
        """The layer's own; what an Add behind it adds is followed there."""
        node, place = layer.node, layer.adds_bias
        if len(node.inputs) < 3 or node.inputs[2] is None:
            return None
        bias = bias_of(*place) if place is not None and place[0] is node else None
        if bias is None or not np.isfinite(bias).all():
            raise NotMergeable(f"the bias of {where(node)} is not a constant by channel")
        return bias.astype(np.float64).reshape(-1)

    def _constant_by_channel(self, node: ir.Node, index: int) -> bool:
        value = node.inputs[index]
        return value is not None and bool(self._atoms.within(self._propagation.recorded(node, index)))

    def _by_channel(self, node: ir.Node, index: int) -> Array:
        """`[n, P]`: what a constant has for every channel."""
        value = node.inputs[index]
        array = constant(value)
        bundles = [b for b in self._propagation.recorded(node, index).bundles if (self._atoms.of(b.labels) >= 0).any()]
        if array is None or len(bundles) != 1 or not np.isfinite(array).all():
            raise NotMergeable(f"without data, what {where(node)} does channel by channel is not compared")
        axes, labels = bundles[0].axes, bundles[0].labels
        moved = np.moveaxis(array.astype(np.float64), axes, range(len(axes))).reshape(math.prod(labels.shape), -1)
        return _taken(moved, self._atoms.places(self._atoms.of(labels.ravel())))


def _taken(rows: Array, places: Array) -> Array:
    """`[n, T * P]`: the rows `[m, P]` of every atom, zero for those that are not there."""
    found = np.where((places >= 0)[:, :, None], rows[places], 0.0)
    return found.reshape(len(places), -1)
