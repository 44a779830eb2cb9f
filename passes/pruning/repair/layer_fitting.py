"""Weights of a student fitted to its teacher layer by layer, front to back: what is left of the errors before is repaired too.

    minimise over W', b'    E |y - W' x - b'|^2 + damping |W' - W|^2

x is what the layer reads in the student as it is by then, y what the teacher's layer gives on the same sample at the same place, less
what the student's shortcut gives where the result is added to one: the error of the shortcut is repaired as well. "Statistics" only
rescales each output channel to the teacher's standard deviation and mean.

Several students are fitted in one sweep, beside one teacher, and compared by their outputs afterwards: more freedom fits few samples too
well, and which damping is right differs between networks by a factor of a hundred.

Source: asymmetric least squares: He et al., arXiv:1707.06168, section 3.2 (residual target); ThiNet, arXiv:1707.06342; statistics:
REPAIR, Jordan et al., arXiv:2211.08403, by moments instead of BatchNormalization.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from irc.calibration.block_removal import least_squares
from irc.passes.pruning.repair.batches import Batch
from irc.passes.pruning.repair.frontier import Frontier
from irc.passes.pruning.repair.input_moments import positions, rows_wanted
from irc.passes.pruning.repair.student import Student
from irc.passes.pruning.repair.weight_storage import StoredWeight, layer_of, set_bias
from irc.passes.pruning.repair.weighted_layers import WeightedLayer, WeightedLayers
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
    samples = sum(batch.samples for batch in batches)
    places = [layer for layer in _fitted(layers, students)]
    teacher = Frontier(layers.propagation.model, runner, batches)
    frontiers = [Frontier(student.model, runner, batches) for student, _how in students]
    try:
        for number, layer in enumerate(places):
            progress(number / len(places), f"fitting layer {number + 1} of {len(places)}")
            made = layers.labels_made(layer)
            teacher.bring([name for name in (layer.output, layer.total) if name is not None])
            for (student, how), frontier in zip(students, frontiers, strict=True):
                node = student.node(layer)
                own = None if node is None else layer_of(node)
                if node is None or own is None:
                    continue
                shortcut = layer.shortcut if how.shortcut else None
                frontier.bring([own.source, *([shortcut] if shortcut is not None else [])])
                sums = _Sums(own)
                for index, batch in enumerate(batches):
                    x, y = (
                        frontier.of(own.source, index),
                        teacher.of(layer.output if shortcut is None else layer.total or "", index),
                    )
                    count = own.row_count(x.shape)
                    chosen = positions(count, batch, rows_wanted(layer.layer), samples, seed)
                    if count != y.size // y.shape[layer.output_axis]:
                        break  # the cut took rows too, such as those of heads that one weight reads
                    target = _rows(y, chosen, layer)
                    if made is not None:
                        target = target[:, student.alive[made]]
                    if shortcut is not None:
                        target = target - _rows(frontier.of(shortcut, index), chosen, layer)
                    sums.add(own.rows(x, chosen), target / own.factor)
                else:
                    _write(student, layer, node, own, sums, how)
    finally:
        for frontier in (teacher, *frontiers):
            frontier.close()


def _fitted(layers: WeightedLayers, students: Sequence[tuple[Student, Fit]]) -> list[WeightedLayer]:
    """The layers from the first on that reads less than it did, but for those whose weight is not theirs alone."""

    def loses(layer: WeightedLayer) -> bool:
        labels = layers.labels_read(layer)
        return labels is not None and any(not student.alive[labels].all() for student, _how in students)

    first = next((i for i, layer in enumerate(layers.all) if loses(layer)), len(layers.all))
    return [layer for layer in layers.all[first:] if layer.shared_by == 1 and not _is_left(layer)]


def _is_left(layer: WeightedLayer) -> bool:
    """Whether it is a stack of products, or has a bias that cannot be changed: what it gives is not a product of what it reads."""
    stacked = isinstance(layer.layer.geometry, Product) and layer.layer.groups > 1
    return stacked or (layer.adds_bias is None and len(layer.node.inputs) > 2 and layer.node.inputs[2] is not None)


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


def _write(student: Student, layer: WeightedLayer, node: ir.Node, own: Layer, sums: _Sums, how: Fit) -> None:
    """Solves for a layer and stores what was found."""
    stored = StoredWeight.of(node)
    if not sums.usable or stored is None or not np.isfinite(stored.values).all():
        return
    has_bias = layer.adds_bias is not None
    gram, cross, energy = sums.moments(about_means=has_bias)
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
    if layer.adds_bias is not None:
        x, y = sums.means()
        bias = own.of_channels(y - np.einsum("gk,gkn->gn", x, matrices)) * own.factor
        holder = student.named(str(layer.adds_bias[0].outputs[0].name))
        set_bias(student.model, holder, layer.adds_bias[1], bias, hint=str(node.outputs[0].name), dtype=stored.dtype)


def _rows(value: Array, chosen: Array, layer: WeightedLayer) -> Array:
    """`[R, N]`: results of a layer, or what they are added to, at some of its rows."""
    if not layer.convolves:
        found: Array = value.reshape(-1, value.shape[-1])[chosen]
        return found.astype(np.float32)
    flat = value.reshape(*value.shape[:2], -1)
    sample, place = np.divmod(chosen, flat.shape[2])
    at: Array = flat[sample, :, place]
    return at.astype(np.float32)
