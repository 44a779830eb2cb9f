"""Everything that reads a family: layers whose weights can be corrected, and operators that keep its channels apart.

A channel can be replaced by another one only if nothing else than a weighted layer mixes it with its like: what an operator between does
to a channel by itself (an activation, a pool, a depthwise filter, a gate) is gone with it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family
from irc.analysis.channels.bundles import Labelled
from irc.ir import constant
from irc.passes.pruning.repair.weighted_layers import WeightedLayer, WeightedLayers
from irc.passes.pruning.rotation.linear_operators import SIZES, kind_of, where

Array = np.ndarray[Any, Any]


class NotMergeable(Exception):
    """Why no channel of a family can be replaced by another one, in a user's words."""


@dataclasses.dataclass(frozen=True, eq=False)
class FamilyReader:
    """A layer that reads a family.

    Attributes:
        layer: The layer.
        group: Which of its matrices.
        elements: `[n, T]`: places of every atom in a row, T taps of a kernel or positions each; -1 for atoms it does not read.
    """

    layer: WeightedLayer
    group: int
    elements: Array

    @property
    def reads(self) -> Array:
        """`[n]`: which atoms it reads."""
        found: Array = self.elements[:, 0] >= 0
        return found


class FamilyAtoms:
    """Where the atoms of one family are.

    Args:
        family: The family.
        groups: Its groups.
    """

    def __init__(self, family: Family, groups: ChannelGroups) -> None:
        self.count = len(family.atoms)
        index = np.full(len(groups.class_of), -1)
        index[family.atoms] = np.arange(self.count)
        self._of_label = index[groups.class_of]

    def of(self, labels: Array) -> Array:
        """The atom of every label, from 0; -1 for labels of other families."""
        found: Array = self._of_label[labels]
        return found

    def within(self, tensor: Labelled) -> frozenset[int]:
        """The atoms in a value."""
        found = [np.unique(self.of(bundle.labels)) for bundle in tensor.bundles]
        return frozenset(int(atom) for part in found for atom in part if atom >= 0)

    def places(self, atoms: Array) -> Array:
        """`[n, T]`: the places of every atom in a row of atoms, -1 for those that are not there.

        Raises:
            NotMergeable: If it holds more of one than of another.
        """
        counts = np.bincount(atoms[atoms >= 0], minlength=self.count)
        each = int(counts.max(initial=1))
        if not np.isin(counts, (0, each)).all():
            raise NotMergeable("a layer reads more positions of some of its channels than of others")
        found = np.full((self.count, each), -1)
        order = np.argsort(atoms, kind="stable")
        found[counts > 0] = order[len(atoms) - int(counts.sum()) :].reshape(-1, each)
        return found


def family_readers(family: Family, groups: ChannelGroups, layers: WeightedLayers) -> list[FamilyReader]:
    """The layers that read a family, if whatever else does leaves its channels apart.

    Raises:
        NotMergeable: If not.
    """
    propagation, atoms = groups.propagation, FamilyAtoms(family, groups)
    by_node = {layer.node: layer for layer in layers.all}
    found: list[FamilyReader] = []
    for node in propagation.model.graph:
        if kind_of(node) in SIZES:
            continue
        if _remembers(node, groups, atoms):
            raise NotMergeable(f"{where(node)} mixes its channels in its state")
        varying = [i for i, v in enumerate(node.inputs) if v is not None and propagation.varies(v)]
        read = frozenset[int]().union(*(atoms.within(propagation.recorded(node, i)) for i in varying))
        if not read:
            continue
        layer = by_node.get(node)
        mine = list(_of_layer(layer, layers, atoms)) if layer is not None and 0 in varying else []
        if mine:
            assert layer is not None
            if layer.shared_by > 1:
                raise NotMergeable(f"{where(node)} reads it with a weight that is used elsewhere too")
            if layer.convolves and layer.layer.groups > 1:
                raise NotMergeable(f"{where(node)} reads it in groups")
            found += mine
            continue
        made = frozenset[int]().union(*(atoms.within(propagation.known(value)) for value in node.outputs))
        if not read <= made or (layer is None and _mixes(node, groups)):
            raise NotMergeable(f"{where(node)} mixes its channels, and has no weight that could be corrected")
    if not found:
        raise NotMergeable("no layer with a weight that could be corrected reads it")
    return found


def _of_layer(layer: WeightedLayer, layers: WeightedLayers, atoms: FamilyAtoms) -> list[FamilyReader]:
    """A row that holds a single atom is a filter of that channel and mixes nothing."""
    labels = layers.labels_read(layer)
    if labels is None:
        return []
    rows = atoms.of(labels)[layer.layer.channel_of_input]
    mixed = [g for g, row in enumerate(rows) if (row >= 0).any() and len(np.unique(row)) > 1]
    return [FamilyReader(layer, group, atoms.places(rows[group])) for group in mixed]


def _remembers(node: ir.Node, groups: ChannelGroups, atoms: FamilyAtoms) -> bool:
    """Whether a node has a state with channels of the family, which weights of its own mix from one step to the next."""
    product = groups.propagation.products.get(node)
    if product is None or not product.inner:
        return False
    return any(atoms.within(groups.propagation.known(value)) for value in node.outputs)


def _mixes(node: ir.Node, groups: ChannelGroups) -> bool:
    """Whether a node multiplies by a matrix that irc does not correct."""
    if node not in groups.propagation.products:
        return False
    weights = [constant(v) for v in node.inputs if v is not None and not groups.propagation.varies(v)]
    return any(weight is None or weight.ndim > 1 for weight in weights)
