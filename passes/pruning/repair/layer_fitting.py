"""Weights of a student fitted to its teacher layer by layer, front to back: what is left of the errors before is repaired too.

    minimise over W', b'    E |y - W' x - b'|^2 + damping |W' - W|^2

x is what the layer reads in the student as it is by then, y what the teacher's layer gives on the same sample at the same place, less
what the student's shortcut gives where the result is added to one: the error of the shortcut is repaired as well. "Statistics" only
rescales each output channel to the teacher's standard deviation and mean. Layers that read one weight are one layer with the rows of all
of them; see `fitting_order`.

Several students are fitted in one sweep, beside one teacher, and compared by their outputs afterwards: more freedom fits few samples too
well, and which damping is right differs between networks by a factor of a hundred.

Source: asymmetric least squares: He et al., arXiv:1707.06168, section 3.2 (residual target); ThiNet, arXiv:1707.06342; statistics:
REPAIR, Jordan et al., arXiv:2211.08403, by moments instead of BatchNormalization.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from irc.calibration.block_removal import least_squares
from irc.passes.pruning.repair.batches import Batch
from irc.passes.pruning.repair.fitting_order import Turn, fitting_order
from irc.passes.pruning.repair.frontier import Frontier
from irc.passes.pruning.repair.input_moments import positions, rows_wanted
from irc.passes.pruning.repair.student import Student
from irc.passes.pruning.repair.weight_storage import set_common_bias
from irc.passes.pruning.repair.weighted_layers import WeightedLayer, WeightedLayers, by_bias
from irc.passes.quantization.layer_geometry import Product
from irc.passes.quantization.layer_sample import Layer
from irc.runner import Runner

Array = np.ndarray[Any, Any]
LARGEST_SCALE = 4.0
"""By which statistics rescale a channel, or its inverse."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a student is fitted.

    Attributes:
        method: "least-squares" or "statistics".
        damping: Of the least squares, as a share of the mean of the gram's diagonal.
        shortcut: Whether the error of a shortcut is repaired too.
    """

    method: Literal["least-squares", "statistics"]
    damping: float = 0.0
    shortcut: bool = True

    def describe(self) -> str:
        """In words, short."""
        return self.method if self.method == "statistics" else f"{self.method}, damping {self.damping:g}"


def fit(
    layers: WeightedLayers,
    students: Sequence[tuple[Student, Fit]],
    runner: Runner,
    batches: Sequence[Batch],
    *,
    seed: int = 0,
    progress: Callable[[float, str], None] = lambda fraction, what: None,
) -> None:
    """Fits students, in place.

    Args:
        layers: Of the teacher.
        students: Cut from it, each with how it is to be fitted.
        runner: Where all of them run.
        batches: To fit on.
        seed: Of positions.
        progress: Told which layer is being fitted.
    """
    order = fitting_order(layers.propagation.model.graph, _fitted(layers, students))
    teacher = Frontier(layers.propagation.model, runner, batches)
    frontiers = [Frontier(student.model, runner, batches) for student, _how in students]
    sweep = _Sweep(layers, teacher, batches, seed)
    try:
        for number, turn in enumerate(order):
            progress(number / len(order), f"fitting layer {number + 1} of {len(order)}")
            sweep.bring(turn)
            for (student, how), frontier in zip(students, frontiers, strict=True):
                sums = sweep.sums(turn, student, how, frontier)
                if sums is not None:
                    _write(student, turn.layers[0], sums, how)
    finally:
        for frontier in (teacher, *frontiers):
            frontier.close()


def _fitted(layers: WeightedLayers, students: Sequence[tuple[Student, Fit]]) -> list[tuple[WeightedLayer, ...]]:
    """The weights of the layers from the first on that reads less than it did, but for those that something else reads too."""

    def loses(layer: WeightedLayer) -> bool:
        labels = layers.labels_read(layer)
        return labels is not None and any(not student.alive[labels].all() for student, _how in students)

    first = next((layer.index for layer in layers.all if loses(layer)), math.inf)
    return [uses for uses in layers.weights if uses[-1].index >= first and not any(_is_left(layer) for layer in uses)]


def _is_left(layer: WeightedLayer) -> bool:
    """Whether it is a stack of products, or has a bias that cannot be changed: what it gives is not a product of what it reads."""
    stacked = isinstance(layer.layer.geometry, Product) and layer.layer.groups > 1
    return stacked or (layer.adds_bias is None and len(layer.node.inputs) > 2 and layer.node.inputs[2] is not None)


@dataclasses.dataclass(frozen=True, eq=False)
class _Sweep:
    """What is known of the teacher where a sweep stands.

    Attributes:
        layers: Of the teacher.
        teacher: Its values.
        batches: To fit on.
        seed: Of positions.
    """

    layers: WeightedLayers
    teacher: Frontier
    batches: Sequence[Batch]
    seed: int

    @functools.cached_property
    def _samples(self) -> int:
        return sum(batch.samples for batch in self.batches)

    def bring(self, turn: Turn) -> None:
        """Computes what students are fitted to."""
        names = [name for layer in turn.layers for name in (layer.output, layer.total) if name is not None]
        self.teacher.bring([*names, *(layer.layer.source for layer in turn.layers if layer in turn.ahead)])

    def sums(
        self, turn: Turn, student: Student, how: Fit, frontier: Frontier
    ) -> list[tuple[list[WeightedLayer], _Sums]] | None:
        """Moments of what a student's layers read and of what they are to give, by their biases; None where they have not one weight.

        Also where the cut took rows, such as those of heads that one weight reads: they are others than the teacher's.
        """
        known = student.weight_of(turn.layers)
        if known is None:
            return None
        own = dict(zip(turn.layers, known[1], strict=True))
        shortcuts = {layer: str(layer.shortcut) for layer in turn.corrected} if how.shortcut else {}
        sources = [own[layer].source for layer in turn.layers if layer not in turn.ahead]
        frontier.bring([*sources, *shortcuts.values()])
        found = []
        for biased in by_bias(turn.layers):
            found.append((biased, _Sums(own[biased[0]])))
            for layer, index in itertools.product(biased, range(len(self.batches))):
                mine = None if layer in turn.ahead else frontier
                rows = self._rows(layer, own[layer], student, mine, index, shortcut=shortcuts.get(layer))
                if rows is None:
                    return None
                found[-1][1].add(*rows)
        return found

    def _rows(
        self,
        layer: WeightedLayer,
        own: Layer,
        student: Student,
        frontier: Frontier | None,
        index: int,
        *,
        shortcut: str | None,
    ) -> tuple[Array, Array] | None:
        """Rows that a student's layer reads in a batch, and what it is to give; the teacher's rows without a frontier."""
        y = self.teacher.of(layer.output if shortcut is None else layer.total or "", index)
        read, made = self.layers.labels_read(layer), self.layers.labels_made(layer)
        if frontier is not None:
            x = frontier.of(own.source, index)
        else:
            x = self.teacher.of(layer.layer.source, index)
            x = x if read is None else np.compress(student.alive[read], x, axis=layer.channel_axis)
        count = own.row_count(x.shape)
        if count != y.size // y.shape[layer.output_axis]:
            return None
        batch = self.batches[index]
        chosen = positions(count, batch, rows_wanted(layer.layer), self._samples, self.seed)
        target = _rows(y, chosen, layer)
        if made is not None:
            target = target[:, student.alive[made]]
        if shortcut is not None and frontier is not None:
            target = target - _rows(frontier.of(shortcut, index), chosen, layer)
        return own.rows(x, chosen), target / own.factor


class _Sums:
    """Moments of the inputs of a layer and of the targets of its outputs.

    Args:
        layer: The student's.
    """

    def __init__(self, layer: Layer) -> None:
        groups, inputs, outputs = layer.groups, layer.inputs, layer.outputs
        self.count = 0
        self._origin_x, self._origin_y = np.zeros((groups, 1, inputs)), np.zeros((groups, 1, outputs))
        self._x, self._xx = np.zeros((groups, inputs)), np.zeros((groups, inputs, inputs))
        self._y, self._yy = np.zeros((groups, outputs)), np.zeros((groups, outputs))
        self._yx = np.zeros((groups, outputs, inputs))

    def add(self, rows: Array, targets: Array) -> None:
        """Rows `[G, R, K]`, targets `[R, G * N]`."""
        groups, count, _inputs = rows.shape
        y: Array = np.ascontiguousarray(targets.reshape(count, groups, -1).transpose(1, 0, 2), np.float32)
        if not self.count and count:
            # About the first means: squares of large ones would leave nothing of small variances.
            self._origin_x = rows.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
            self._origin_y = y.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        rows, y = np.asarray(rows - self._origin_x), np.asarray(y - self._origin_y)
        self.count += count
        self._x += rows.sum(axis=1, dtype=np.float64)
        self._xx += rows.transpose(0, 2, 1) @ rows
        self._y += y.sum(axis=1, dtype=np.float64)
        self._yy += np.einsum("grn,grn->gn", y, y, dtype=np.float64)
        self._yx += y.transpose(0, 2, 1) @ rows

    @property
    def usable(self) -> bool:
        """Whether there was anything, and all of it finite."""
        return self.count > 0 and all(np.isfinite(part).all() for part in (self._x, self._xx, self._yy, self._yx))

    def means(self) -> tuple[Array, Array]:
        """Of inputs `[G, K]` and of targets `[G, N]`."""
        return self._x / self.count + self._origin_x[:, 0], self._y / self.count + self._origin_y[:, 0]

    def moments(self, *, about_means: bool) -> tuple[Array, Array, Array]:
        """Gram `[G, K, K]`, cross moments `[G, N, K]` and the energy of the targets `[G, N]`."""
        x, y = self._x / self.count, self._y / self.count
        gram = self._xx / self.count - x[:, :, None] * x[:, None, :]
        cross = self._yx / self.count - y[:, :, None] * x[:, None, :]
        energy = self._yy / self.count - y * y
        if not about_means:
            x, y = self.means()
            gram = gram + x[:, :, None] * x[:, None, :]
            cross = cross + y[:, :, None] * x[:, None, :]
            energy = energy + y * y
        return gram, cross, energy


def _write(student: Student, layer: WeightedLayer, found: list[tuple[list[WeightedLayer], _Sums]], how: Fit) -> None:
    """Solves for a weight and stores what was found, once for all layers that read it."""
    known = student.weight_of([layer])
    if known is None or not np.isfinite(known[0].values).all() or not all(sums.usable for _biased, sums in found):
        return
    stored, (own,) = known
    gram, cross, energy = _together([(sums, biased[0].adds_bias is not None) for biased, sums in found])
    matrices = own.matrices(stored.values).astype(np.float64)
    for group, matrix in enumerate(matrices):
        if how.method == "least-squares":
            matrices[group] = least_squares(matrix.T, gram[group], cross[group], damping=how.damping).T
        else:
            now = np.einsum("kn,kl,ln->n", matrix, gram[group], matrix, optimize=True)
            ratio = np.sqrt(np.maximum(energy[group], 0.0) / np.maximum(now, 1e-30))
            matrices[group] = matrix * np.clip(ratio, 1 / LARGEST_SCALE, LARGEST_SCALE)
    if not np.isfinite(matrices).all():
        return
    stored.store(student.model, own.tensor(matrices))
    for biased, sums in found:
        if biased[0].adds_bias is not None:
            x, y = sums.means()
            bias = own.of_channels(y - np.einsum("gk,gkn->gn", x, matrices)) * own.factor
            name = str(biased[0].node.outputs[0].name)
            set_common_bias(student.model, student.holders(biased), bias, hint=name, dtype=stored.dtype)


def _together(parts: Sequence[tuple[_Sums, bool]]) -> tuple[Array, Array, Array]:
    """Moments of one weight: each part about means of its own, where there is a bias for them."""
    found = [sums.moments(about_means=about_means) for sums, about_means in parts]
    if len(found) == 1:
        return found[0]
    counts = [sums.count for sums, _about_means in parts]
    gram, cross, energy = (np.average(same, axis=0, weights=counts) for same in zip(*found, strict=True))
    return gram, cross, energy


def _rows(value: Array, chosen: Array, layer: WeightedLayer) -> Array:
    """`[R, N]`: results of a layer, or what they are added to, at some of its rows."""
    if not layer.convolves:
        found: Array = value.reshape(-1, value.shape[-1])[chosen]
        return found.astype(np.float32)
    flat = value.reshape(*value.shape[:2], -1)
    sample, place = np.divmod(chosen, flat.shape[2])
    at: Array = flat[sample, :, place]
    return at.astype(np.float32)
