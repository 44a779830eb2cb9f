"""What passes that refine a quantized model share: decide on samples, check on others, keep what helps, say by how much.

A refinement looks at one unit at a time: a layer, or several that have something in common. It is decided on rows of the float model's
values, whatever else was quantized, and made only where the output error of the layers falls on samples that were not used to decide.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import onnx_ir as ir

from irc.decisions import Decision
from irc.errors import UsageError
from irc.pass_base import Context, Contract, Pass, Remark, Site, Skip
from irc.passes.quantization.integer_layer import (
    NOT_QUANTIZED,
    IntegerLayer,
    float_model,
    integer_layers,
    remember_names,
)
from irc.passes.quantization.layer_geometry import Array
from irc.passes.quantization.layer_sample import ROWS, Layer, LayerRows, sampled
from irc.passes.quantization.output_error import output_error, row_energies, row_importance

LEAST_GAIN = 0.01
"""Share by which the error has to fall."""
_OUTPUT_ELEMENTS = 1 << 25
"""About as many numbers of an output are looked at."""


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """What is refined at once.

    Attributes:
        key: What it is called among the decisions: what it is about, and the state it starts from.
        layers: The layers it changes; the first one is its site.
        more: Whatever the pass wants to know again.
        probes: Whose inputs are sampled; by default those of the layers.
    """

    key: str
    layers: Sequence[IntegerLayer]
    more: Any = None
    probes: Sequence[Layer] = ()

    @property
    def id(self) -> str:
        """Its site id."""
        return self.layers[0].site.id

    @property
    def sampled(self) -> Sequence[Layer]:
        """Whose inputs are sampled."""
        return self.probes or [layer.layer for layer in self.layers]


Rows = Mapping[str, LayerRows]
"""Rows by the site id of what was sampled."""


class Refinement(Pass):
    """A pass that improves what quantize made, where that lowers the measured output error of its layer."""

    contract: ClassVar[Contract] = Contract.APPROXIMATE
    refines: ClassVar[bool] = True

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the layers where the output error falls on held-out samples.

        Raises:
            UsageError: If there is anything to decide and no data.
        """
        found = float_model(model)
        if found is None:
            yield Skip(None, NOT_QUANTIZED)
            return
        layers = []
        for candidate in integer_layers(model, found, ctx):
            if isinstance(candidate, Skip):
                yield candidate
            else:
                layers.append(candidate)
        units = []
        for unit in self.units(layers, ctx):
            if isinstance(unit, Skip):
                yield unit
            else:
                units.append(unit)
        self._decide(units, found.model, ctx)
        for unit in units:
            decision = ctx.decisions.remember(self._key(unit), dict)
            before, after = decision.get("before"), decision.get("after")
            if not isinstance(before, float) or not isinstance(after, float):
                yield Skip(unit.layers[0].node, "no sample gave its input an element", unit.id)
            elif after < before and after <= (1 - LEAST_GAIN) * before:
                yield Site(unit.layers[0].node, (model, unit, decision), unit.id)
            else:
                reason = f"its output error would not fall: {_change(before, after)}"
                yield Skip(unit.layers[0].node, reason, unit.id)

    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Makes the change that was decided."""
        model, unit, decision = site.match
        if (reason := self.apply(unit, decision, ctx)) is not None:
            return Skip(site.node, reason, site.id)
        remember_names(model, unit.layers)
        return Remark(f"output error {_change(decision['before'], decision['after'])}")

    @abc.abstractmethod
    def units(self, layers: Sequence[IntegerLayer], ctx: Context) -> Iterator[Unit | Skip]:
        """What may be refined, in the order of the layers."""

    @abc.abstractmethod
    def decide(self, unit: Unit, rows: Rows, ctx: Context) -> Decision:
        """The best change found, with the relative output error on held-out rows "before" and "after"."""

    @abc.abstractmethod
    def apply(self, unit: Unit, decision: Decision, ctx: Context) -> str | None:
        """Makes a change that was decided; returns why that is not possible, having changed nothing."""

    def rows_for(self, layer: Layer) -> int:
        """How many rows to decide on."""
        return ROWS

    def _key(self, unit: Unit) -> str:
        return f"{self.name}/{unit.key}"

    def _decide(self, units: Sequence[Unit], model: ir.Model, ctx: Context) -> None:
        open_units = {self._key(unit): unit for unit in units if self._key(unit) not in ctx.decisions}
        if ctx.decisions.replaying or not open_units:
            return
        if ctx.data is None or ctx.runner is None:
            raise UsageError(f"{self.name}: needs data; give --data")
        rows: dict[str, LayerRows] = {}
        unit_of = {layer.site: unit for unit in open_units.values() for layer in unit.sampled}
        wanted = [layer for unit in open_units.values() for layer in unit.sampled]
        for layer, found in sampled(model, wanted, ctx, rows=self.rows_for, held_rows=ROWS):
            rows[layer.site] = found
            unit = unit_of[layer.site]
            if all(other.site in rows for other in unit.sampled):
                mine = {other.site: rows.pop(other.site) for other in unit.sampled}
                ctx.decisions.remember(self._key(unit), functools.partial(self.decide, unit, mine, ctx))
        for key in open_units:
            ctx.decisions.remember(key, dict)


def layer_error(
    layer: IntegerLayer,
    rows: Array,
    *,
    rows_q: Array | None = None,
    weight_q: Array | None = None,
    shift: Array | None = None,
) -> float:
    """Relative output error of a layer with its own input and weight quantized.

    Args:
        layer: The layer.
        rows: `[G, R, K]` of its float input.
        rows_q: As the integer operator would see them; by default as it does.
        weight_q: `[G, K, N]`, likewise.
        shift: `[G, N]`, added to its output, factor left out; by default what its bias has by now.
    """
    count = max(16, _OUTPUT_ELEMENTS // (layer.layer.groups * layer.layer.outputs))
    rows = rows[:, :count]
    seen = layer.simulated_rows(rows) if rows_q is None else rows_q[:, :count]
    stored = layer.simulated_weight() if weight_q is None else weight_q
    signal, error = output_error(
        rows,
        layer.weight,
        seen,
        stored,
        layer.shift if shift is None else shift,
        row_weights=row_importance(row_energies(rows, layer.weight)),
    )
    return error / signal if signal > 0 else float(error > 0)


def _change(before: Any, after: Any) -> str:
    return f"{100 * before:.3g} % -> {100 * after:.3g} % on held-out samples"
