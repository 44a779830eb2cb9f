"""int8 weights rounded one after another, each rounding error compensated by the weights that are still free.

minimise over integers V:  |X W - X_q s V|^2

X_q is the input as the integer operator sees it, so that what its quantization takes away is compensated as well, as far as it can be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from irc.calibration.compensation import compensate
from irc.decisions import Decision
from irc.pass_base import Context, Skip
from irc.passes.quantization.integer_layer import IntegerLayer
from irc.passes.quantization.layer_geometry import Array
from irc.passes.quantization.layer_sample import Layer
from irc.passes.quantization.output_error import row_energies, row_importance
from irc.passes.quantization.refinement import Refinement, Rows, Unit, layer_error
from irc.passes.quantization.scale_weights import unshared

ROWS_PER_INPUT = 4
LEAST_ROWS = 1024
MOST_ROWS = 8192
MOST_GROUPS = 64
"""With more groups there are few weights to compensate an error in."""


@dataclasses.dataclass(frozen=True)
class RoundWeights(Refinement):
    """Rounds the int8 weights of a layer by second-order compensation, at the scales it has.

    Source: GPTQ, arXiv:2210.17323; the error of quantized inputs in the target: GPTAQ, arXiv:2504.02692.
    """

    name: ClassVar[str] = "round-weights"

    def units(self, layers: Sequence[IntegerLayer], ctx: Context) -> Iterator[Unit | Skip]:
        """One per layer whose weight nobody shares."""
        for unit in unshared(layers):
            if isinstance(unit, Unit) and unit.layers[0].layer.groups > MOST_GROUPS:
                layer = unit.layers[0]
                yield Skip(layer.node, f"it has {layer.layer.groups} groups of {layer.layer.inputs} inputs", unit.id)
            else:
                yield unit

    def rows_for(self, layer: Layer) -> int:
        """More than there are inputs."""
        return min(max(LEAST_ROWS, ROWS_PER_INPUT * layer.inputs), MOST_ROWS)

    def decide(self, unit: Unit, rows: Rows, ctx: Context) -> Decision:
        """The best of rounding for float and for quantized inputs."""
        (layer,) = unit.layers
        part = rows[layer.site.id]
        before = layer_error(layer, part.held)
        best = before
        nearest = layer.nearest(layer.scales)
        chosen = nearest
        for quantized_inputs in (False, True):
            integers = rounded_by_compensation(layer, part.fit, quantized_inputs=quantized_inputs)
            after = layer_error(layer, part.held, weight_q=layer.simulated_weight(integers))
            if after < best:
                best, chosen = after, integers
        steps = np.clip(chosen.astype(np.int16) - nearest, -127, 127).astype(np.int8)
        return {"before": before, "after": best, "steps": steps}

    def apply(self, unit: Unit, decision: Decision, ctx: Context) -> str | None:
        """Stores the integers."""
        (layer,) = unit.layers
        layer.store((layer.nearest(layer.scales) + np.asarray(decision["steps"])).astype(np.int8))
        return None


def rounded_by_compensation(layer: IntegerLayer, rows: Array, *, quantized_inputs: bool) -> Array:
    """The int8 weight, in its own layout.

    Args:
        layer: The layer, whose scales stay.
        rows: `[G, R, K]` of its float input.
        quantized_inputs: Whether the rows that it will see are quantized.
    """
    limit = np.float32(layer.limit)
    importance = np.sqrt(row_importance(row_energies(rows, layer.weight)))[:, None]
    seen = (layer.simulated_rows(rows) if quantized_inputs else rows) * importance
    rows = rows * importance
    steps = layer.layer.by_output(layer.scales)
    result = np.empty(layer.weight.shape, np.int8)
    for group, weight in enumerate(layer.weight):
        x = seen[group]
        gram = x.T @ x
        target = weight
        if quantized_inputs:
            damped = gram.astype(np.float64)
            damped[np.diag_indices_from(damped)] += 0.01 * np.diagonal(damped).mean() + 1e-30
            target = weight + np.linalg.solve(damped, (x.T @ (rows[group] - x)) @ weight).astype(np.float32)
        scale = np.ascontiguousarray(steps[group])

        def project(values: Array, column: int, scale: Array = scale) -> Array:
            return np.clip(np.rint(values / scale), -limit, limit) * scale

        found = compensate(np.ascontiguousarray(target.T), gram, project)
        result[group] = np.clip(np.rint(found.T / scale), -limit, limit)
    return layer.layer.tensor(result)
