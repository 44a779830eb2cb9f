"""How strongly the channels of an activation are evened out against those of the weights that read it, by what int8 makes of the outputs.

    s[c] = max|x[c]|^alpha / max|w[c]|^(1 - alpha), geometric mean 1;    x' = x / s,  w' = s w

At alpha 1 all channels of x' reach equally far, and the weights pay for it; at 0 it is the other way round. Which is best
differs from layer to layer, and a wrong choice is worse than none, so it is searched on some rows of the inputs and judged on others.
Source: SmoothQuant, arXiv:2211.10438; AWQ, arXiv:2306.00978, searches like this for weights alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from irc.calibration import MinMax, observer_for
from irc.calibration.statistics import Distribution
from irc.decisions import Decision
from irc.passes.quantization.activations import activation_scale
from irc.passes.quantization.channel_layout import factors
from irc.passes.quantization.layer_sample import Layer, simulated
from irc.passes.quantization.weights import channel_scales, rounded
from irc.runner.histogram import Histogram
from irc.target import QuantizationStyle

Array = np.ndarray[Any, Any]
Clipping = Literal["min-max", "mse"]
STRENGTHS_OF_PRODUCTS = (0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
"""The alphas that are tried, besides leaving the layers as they are. Measured on MiniLM: above 0.8 the errors of layers
still fall, and those of embeddings rise again (5.6e-3 with 0.8 as the last, 7.9e-3 with 1)."""
STRENGTHS = (*STRENGTHS_OF_PRODUCTS, 0.9, 1.0)
"""Those for convolutions; in depthwise ones a scale per channel makes up for any factor, so that 1 costs nothing."""
WIDEST = 1e4
"""No scale is so many times larger or smaller than their geometric mean."""
_CENTRE = 7


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads the activation, or one that scales with it.

    Attributes:
        layer: The layer.
        weight: Its constant.
        channels: Number of the scale of each channel of its input, `[C]` int64, -1 for none.
        low: Smallest element of each channel over all samples, `[C]`.
        high: Largest, likewise.
        fit: Rows to search on, `[G, R, K]`.
        held: Rows to judge by.
    """

    layer: Layer
    weight: Array
    channels: Array
    low: Array
    high: Array
    fit: Array
    held: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What the search found.

    Attributes:
        strength: The alpha; 0 for leaving the layers as they are.
        scales: float32, one per channel, all 1 where the strength is 0.
        before: Relative error energy of the outputs on held-out rows without scales, the mean over the readers.
        after: The same with the scales.
    """

    strength: float
    scales: Array
    before: float
    after: float

    @property
    def gain(self) -> float:
        """Share of the error that goes away."""
        return 1 - self.after / self.before if self.before > 0 else 0.0

    def decision(self) -> Decision:
        """What a plan keeps; of no use are the scales where nothing is gained."""
        scales = self.scales if self.strength else np.zeros(0, np.float32)
        return {"strength": self.strength, "scales": scales, "before": self.before, "after": self.after}


def search(
    readers: Sequence[Reader],
    count: int,
    style: QuantizationStyle,
    *,
    clipping: Clipping = "mse",
    strengths: Sequence[float] = STRENGTHS,
) -> Found:
    """The strength with the least error on the rows to search on, judged by the held-out rows.

    Args:
        readers: All layers that read the divided values.
        count: Number of scales.
        style: How the target quantizes.
        clipping: How the range of the activation will be chosen.
        strengths: The alphas to try.
    """
    layers = [_Simulated(reader, style, clipping) for reader in readers]
    ones = np.ones(count, np.float32)
    reach, weights = _magnitudes(readers, count)
    best, best_error, chosen = ones, _mean(layer.fit_error(ones) for layer in layers), 0.0
    if not np.isfinite(best_error) or best_error == 0:
        return Found(0.0, ones, 0.0, 0.0)
    for strength in strengths:
        scales = scales_of(reach, weights, strength)
        error = _mean(layer.fit_error(scales) for layer in layers)
        if error < best_error:
            best, best_error, chosen = scales, error, strength
    before = _mean(layer.held_error(ones) for layer in layers)
    after = _mean(layer.held_error(best) for layer in layers) if chosen else before
    return Found(chosen, best, before, after)


def scales_of(reach: Array, weights: Array, strength: float) -> Array:
    """The scales of a strength, float32, their geometric mean 1; 1 for channels of zeros.

    Args:
        reach: Largest magnitude of each channel of the activation.
        weights: Largest magnitude of what meets it in the weights.
        strength: alpha.
    """
    alive = (reach > 0) & (weights > 0)
    scales = np.ones(len(reach))
    if alive.any():
        logarithms = strength * np.log(reach[alive]) - (1 - strength) * np.log(weights[alive])
        centred = logarithms - logarithms.mean()
        scales[alive] = np.exp(np.clip(centred, -np.log(WIDEST), np.log(WIDEST)))
    return scales.astype(np.float32)


def _mean(numbers: Any) -> float:
    return float(np.mean(list(numbers)))


def _magnitudes(readers: Sequence[Reader], count: int) -> tuple[Array, Array]:
    """The largest magnitude of each channel, of the activations and of the weights."""
    reach, weights = np.zeros(count + 1), np.zeros(count + 1)
    for reader in readers:
        np.maximum.at(reach, reader.channels, np.maximum(np.abs(reader.low), np.abs(reader.high)))
        rows = np.abs(reader.layer.matrices(reader.weight)).max(axis=2, initial=0.0)
        np.maximum.at(weights, reader.channels[reader.layer.channel_of_input], rows)
    return reach[:count], weights[:count]


class _Simulated:
    """A reader with its exact outputs at hand."""

    def __init__(self, reader: Reader, style: QuantizationStyle, clipping: Clipping) -> None:
        self._reader, self._style = reader, style
        self._matrices = np.ascontiguousarray(reader.layer.matrices(reader.weight), np.float32)
        self._channels = reader.channels[reader.layer.channel_of_input]
        low, high = style.quantized_range
        self._observer = observer_for(
            clipping, percentile=100.0, levels=high - low + 1, symmetric=style.activation == "int8"
        )
        self._outputs: dict[str, tuple[Array, Array]] = {}

    def fit_error(self, scales: Array) -> float:
        """Relative error energy on the rows to search on."""
        return self._error(scales, "fit", self._reader.fit)

    def held_error(self, scales: Array) -> float:
        """Relative error energy on the rows to judge by."""
        return self._error(scales, "held", self._reader.held)

    def _error(self, scales: Array, part: str, rows: Array) -> float:
        if part not in self._outputs:
            exact = rows @ self._matrices
            self._outputs[part] = exact, _row_weights(exact)
        exact, weights = self._outputs[part]
        by_element = factors(scales, self._channels)
        matrices = self._quantized(self._matrices * by_element[:, :, None])
        low, step, zero, highest = self._activation(scales, by_element)
        got = simulated(rows / by_element[:, None, :], step, zero, low, highest) @ matrices
        np.subtract(got, exact, out=got)
        return float(np.einsum("grn,grn,gr->", got, got, weights, dtype=np.float64, optimize=False))

    def _activation(self, scales: Array, by_element: Array) -> tuple[int, Array, Array, int]:
        """The quantizer as calibration would choose it, which sees all samples: their extremes, the distribution of all rows."""
        by_channel = factors(scales, self._reader.channels)
        seen = MinMax(float((self._reader.low / by_channel).min()), float((self._reader.high / by_channel).max()), 1)
        if self._observer.kind == "distribution":
            rows = np.concatenate([self._reader.fit, self._reader.held], axis=1)
            seen = self._observer.range((Distribution(seen, _histogram(rows / by_element[:, None, :])),))
        chosen = activation_scale(seen, self._style)
        lowest, highest = self._style.quantized_range
        return lowest, np.asarray(chosen.scale), np.asarray(chosen.zero_point), highest

    def _quantized(self, matrices: Array) -> Array:
        """Weights as int8 stores them, `[G, K, N]` with a scale per output channel."""
        groups, inputs, outputs = matrices.shape
        columns = np.ascontiguousarray(matrices.transpose(1, 0, 2).reshape(inputs, -1))
        scale = channel_scales(columns, axis=1, limit=self._style.weight_limit)
        stored = rounded(columns, scale, axis=1, limit=self._style.weight_limit)
        values = stored * scale
        return np.ascontiguousarray(values.reshape(inputs, groups, outputs).transpose(1, 0, 2))


def _row_weights(exact: Array) -> Array:
    """What the error energy of each row counts, `[G, R]`: rows far above the median by their own energy, others by the median.

    A few tokens have outputs many times larger than all others, and what comes next is mostly normalized token by token.
    """
    energies = np.einsum("grn,grn->r", exact, exact, dtype=np.float64)
    weights = 1 / np.maximum(energies + np.median(energies), np.finfo(np.float64).tiny)
    return np.broadcast_to(weights / max(len(weights), 1), exact.shape[:2])


def _histogram(array: Array) -> Histogram:
    """The histogram that calibration would gather of these numbers."""
    found = Histogram()
    largest = float(np.abs(array).max(initial=0.0))
    if not largest > 0 or not np.isfinite(largest):
        found.small = array.size
        return found
    exponent = _CENTRE - int(np.floor(np.log2(largest)))
    codes = np.ldexp(array, exponent).astype(np.float16).view(np.uint16)
    found.add_counts(np.bincount(codes.reshape(-1), minlength=1 << 16), exponent)
    return found
