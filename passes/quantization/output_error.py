"""The output error of a layer given as matrices: which rows count how much, and the energies of signal and error."""

from __future__ import annotations

import numpy as np

from irc.passes.quantization.layer_geometry import Array


def output_error(
    rows: Array,
    weight: Array,
    rows_q: Array,
    weight_q: Array,
    bias_shift: Array | None = None,
    *,
    row_weights: Array | None = None,
) -> tuple[float, float]:
    """Energy of a layer's output, and of the difference that quantization makes to it.

    Args:
        rows: `[G, R, K]`, float.
        weight: `[G, K, N]`, float.
        rows_q: The rows as the integer operator sees them.
        weight_q: The weight as the integer operator sees it.
        bias_shift: `[G, N]`, added to the quantized output; None for nothing.
        row_weights: `[R]`, what the energies of a row count; None for all the same.

    Returns:
        `sum(y^2)` and `sum((y_q - y)^2)`.
    """
    exact = rows @ weight
    signal = _energy(exact, row_weights)
    exact -= rows_q @ weight_q
    if bias_shift is not None:
        exact -= bias_shift[:, None, :].astype(np.float32)
    return signal, _energy(exact, row_weights)


def row_energies(rows: Array, weight: Array) -> Array:
    """The energy of every row of a layer's output, `[R]` float64, through the gram of the weight where that is smaller.

    Args:
        rows: `[G, R, K]`.
        weight: `[G, K, N]`.
    """
    if weight.shape[2] > weight.shape[1]:
        products = rows @ (weight @ weight.swapaxes(1, 2))
        return np.asarray(np.maximum(np.einsum("grk,grk->r", products, rows, dtype=np.float64), 0.0))
    outputs = rows @ weight
    return np.asarray(np.einsum("grn,grn->r", outputs, outputs, dtype=np.float64))


def row_importance(energies: Array) -> Array:
    """What each row's error should count, `[R]` float32: less where the output is exceptionally large.

    weight[r] = median energy / (energy[r] + median energy)

    What follows most layers normalizes position by position, so that an error hurts relative to its own row; without this a few
    tokens with massive activations would be all that counts.

    Args:
        energies: `[R]`, of the output.
    """
    floor = float(np.median(energies)) or float(energies.mean()) or 1.0
    return np.asarray(floor / (energies + floor), np.float32)


def _energy(array: Array, weights: Array | None) -> float:
    energy = np.einsum("grn,grn->r", array, array, dtype=np.float64)
    return float(energy.sum() if weights is None else energy @ weights)
