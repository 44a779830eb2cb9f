"""The student: a teacher without some of its channels, the weights that read them updated so that the rest takes over.

    V = W H[:, S] H[S, S]^-1,    b' = b + (W - V) E[x]            S: what stays of the rows that the weight reads

That is the update of block-OBS for any set of survivors, layer by layer, by statistics of the teacher. Where a layer has no bias, the
moments are about zero, so that the weight makes up for means as far as it can.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.block_removal import without
from irc.calibration.compensation import DAMPING
from irc.channel_surgery import cut
from irc.ir import snapshot
from irc.passes.pruning.repair.input_moments import InputMoments
from irc.passes.pruning.repair.weight_storage import StoredWeight, bias_of, layer_of, set_bias
from irc.passes.pruning.repair.weighted_layers import WeightedLayer, WeightedLayers

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Student:
    """A pruned model and what was kept of it.

    Attributes:
        model: The cut model.
        alive: A boolean per label of the teacher.
    """

    model: ir.Model
    alive: Array

    def node(self, layer: WeightedLayer) -> ir.Node | None:
        """The operator of a layer of the teacher; None if the cut left none of that name."""
        return self._nodes.get(str(layer.node.outputs[0].name))

    def named(self, output: str) -> ir.Node:
        """The operator that makes a value."""
        return self._nodes[output]

    @functools.cached_property
    def _nodes(self) -> dict[str, ir.Node]:
        return {str(value.name): node for node in self.model.graph for value in node.outputs}


def cut_student(layers: WeightedLayers, alive: Array, moments: InputMoments | None) -> Student:
    """Cuts a copy of the teacher.

    Args:
        layers: Of the teacher.
        alive: What survives, a boolean per label.
        moments: Of the teacher, for the update; None makes none.
    """
    propagation = layers.propagation
    model = snapshot(propagation.model)
    cut(model, propagation, alive)
    student = Student(model, alive)
    for update in updates(layers, alive, moments) if moments is not None else ():
        write_update(student, update, layers)
    return student


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """A weight that makes up for what it will not read any more.

    Attributes:
        layer: Whose.
        matrices: `[G, K, N]`, all of it: the rows that go are zero.
        shift: `[channels]`, to be added to the bias; zero where it has none.
    """

    layer: WeightedLayer
    matrices: Array
    shift: Array


def updates(layers: WeightedLayers, alive: Array, moments: InputMoments) -> list[Update]:
    """The layers that lose some of what they read, and their weights without it."""
    touched = []
    for layer in layers.all:
        labels = layers.labels_read(layer)
        if labels is None or alive[labels].all() or layer.shared_by > 1:
            continue
        gone = ~alive[labels][layer.layer.channel_of_input]
        if any(row.any() and not row.all() for row in gone):
            touched.append((layer, gone))
    moments.gather([layer for layer, _gone in touched])
    found = []
    for layer, gone in touched:
        known = moments[layer]
        weight = layer.weight.values
        if known is None or not np.isfinite(weight).all():
            continue
        matrices = layer.layer.matrices(weight).astype(np.float64)
        shift = np.zeros((layer.layer.groups, layer.layer.outputs))
        for group, row in enumerate(gone):
            if not row.any() or row.all():
                continue
            gram = known.gram[group] if layer.adds_bias is not None else known.second(group)
            updated = without(matrices[group].T, gram, row, damping=DAMPING).T
            shift[group] = known.mean[group] @ (matrices[group] - updated) * layer.layer.factor
            matrices[group] = updated
        found.append(Update(layer, matrices, layer.layer.of_channels(shift)))
    return found


def write_update(student: Student, update: Update, layers: WeightedLayers) -> None:
    """What survives of an update, behind the cut: constants that several layers share are apart by then, or stay as they are."""
    layer, alive = update.layer, student.alive
    node = student.node(layer)
    own, weight = (layer_of(node), StoredWeight.of(node)) if node is not None else (None, None)
    read, made = layers.labels_read(layer), layers.labels_made(layer)
    if node is None or own is None or weight is None or read is None:
        return
    rows = alive[read][layer.layer.channel_of_input]
    columns = np.ones(layer.layer.by_output(np.arange(_channels(layer))).shape, bool)
    if made is not None:
        columns = np.asarray(layer.layer.by_output(alive[made]))
    parts = [m[r][:, c] for m, r, c in zip(update.matrices, rows, columns, strict=True) if r.any() and c.any()]
    if not parts or {part.shape for part in parts} != {(own.inputs, own.outputs)} or len(parts) != own.groups:
        return
    weight.store(student.model, own.tensor(np.stack(parts)))
    if layer.adds_bias is None:
        return
    holder = student.named(str(layer.adds_bias[0].outputs[0].name))
    shift = update.shift if made is None else update.shift[alive[made]]
    old = bias_of(holder, layer.adds_bias[1])
    bias = shift if old is None else old.astype(np.float64) + shift
    set_bias(student.model, holder, layer.adds_bias[1], bias, hint=str(node.outputs[0].name), dtype=weight.dtype)


def _channels(layer: WeightedLayer) -> int:
    """How many channels its weight makes."""
    stacked = layer.layer.groups > 1 and not layer.convolves
    return layer.layer.outputs if stacked else layer.layer.groups * layer.layer.outputs
