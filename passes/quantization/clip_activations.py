"""Ranges of quantized activations, chosen by what the layers behind them make of the error.

minimise over (low, high):  sum over readers of |x W - Q(x) W_q|^2 / |x W|^2

Clipping rare large values costs little where the weights of their channels are small. The range found holds for scale and zero
point of all values that move the same integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.calibration import MinMax
from irc.decisions import Decision
from irc.ir import constant_tensor
from irc.pass_base import Context, Skip
from irc.passes.quantization import placement
from irc.passes.quantization.activations import ActivationScale, activation_scale
from irc.passes.quantization.integer_layer import IntegerLayer
from irc.passes.quantization.layer_geometry import Array, Convolution
from irc.passes.quantization.layer_sample import Layer
from irc.passes.quantization.pair_family import Family, family_of
from irc.passes.quantization.range_error import RangeError, own_error
from irc.passes.quantization.refinement import Refinement, Rows, Unit, layer_error
from irc.passes.quantization.weights import quantized_bias
from irc.target import QuantizationStyle

SHARES = (1.0, 0.85, 0.7, 0.57, 0.45, 0.35, 0.25, 0.15)
"""Of the range of the rows: the first look."""
QUANTILES = (0.9999, 0.999, 0.99)
FACTORS = (0.92, 1.08, 0.96, 1.04, 0.98, 1.02)
"""Of the end found so far: the second look."""
SEARCH_ROWS = 512
_Objective = Callable[[float, float], float]


@dataclasses.dataclass(frozen=True)
class ClipActivations(Refinement):
    """Searches the range of every quantized activation for the least output error of the layers that read it.

    Source: clipping by the least squared error of the output, as in LAPQ, arXiv:1911.07190, and OmniQuant, arXiv:2308.13137 (there of
    weights); here by search, for one activation at a time.
    """

    name: ClassVar[str] = "clip-activations"

    def units(self, layers: Sequence[IntegerLayer], ctx: Context) -> Iterator[Unit | Skip]:
        """One per quantized value that a layer reads or makes, values that hold moved integers together."""
        style = ctx.target.quantization
        families: dict[ir.Node, Family] = {}
        readers: dict[Family, list[IntegerLayer]] = {}
        makers: dict[Family, tuple[IntegerLayer, ir.Value]] = {}

        def family_with(quantize: ir.Node) -> Family:
            if quantize not in families:
                family = family_of(quantize, style)
                families.update(dict.fromkeys(family.quantizers, family))
            return families[quantize]

        for layer in layers:
            readers.setdefault(family_with(layer.quantize), []).append(layer)
        for layer in layers:
            value = placement.fused_output(layer.node, style)
            for use in value.uses():
                pair = use.node.op_type == "QuantizeLinear" and use.node.domain == "" and use.node not in families
                if pair and all(constant_tensor(v) is not None for v in use.node.inputs[1:3]):
                    makers[family_with(use.node)] = (layer, value)
        for family, mine in readers.items():
            yield Unit(f"{mine[0].layer.source}#{family.state}", mine, family)
        for family, (layer, value) in makers.items():
            probe = _probe(value)
            if probe is not None:
                yield Unit(f"{probe.site}#{family.state}", (layer,), family, (probe,))

    def decide(self, unit: Unit, rows: Rows, ctx: Context) -> Decision:
        """The range with the least error on the rows to fit."""
        style = ctx.target.quantization
        family: Family = unit.more
        thin = {id(part.fit): _thinned(part.fit) for part in rows.values()}
        readers = () if unit.probes else unit.layers
        first = rows[unit.sampled[0].site]
        itself = bool(unit.probes) or family.others(unit.layers)
        measure = RangeError(
            [(layer, thin[id(rows[layer.site.id].fit)]) for layer in readers], thin[id(first.fit)] if itself else None
        )
        seen: dict[tuple[float, int], float] = {}

        def objective(low: float, high: float) -> float:
            found = _rounded(low, high, style)
            key = (float(found.scale), int(found.zero_point))
            if key not in seen:
                seen[key] = measure.of(lambda x: family.simulated(x, *key))
            return seen[key]

        low, high = _searched(list(thin.values()), objective, symmetric=style.activation == "int8")
        found = _rounded(low, high, style)
        scale, zero_point = float(found.scale), int(found.zero_point)
        before = after = 0.0
        for layer in readers:
            held = rows[layer.site.id].held
            before += layer_error(layer, held)
            after += layer_error(layer, held, rows_q=family.simulated(held, scale, zero_point))
        if itself:
            before += own_error(first.held, family.simulated(first.held, *family.now))
            after += own_error(first.held, family.simulated(first.held, scale, zero_point))
        return {"before": before, "after": after, "scale": scale, "zero_point": zero_point}

    def apply(self, unit: Unit, decision: Decision, ctx: Context) -> str | None:
        """Replaces scale and zero point of all pairs, and what the bias of a Gemm takes from them."""
        scale, zero_point = np.float32(decision["scale"]), decision["zero_point"]
        biases = []
        readers = () if unit.probes else unit.layers
        for layer in readers:
            bias = layer.bias if layer.has_integer_bias else None
            if bias is not None and quantized_bias(bias, scale * layer.scales) is None:
                return "its bias would not fit int32 any more"
            biases.append(bias)
        unit.more.rescale(scale, zero_point)
        for layer, bias in zip(readers, biases, strict=True):
            if bias is not None:
                layer.set_bias(bias)
        return None


def _searched(parts: Sequence[Array], objective: _Objective, *, symmetric: bool) -> tuple[float, float]:
    """The best ends of a range: first by shares of what occurs and quantiles, then by small steps."""
    lowest = min(0.0, *(float(part.min(initial=0.0)) for part in parts), 0.0)
    highest = max(0.0, *(float(part.max(initial=0.0)) for part in parts), 0.0)
    if symmetric:
        highest = max(highest, -lowest)
        lowest = -highest
    best = (objective(lowest, highest), lowest, highest)

    def look(low: float, high: float) -> None:
        nonlocal best
        if low <= 0 <= high and (low < 0 or high > 0):
            best = min(best, (objective(low, high), low, high))

    for share in SHARES:
        look(lowest * share, highest * share)
    tails = [np.quantile(parts[0], (q, 1 - q)) for q in QUANTILES]
    if symmetric:
        for upper, lower in tails:
            end = max(float(upper), -float(lower), 0.0)
            look(-end, end)
    else:
        lows = [lowest * share for share in SHARES] + [min(float(lower), 0.0) for _, lower in tails]
        highs = [highest * share for share in SHARES] + [max(float(upper), 0.0) for upper, _ in tails]
        for _ in range(2):
            for low in lows if lowest < 0 else ():
                look(low, best[2])
            for high in highs if highest > 0 else ():
                look(best[1], high)
    for factor in FACTORS:
        if symmetric:
            look(best[1] * factor, best[2] * factor)
        else:
            look(best[1] * factor, best[2])
            look(best[1], best[2] * factor)
    return best[1], best[2]


def _rounded(low: float, high: float, style: QuantizationStyle) -> ActivationScale:
    return activation_scale(MinMax(low, high, 1), style)


def _thinned(rows: Array) -> Array:
    return np.ascontiguousarray(rows[:, :: -(-rows.shape[1] // SEARCH_ROWS)])


def _probe(value: ir.Value) -> Layer | None:
    """A layer that only looks at a value: one row per position, channels on the axis that a Conv gives them."""
    shape, maker = value.shape, value.producer()
    if shape is None or len(shape) < 3 or not isinstance(shape[1], int) or not value.name or maker is None:
        return None
    ones = (1,) * (len(shape) - 2)
    geometry = Convolution((1, shape[1], *ones), 1, ones, ones, ((0, 0),) * len(ones))
    return Layer(f"={value.name}", value.name, geometry, 1.0, maker)
