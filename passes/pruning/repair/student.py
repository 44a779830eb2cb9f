"""The student: a teacher without some of its channels, the weights that read them updated so that the rest takes over.

    V = W H[:, S] H[S, S]^-1,    b' = b + (W - V) E[x]            S: what stays of the rows that the weight reads

That is the update of block-OBS for any set of survivors, layer by layer, by statistics of the teacher. Where a layer has no bias, the
moments are about zero, so that the weight makes up for means as far as it can. Layers that read one weight are one layer with the rows
of all of them: the weight changes once, each bias by the means of the rows that it is added behind.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.block_removal import without
from irc.calibration.compensation import DAMPING
from irc.channel_surgery import cut
from irc.ir import snapshot
from irc.passes.pruning.repair.input_moments import InputMoments, Moments, pooled
from irc.passes.pruning.repair.recurrent_update import update_recurrent
from irc.passes.pruning.repair.weight_storage import StoredWeight, bias_of, layer_of, set_common_bias
from irc.passes.pruning.repair.weighted_layers import WeightedLayer, WeightedLayers, by_bias
from irc.passes.quantization.layer_sample import Layer

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

    def weight_of(self, uses: Sequence[WeightedLayer]) -> tuple[StoredWeight, list[Layer]] | None:
        """The weight of layers of the teacher that have one, and what they are by now; None if the cut left them no such weight."""
        nodes = [node for use in uses if (node := self.node(use)) is not None]
        stored = [weight for node in nodes if (weight := StoredWeight.of(node)) is not None]
        own = [layer for node in nodes if (layer := layer_of(node)) is not None]
        whole = len(stored) == len(own) == len(uses)
        return (stored[0], own) if whole and len({weight.origin for weight in stored}) == 1 else None

    def holders(self, layers: Iterable[WeightedLayer]) -> list[tuple[ir.Node, int]]:
        """Where the biases of layers of the teacher are; of those that may have one."""
        found = [layer.adds_bias for layer in layers if layer.adds_bias is not None]
        return [(self.named(str(holder.outputs[0].name)), index) for holder, index in found]

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
    if moments is not None and layers.recurrent.all:
        update_recurrent(model, alive, layers.recurrent, moments.recurrent)
    return student


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """A weight that makes up for what it will not read any more.

    Attributes:
        layer: Whose.
        matrices: `[G, K, N]`, all of it: the rows that go are zero.
        shift: `[channels]`, to be added to the bias; zero where it has none.
        others: The other layers that read the weight, with the same for their biases.
    """

    layer: WeightedLayer
    matrices: Array
    shift: Array
    others: tuple[tuple[WeightedLayer, Array], ...] = ()


def updates(layers: WeightedLayers, alive: Array, moments: InputMoments) -> list[Update]:
    """The weights that lose some of what they read, and what they are without it.

    A weight of several layers is left alone where these lose different channels.
    """
    touched = []
    for uses in layers.weights:
        gone = _gone(layers, uses[0], alive)
        if gone is None or not any(row.any() and not row.all() for row in gone):
            continue
        if all(_lose_alike(layers, alive, uses[0], other) for other in uses[1:]):
            touched.append((uses, gone))
    moments.gather([layer for uses, _gone in touched for layer in uses])
    found = []
    for uses, gone in touched:
        weight = uses[0].weight.values
        known = [_known(biased, moments) for biased in by_bias(uses)]
        if np.isfinite(weight).all() and all(part is not None for part in known):
            found.append(_updated(uses, gone, weight, [part for part in known if part is not None]))
    return found


def _gone(layers: WeightedLayers, layer: WeightedLayer, alive: Array) -> Array | None:
    """`[G, K]`: which elements of its rows a layer loses; None where it loses none."""
    labels = layers.labels_read(layer)
    if labels is None or alive[labels].all():
        return None
    found: Array = ~alive[labels][layer.layer.channel_of_input]
    return found


def _lose_alike(layers: WeightedLayers, alive: Array, first: WeightedLayer, other: WeightedLayer) -> bool:
    """Whether two layers lose the same of what they read and of what they make."""
    for labels_of in (layers.labels_read, layers.labels_made):
        one, two = labels_of(first), labels_of(other)
        if one is None or two is None:
            if any(labels is not None and not alive[labels].all() for labels in (one, two)):
                return False
        elif not np.array_equal(alive[one], alive[two]):
            return False
    return True


def _known(layers: list[WeightedLayer], moments: InputMoments) -> tuple[list[WeightedLayer], Moments] | None:
    """The moments of what layers of one bias read."""
    found = [moments[layer] for layer in layers]
    parts = [part for part in found if part is not None]
    return (layers, pooled(parts)) if len(parts) == len(found) else None


def _updated(
    uses: tuple[WeightedLayer, ...],
    gone: Array,
    weight: Array,
    known: list[tuple[list[WeightedLayer], Moments]],
) -> Update:
    layer = uses[0].layer
    matrices = layer.matrices(weight).astype(np.float64)
    shifts = np.zeros((len(known), layer.groups, layer.outputs))
    counts = [part.count for _layers, part in known]
    for group, row in enumerate(gone):
        if not row.any() or row.all():
            continue
        grams = [part.gram[group] if biased[0].adds_bias is not None else part.second(group) for biased, part in known]
        gram = grams[0] if len(grams) == 1 else np.average(grams, axis=0, weights=counts)
        updated = without(matrices[group].T, gram, row, damping=DAMPING).T
        for shift, (_biased, part) in zip(shifts, known, strict=True):
            shift[group] = part.mean[group] @ (matrices[group] - updated) * layer.factor
        matrices[group] = updated
    shift_of = {
        use: layer.of_channels(shift) for shift, (biased, _part) in zip(shifts, known, strict=True) for use in biased
    }
    return Update(uses[0], matrices, shift_of[uses[0]], tuple((use, shift_of[use]) for use in uses[1:]))


def write_update(student: Student, update: Update, layers: WeightedLayers) -> None:
    """What survives of an update, behind the cut: constants whose layers lose different channels are apart by then, or stay."""
    layer, alive = update.layer, student.alive
    shifts = dict([(layer, update.shift), *update.others])
    known = student.weight_of(list(shifts))
    read, made = layers.labels_read(layer), layers.labels_made(layer)
    if known is None or read is None:
        return
    weight, own = known[0], known[1][0]
    rows = alive[read][layer.layer.channel_of_input]
    columns = np.ones(layer.layer.by_output(np.arange(_channels(layer))).shape, bool)
    if made is not None:
        columns = np.asarray(layer.layer.by_output(alive[made]))
    parts = [m[r][:, c] for m, r, c in zip(update.matrices, rows, columns, strict=True) if r.any() and c.any()]
    if not parts or {part.shape for part in parts} != {(own.inputs, own.outputs)} or len(parts) != own.groups:
        return
    weight.store(student.model, own.tensor(np.stack(parts)))
    for biased in by_bias(shifts):
        if biased[0].adds_bias is None:
            continue
        shift = shifts[biased[0]] if made is None else shifts[biased[0]][alive[made]]
        holders = student.holders(biased)
        old = bias_of(*holders[0])
        bias = shift if old is None else old.astype(np.float64) + shift
        name = str(biased[0].node.outputs[0].name)
        set_common_bias(student.model, holders, bias, hint=name, dtype=weight.dtype)


def _channels(layer: WeightedLayer) -> int:
    """How many channels its weight makes."""
    stacked = layer.layer.groups > 1 and not layer.convolves
    return layer.layer.outputs if stacked else layer.layer.groups * layer.layer.outputs
