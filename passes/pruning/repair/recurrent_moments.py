"""Means and covariances of what recurrent operators read at one step: the input, and the state before it.

A state is what the operator gave a step before, or a step later where it runs backward; at its first step the initial one, or zero. Steps
behind the end of a sequence, where lengths are given, count for nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant, snapshot, unique_name
from irc.memory_groups import groups_within
from irc.passes.pruning.repair.batches import Batch
from irc.passes.pruning.repair.input_moments import (
    BUDGET_BYTES,
    ROWS,
    ROWS_PER_INPUT,
    GatheredMoments,
    Moments,
    RowSums,
    positions,
)
from irc.passes.pruning.repair.recurrent_layers import INITIAL, LENGTHS, RecurrentLayer, X

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class _Names:
    """The values that are asked for, None for what there is none of."""

    x: str
    states: str
    lengths: str | None
    initial: str | None


class RecurrentMoments(GatheredMoments):
    """Of what recurrent operators read, a group for each direction."""

    def __getitem__(self, layer: RecurrentLayer) -> Moments | None:
        """Moments of what a layer reads; None where it reads nothing, or anything that is not finite."""
        self.gather([layer])
        return self._found[layer]

    def gather(self, layers: Sequence[RecurrentLayer]) -> None:
        """Gathers what is not known yet of several layers, in as few sweeps as memory allows."""
        wanted = [layer for layer in dict.fromkeys(layers) if layer not in self._found]
        sized = [(layer, 8 * layer.directions * layer.width**2) for layer in wanted]
        for group in groups_within(sized, BUDGET_BYTES) if wanted else ():
            self._sweep(group)

    def _sweep(self, layers: Sequence[RecurrentLayer]) -> None:
        model, names = _named(self._model, layers)
        constants = _constants(layers)
        sums = {layer: RowSums(layer.directions, layer.width) for layer in layers}
        inputs = {value.name for value in model.graph.inputs}
        used = dict.fromkeys(name for of in names.values() for name in dataclasses.astuple(of) if name is not None)
        asked = [name for name in used if name not in constants and name not in inputs]
        with self._runner.open(model, extra_outputs=asked) as opened:
            for number, batch in enumerate(self._batches):
                self._progress(number / len(self._batches), f"statistics of the states of {len(layers)} layers")
                values = {**constants, **batch.feed, **opened.run(batch.feed, asked)}
                for layer in layers:
                    sums[layer].add(self._rows(layer, names[layer], values, batch))
        self._found |= {layer: found.moments() for layer, found in sums.items()}

    def _rows(self, layer: RecurrentLayer, names: _Names, values: Mapping[str, Array], batch: Batch) -> Array:
        x, states = np.asarray(values[names.x]), np.asarray(values[names.states])
        steps, count, inputs = x.shape
        lengths = np.full(count, steps) if names.lengths is None else np.asarray(values[names.lengths])
        initial = None if names.initial is None else np.asarray(values[names.initial])
        before = states_before(states, initial, lengths, layer.backward)
        there = np.flatnonzero(np.arange(steps)[:, None] < lengths)
        wanted = max(ROWS, ROWS_PER_INPUT * layer.width)
        chosen = there[positions(len(there), batch, wanted, self._samples, self._seed)]
        rows = before.reshape(layer.directions, steps * count, layer.hidden)[:, chosen]
        return layer.rows(x.reshape(-1, inputs)[chosen], rows)


def states_before(states: Array, initial: Array | None, lengths: Array, backward: Sequence[bool]) -> Array:
    """`[D, T, N, H]`: the states that the steps of a recurrent operator read.

    Args:
        states: `[T, D, N, H]`, as it gave them.
        initial: `[D, N, H]`, or None for zeros.
        lengths: `[N]`: steps of every sequence.
        backward: For every direction, whether it runs from the end of a sequence.
    """
    found = np.zeros_like(states.transpose(1, 0, 2, 3))
    steps, sequences = len(states), np.arange(states.shape[2])
    for direction, reverse in enumerate(backward):
        own, start = states[:, direction], 0.0 if initial is None else initial[direction]
        if not steps:
            continue
        if reverse:
            found[direction, :-1] = own[1:]
            found[direction, np.minimum(lengths, steps) - 1, sequences] = start
        else:
            found[direction, 1:] = own[:-1]
            found[direction, 0] = start
    return found


def _named(model: ir.Model, layers: Sequence[RecurrentLayer]) -> tuple[ir.Model, dict[RecurrentLayer, _Names]]:
    """A model that gives all states, those that nobody asked for too, and the names of the values."""
    there = {node: index for index, node in enumerate(model.graph)}
    if any(not layer.node.outputs[0].name for layer in layers):
        model = snapshot(model)
    nodes, found = list(model.graph), {}
    for layer in layers:
        node = nodes[there[layer.node]]
        if not node.outputs[0].name:
            node.outputs[0].name = unique_name(model.graph, f"{layer.name}_states")
        x, lengths, initial = (None if value is None else str(value.name) for value in _read_by(layer))
        found[layer] = _Names(str(x), str(node.outputs[0].name), lengths, initial)
    return model, found


def _read_by(layer: RecurrentLayer) -> list[ir.Value | None]:
    """What it reads besides weights: inputs, lengths and initial states."""
    given = layer.node.inputs
    return [given[index] if index < len(given) else None for index in (X, LENGTHS, INITIAL)]


def _constants(layers: Sequence[RecurrentLayer]) -> dict[str, Array]:
    """What of that the model holds itself."""
    read = {str(value.name): constant(value) for layer in layers for value in _read_by(layer) if value is not None}
    return {name: array for name, array in read.items() if array is not None}
