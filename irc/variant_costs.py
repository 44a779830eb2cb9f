"""What every variant of every site costs: microseconds by the runtime's profiler here, and bytes of weights.

Variants that differ in numbers alone, such as scales, cost the same: they are timed once. What is a little faster than
a pass's own way by the profiler is not taken for faster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from irc.candidates import Candidates
from irc.ir import weight_bytes
from irc.site_times import site_microseconds

if TYPE_CHECKING:
    from irc.pass_manager import RunResult
    from irc.runner import Feed
    from irc.target import Target

_SECONDS = 0.4
LEAST_GAIN = 0.25
"""A variant of another structure has to be faster than a pass's own by this share of its time.

Sites that read the same value share its conversion only while they are of one structure, which sums over sites do not see.
"""
_MACS_PER_MICROSECOND = 1e4
_ESTIMATED = 0.5
"""Share of the time in float that integers are taken to save on a runtime that is not here, or where nothing is timed."""


@dataclasses.dataclass(frozen=True)
class VariantCosts:
    """Costs by site.

    Attributes:
        microseconds: By variant, None for float, and site.
        bytes: Of the weights in float, by site.
        stored: Share of these bytes that a variant stores.
    """

    microseconds: Mapping[str | None, Mapping[str, float]]
    bytes: Mapping[str, float]
    stored: Mapping[str, float]

    @classmethod
    def measured(
        cls, candidates: Candidates, builds: Mapping[str, RunResult], target: Target, feeds: Sequence[Feed]
    ) -> VariantCosts:
        """Profiles the float model and every build; estimates where the target is not executed here or nothing can be timed.

        The first build is the passes' own.
        """
        model, sites = candidates.float_model, [key.site for key in candidates.keys]
        weights = _weight_bytes(model, sites)
        total = sum(weights.values())
        in_float = weight_bytes(model)
        structures = {variant: _structure(build.model) for variant, build in builds.items()}
        shares: dict[tuple[str, ...], float] = {}
        for variant, build in builds.items():
            if structures[variant] not in shares:
                saved = in_float - weight_bytes(build.model)
                shares[structures[variant]] = min(max(1.0 - saved / total, 0.0), 1.0) if total else 1.0
        stored = {variant: shares[structure] for variant, structure in structures.items()}
        if not (target.executed_here and feeds):
            return cls(_estimated(model, sites, builds), weights, stored)
        candidates.context.progress(0.0, "timing every site in every variant")

        def timed(rewritten: ir.Model) -> Mapping[str, float]:
            style = target.quantization
            return site_microseconds(candidates.runner, model, rewritten, sites, style, feeds, seconds=_SECONDS)

        times: dict[str | None, Mapping[str, float]] = {None: timed(model)}
        known = {_structure(model): times[None]}
        own = next(iter(structures.values()), None)
        for variant, structure in structures.items():
            if structure not in known:
                known[structure] = timed(builds[variant].model)
            factor = 1.0 if structure == own else 1.0 + LEAST_GAIN
            times[variant] = {site: time * factor for site, time in known[structure].items()}
        return cls(times, weights, stored)

    def of(self, site: str, variant: str | None) -> tuple[float, float]:
        """Microseconds and bytes of a site in a variant; None is float."""
        times = self.microseconds.get(variant, {})
        in_float = self.microseconds[None].get(site, 0.0)
        share = 1.0 if variant is None else self.stored.get(variant, 1.0)
        return times.get(site, in_float), self.bytes.get(site, 0.0) * share


def _structure(model: ir.Model) -> tuple[str, ...]:
    """The operators of a model; variants that have the same differ in numbers alone."""
    return tuple(node.op_type for node in model.graph.all_nodes())


def _weight_bytes(model: ir.Model, sites: Sequence[str]) -> dict[str, float]:
    """Bytes of the constants each site reads; what several read is shared among them."""
    wanted = set(sites)
    users: dict[ir.Value, list[str]] = {}
    for node in model.graph.all_nodes():
        name = node.outputs[0].name if node.outputs else None
        if name in wanted:
            for value in node.inputs:
                if value is not None and value.const_value is not None:
                    users.setdefault(value, []).append(name or "")
    found = dict.fromkeys(sites, 0.0)
    for value, names in users.items():
        for name in names:
            assert value.const_value is not None
            found[name] += value.const_value.nbytes / len(names)
    return found


def _estimated(
    model: ir.Model, sites: Sequence[str], builds: Mapping[str, RunResult]
) -> dict[str | None, Mapping[str, float]]:
    """Times in proportion to multiply-accumulates, those on integers counted half."""
    from irc.analysis import cost

    macs = {node.node: float(node.macs or 0) for node in cost(model).nodes}
    in_float = {site: macs.get(site, 0.0) / _MACS_PER_MICROSECOND for site in sites}
    total = sum(macs.get(site, 0.0) for site in sites)
    times: dict[str | None, Mapping[str, float]] = {None: in_float}
    for name, build in builds.items():
        integer = sum(float(node.macs or 0) for node in cost(build.model).nodes if _is_integer(node.operands))
        share = min(integer / total, 1.0) if total else 0.0
        times[name] = {site: time * (1.0 - share * _ESTIMATED) for site, time in in_float.items()}
    return times


def _is_integer(operands: str) -> bool:
    return "int8" in operands and not operands.startswith("float")
