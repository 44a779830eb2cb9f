"""The edit: layers that read merged channels read their representatives by so much more, and the cut takes the rest.

W[k] += a W[c],    b' += sum over c of W[c]^T b_c          W[c]: all rows of the weight that read channel c
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.channel_surgery import cut
from irc.passes.pruning.merging.family_readers import FamilyReader
from irc.passes.pruning.repair.student import Student, Update, write_update
from irc.passes.pruning.repair.weighted_layers import WeightedLayer, WeightedLayers

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Merge:
    """What becomes of a family in one layer.

    Attributes:
        reader: The layer.
        gone: `[m]`: channels that go.
        into: `[m]`: their representatives.
        scale: `[m]`: a.
        offset: `[m, T]`: b by tap.
    """

    reader: FamilyReader
    gone: Array
    into: Array
    scale: Array
    offset: Array


def write_merges(
    model: ir.Model,
    merges: Sequence[Merge],
    alive: Array,
    layers: WeightedLayers,
    *,
    proof: Callable[[], None] | None = None,
) -> None:
    """Cuts a model that is as the analysed one was, and writes what the layers that read merged channels become.

    Args:
        model: Changed.
        merges: Of all families, reader by reader.
        alive: What survives.
        layers: Of the analysed model.
        proof: Called behind the cut, before anything is written.
    """
    updates = _updates(merges)
    cut(model, layers.propagation, alive)
    if proof is not None:
        proof()
    student = Student(model, alive)
    for update in updates:
        write_update(student, update, layers)


def _updates(merges: Sequence[Merge]) -> list[Update]:
    """The layers that read merged channels, with what they are to be once those are gone."""
    found: dict[ir.Node, tuple[WeightedLayer, Array, Array]] = {}
    for merge in merges:
        reader = merge.reader
        layer = reader.layer
        if layer.node not in found:
            matrices = np.array(layer.layer.matrices(layer.weight.values), dtype=np.float64)
            found[layer.node] = layer, matrices, np.zeros((layer.layer.groups, layer.layer.outputs))
        _layer, matrices, shift = found[layer.node]
        matrix = matrices[reader.group]
        read = reader.reads[merge.gone]
        gone, into = reader.elements[merge.gone[read]], reader.elements[merge.into[read]]
        rows = matrix[gone]
        shift[reader.group] += layer.layer.factor * np.einsum("mt,mtn->n", merge.offset[read], rows)
        np.add.at(matrix, into, merge.scale[read, None, None] * rows)
    return [Update(layer, matrices, layer.layer.of_channels(shift)) for layer, matrices, shift in found.values()]
