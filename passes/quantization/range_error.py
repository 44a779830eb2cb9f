"""What the range of a quantized activation does to the layers that read it, cheap enough to be asked for many ranges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from irc.passes.quantization.integer_layer import IntegerLayer
from irc.passes.quantization.layer_geometry import Array
from irc.passes.quantization.output_error import row_energies, row_importance


class RangeError:
    """Summed relative error of the outputs of some layers, and of their input itself if asked.

    With D = Q(x) - x, the error of a layer is `|E + D W_q|^2`, E = x (W_q - W); through the gram of W_q where that is smaller. Layers that
    share their rows are one.

    Args:
        readers: Layers, each with rows `[G, R, K]` of its float input.
        itself: Rows of the value whose own error counts as well, or None.
    """

    def __init__(self, readers: Sequence[tuple[IntegerLayer, Array]], itself: Array | None) -> None:
        self._terms: dict[int, _Readers] = {}
        by_rows: dict[int, list[IntegerLayer]] = {}
        self._rows: dict[int, Array] = {}
        for layer, rows in readers:
            by_rows.setdefault(id(rows), []).append(layer)
            self._rows[id(rows)] = rows
        for key, layers in by_rows.items():
            self._terms[key] = _Readers(layers, self._rows[key])
        self._itself = 0
        if itself is not None:
            self._itself = id(itself)
            self._rows[self._itself] = itself
            self._importance = np.sqrt(row_importance(_row_energies(itself)))[:, None]
            self._signal = _energy(itself * self._importance)

    def of(self, quantized: Callable[[Array], Array]) -> float:
        """The error when the value is quantized in some way."""
        total = 0.0
        for key, rows in self._rows.items():
            change = quantized(rows)
            change -= rows
            if key in self._terms:
                total += self._terms[key].error(change)
            if key == self._itself and self._signal > 0:
                change *= self._importance
                total += _energy(change) / self._signal
        return total


class _Readers:
    """Layers with the same rows."""

    def __init__(self, layers: Sequence[IntegerLayer], rows: Array) -> None:
        weights, exact = [], []
        for layer in layers:
            energy = float(row_energies(rows, layer.weight).sum())
            unit = np.float32(1.0 / np.sqrt(energy)) if energy > 0 else np.float32(1.0)
            weights.append(layer.simulated_weight() * unit)
            exact.append(layer.weight * unit)
        energies = sum((row_energies(rows, weight) for weight in exact), np.zeros(rows.shape[1]))
        importance = row_importance(energies)
        self._importance = np.sqrt(importance)[:, None]
        signal = float(energies @ importance)
        self._unit = len(layers) / signal if signal > 0 else 1.0
        self._matrix = np.concatenate(weights, axis=2)
        error = (rows @ (self._matrix - np.concatenate(exact, axis=2))) * self._importance
        self._constant: float | None = None
        self._error = error
        if self._matrix.shape[2] > self._matrix.shape[1]:
            self._constant = _energy(error)
            self._error = 2 * (error @ self._matrix.swapaxes(1, 2))
            self._matrix = self._matrix @ self._matrix.swapaxes(1, 2)

    def error(self, change: Array) -> float:
        """The summed relative error when the rows change by so much."""
        weighted = change * self._importance
        product = weighted @ self._matrix
        product += self._error
        if self._constant is None:
            return self._unit * _energy(product)
        return self._unit * (self._constant + float(np.einsum("grk,grk->", weighted, product, dtype=np.float64)))


def own_error(rows: Array, seen: Array) -> float:
    """Relative error of a value itself, its rows weighted as those of a layer's output are."""
    importance = row_importance(_row_energies(rows))
    signal, error = (_row_energies(x) @ importance for x in (rows, seen - rows))
    return float(error / signal) if signal > 0 else 0.0


def _row_energies(array: Array) -> Array:
    return np.asarray(np.einsum("grk,grk->r", array, array, dtype=np.float64))


def _energy(array: Array) -> float:
    return float(np.einsum("grk,grk->", array, array, dtype=np.float64))
