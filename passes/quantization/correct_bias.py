"""What quantization adds to the mean of a layer's output, taken out of its bias.

b'[c] = b[c] + E[y[c] - y_q[c]]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from irc.decisions import Decision
from irc.pass_base import Context, Skip
from irc.passes.quantization.integer_layer import IntegerLayer, addend_place
from irc.passes.quantization.refinement import Refinement, Rows, Unit, layer_error


@dataclasses.dataclass(frozen=True)
class CorrectBias(Refinement):
    """Adds the mean error of every output channel to the bias: of a Conv or Gemm, or the constant added behind a product.

    Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2, by what is measured.
    """

    name: ClassVar[str] = "correct-bias"

    def units(self, layers: Sequence[IntegerLayer], ctx: Context) -> Iterator[Unit | Skip]:
        """One per layer that has a bias, or may get one."""
        for layer in layers:
            own = layer.node.op_type == "Conv" and addend_place(layer.node) is None
            if layer.bias is None and not own:
                yield Skip(layer.node, "no constant is added to its output", layer.site.id)
            else:
                yield Unit(f"{layer.site.id}#{layer.state}", (layer,))

    def decide(self, unit: Unit, rows: Rows, ctx: Context) -> Decision:
        """The shift, and the error with it."""
        (layer,) = unit.layers
        part = rows[layer.site.id]
        mean, mean_q = (x.mean(axis=1, dtype=np.float64) for x in (part.fit, layer.simulated_rows(part.fit)))
        shift = np.einsum("gk,gkn->gn", mean, layer.weight) - np.einsum("gk,gkn->gn", mean_q, layer.simulated_weight())
        before, after = layer_error(layer, part.held), layer_error(layer, part.held, shift=shift)
        change = (shift - layer.shift) * layer.layer.factor
        return {"before": before, "after": after, "shift": layer.layer.of_channels(change).astype(np.float32)}

    def apply(self, unit: Unit, decision: Decision, ctx: Context) -> str | None:
        """Adds the shift."""
        (layer,) = unit.layers
        shift, bias = np.asarray(decision["shift"]), layer.bias
        done = layer.set_bias(shift if bias is None else bias + shift)
        return None if done else "its bias would not fit int32 any more"
