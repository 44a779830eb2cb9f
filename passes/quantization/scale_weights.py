"""Scales of int8 weights with the least error where the inputs are large, instead of the largest weight.

minimise over s[c]:  sum_k h[k] * (W[k, c] - s[c] * clip(round(W[k, c] / s[c])))^2,   h[k] = mean(x[k]^2)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from irc.decisions import Decision
from irc.pass_base import Context, Skip
from irc.passes.quantization.integer_layer import IntegerLayer
from irc.passes.quantization.layer_geometry import Array
from irc.passes.quantization.refinement import Refinement, Rows, Unit, layer_error
from irc.passes.quantization.weights import channel_scales

SHARES = (0.98, 0.96, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7, 0.6, 0.5)
"""Of the scale that covers the largest weight."""
_BLOCK_ELEMENTS = 1 << 22


@dataclasses.dataclass(frozen=True)
class ScaleWeights(Refinement):
    """Searches the scale of every output channel of int8 weights, by the error weighted with the energy of the inputs.

    Source: Banner et al. 2019, arXiv:1810.05723, for clipping; weights of the error: the diagonal of the layer's Hessian, as in
    SqueezeLLM, arXiv:2306.07629.
    """

    name: ClassVar[str] = "scale-weights"

    def units(self, layers: Sequence[IntegerLayer], ctx: Context) -> Iterator[Unit | Skip]:
        """One per layer whose weight nobody shares."""
        return unshared(layers)

    def decide(self, unit: Unit, rows: Rows, ctx: Context) -> Decision:
        """The scales, and the error with them."""
        (layer,) = unit.layers
        part = rows[layer.site.id]
        energy = np.einsum("grk,grk->gk", part.fit, part.fit, dtype=np.float64)
        scales = searched_scales(layer, energy)
        weight = layer.simulated_weight(layer.nearest(scales), scales)
        before, after = layer_error(layer, part.held), layer_error(layer, part.held, weight_q=weight)
        return {"before": before, "after": after, "scales": scales}

    def apply(self, unit: Unit, decision: Decision, ctx: Context) -> str | None:
        """Rounds the weight again."""
        (layer,) = unit.layers
        scales = np.asarray(decision["scales"])
        layer.store(layer.nearest(scales), scales)
        return None


def unshared(layers: Sequence[IntegerLayer]) -> Iterator[Unit | Skip]:
    """One unit per layer; those whose int8 weight somebody else reads are skipped."""
    for layer in layers:
        if others := layer.other_readers:
            yield Skip(layer.node, f"its int8 weight is also read for {', '.join(others)}", layer.site.id)
        else:
            yield Unit(f"{layer.site.id}#{layer.state}", (layer,))


def searched_scales(layer: IntegerLayer, energy: Array) -> Array:
    """The scale of every output channel, `[channels]` float32.

    Args:
        layer: The layer.
        energy: `[G, K]`, mean square of every input.
    """
    tensor = layer.site.weight.numpy()
    largest = channel_scales(tensor, axis=layer.site.axis, limit=layer.limit)
    by_output = layer.layer.by_output(np.arange(len(largest)))
    weight, limit = layer.weight, np.float32(layer.limit)
    groups, inputs, outputs = weight.shape
    best = np.full(len(largest), np.inf)
    shares = np.ones(len(largest), np.float32)
    step = max(1, _BLOCK_ELEMENTS // max(1, groups * inputs))
    for start in range(0, outputs, step):
        part, channels = weight[:, :, start : start + step], by_output[:, start : start + step]
        for share in (1.0, *SHARES):
            scale = (largest[channels] * np.float32(share))[:, None, :]
            work = part / scale
            np.rint(work, out=work)
            np.clip(work, -limit, limit, out=work)
            work *= scale
            work -= part
            with np.errstate(over="ignore"):  # Of huge weights no error is finite, so that their scale stays.
                np.square(work, out=work)
                errors = np.einsum("gk,gkn->gn", energy, work)
            # A stack of matrices has one scale per column for all of them.
            error = np.zeros(len(largest))
            np.add.at(error, channels, errors)
            touched = np.zeros(len(largest), bool)
            touched[channels] = True
            better = touched & (error < best)
            best[better], shares[better] = error[better], share
    return (largest * shares).astype(np.float32)
