"""Predicted latency of a model by what survives of it.

The whole model is profiled and timed once. A runtime node that carries out products takes the time it took, times what
single operators of the sizes after the cut take over those of the sizes before; any other takes the share of the elements
it touches, above what an idle operator takes. Conversions between layouts are counted where they would be.

    latency(alive) = fixed + factor * (sum over nodes t_n * r_n(alive) + t_conversions(alive))

`fixed` is what a run of an empty model takes, and `factor` makes latency(all) what was measured.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family
from irc.analysis.channels.product_terms import Term, terms_of
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.operation_macs import UnknownCost
from irc.calibration.memory_packing import sizes_of
from irc.errors import UsageError
from irc.latency_table.baseline import QUIET_QUANTILE, Baseline
from irc.latency_table.interpolation import crossed
from irc.latency_table.kernels import Convolution, Kernel, Operator, Sizes, kernel_of
from irc.latency_table.layouts import Layouts
from irc.latency_table.probes import INTO_BLOCKS, OUT_OF_BLOCKS, Probes
from irc.latency_table.runtime_parts import Part, runtime_parts
from irc.latency_table.surviving_shapes import Alive, SurvivingShapes
from irc.runner import Feed, NodeTime, Runner

_FEW_ELEMENTS = 64
_TIMING_SECONDS = 1.5
_PROBE_SECONDS = 60.0
_PREPARED = (0.75, 0.5, 0.25)


@dataclasses.dataclass(frozen=True, eq=False)
class _Timed:
    """A node of the runtime, ready to be predicted.

    Attributes:
        microseconds: As it is, the profiler's share taken off.
        owner: The node of the model that it is known by; None if it is none of the model's.
        kernels: Measured products in it.
        terms: MACs of products in it, where they are not measured.
        values: Values that it touches and that may get smaller, if there is no product in it.
        elements: Elements of all values that it touches, as they are.
    """

    microseconds: float
    owner: ir.Node | None
    kernels: tuple[Kernel, ...] = ()
    terms: tuple[Term, ...] = ()
    values: tuple[ir.Value, ...] = ()
    elements: int = 0


class LatencyTable:
    """Predicted time of one inference by survivors, from measured times of single operators at their real sizes.

    Args:
        groups: What may be cut.
        feed: Shapes that predictions are for.
        baseline: What was measured of the model.
        probes: What is known of single operators, and what measures more.
        also: The same propagation solved for other modes.
        probe_seconds: After so many seconds of measuring, sizes that are not known yet are estimated from those nearest.

    Attributes:
        baseline: As given.
        probes: As given.
        estimated: How many kernels were estimated at some sizes.
    """

    def __init__(
        self,
        groups: ChannelGroups,
        feed: Feed,
        baseline: Baseline,
        probes: Probes,
        *,
        also: Sequence[ChannelGroups] = (),
        probe_seconds: float = math.inf,
    ) -> None:
        self.baseline, self.probes, self._seconds = baseline, probes, probe_seconds
        self.estimated = 0
        self._groups = (groups, *also)
        propagation = groups.propagation
        model = propagation.model
        self._shapes = SurvivingShapes(propagation, ConcreteShapes(model, sizes_of(model, feed)))
        found = {node: kernel_of(node, self._shapes) for node in model.graph if node in propagation.products}
        self._kernels = {node: kernel for node, kernel in found.items() if kernel is not None}
        self._known: dict[Kernel, dict[Sizes, float]] = {kernel: {} for kernel in self._kernels.values()}
        parts = runtime_parts(model, baseline.nodes)
        self._timed = [self._timed_part(part) for part in parts if not part.reorders]
        # What does little in this very model, where it can be seen.
        small = [one.microseconds for one in self._timed if one.elements and one.elements <= _FEW_ELEMENTS]
        self._idle = max(baseline.idle, float(np.quantile(small, QUIET_QUANTILE)) if small else 0.0)
        self._conversions = sum(self.baseline.own(part.time) for part in parts if part.reorders)
        convolutions = {n: k for n, k in self._kernels.items() if isinstance(k, Convolution)}
        self._layouts = Layouts(self._shapes, convolutions, baseline.block)
        self._converted = self._layouts.converted(None)

    @classmethod
    def measured(
        cls,
        runner: Runner,
        groups: ChannelGroups,
        feed: Feed,
        *,
        also: Sequence[ChannelGroups] = (),
        seconds: float = _TIMING_SECONDS,
        probe_seconds: float = _PROBE_SECONDS,
        progress: Callable[[float], None] = lambda share: None,
    ) -> LatencyTable:
        """Profiles and times the model as it is, and the operators of evenly narrower ones; more is measured when asked for.

        Args:
            runner: Where it runs, and with how many threads.
            groups: What may be cut.
            feed: An input of the size that matters.
            also: The same propagation solved for other modes.
            seconds: Time for timing the model, and as much for its profile.
            probe_seconds: Time for measuring operators, now and later; what is asked for after that is estimated.
            progress: Told the share done.

        Raises:
            RunnerError: If the model cannot run the feed.
        """
        model = groups.propagation.model
        baseline = Baseline.measured(runner, model, feed, seconds=seconds, progress=lambda share: progress(0.4 * share))
        opset = model.graph.opset_imports.get("", 17)
        probes = Probes(runner, opset=opset, overhead=baseline.overhead)
        block, idle = probes.constants()
        baseline = dataclasses.replace(baseline, block=block, idle=idle)
        table = cls(groups, feed, baseline, probes, also=also, probe_seconds=probe_seconds)
        probes.working_set = sum(kernel.at(kernel.whole).bytes for kernel in table._kernels.values())
        table.prepare([None, *(table._evenly(share) for share in _PREPARED)])
        into, out = (probes.reorderings[kind].per_element() for kind in (INTO_BLOCKS, OUT_OF_BLOCKS))
        table.baseline = dataclasses.replace(baseline, into_blocks=into, out_of_blocks=out)
        progress(1.0)
        return table

    # -- predictions --------------------------------------------------------------------------------------------------

    def milliseconds(self, alive: Alive | None = None) -> float:
        """Predicted milliseconds of one inference of what survives.

        Args:
            alive: A boolean per label, as `ChannelGroups.survivors` gives it; None for the model as it is.

        Raises:
            RunnerError: If an operator that is not known yet cannot be measured.
        """
        if alive is None:
            return self.baseline.milliseconds
        alive = np.array(alive)
        self.prepare([None, alive])
        total = self._conversion(alive) + sum(one.microseconds * self._ratio(one, alive) for one in self._timed)
        return (self.baseline.fixed + self.baseline.factor * total) / 1e3

    def node_milliseconds(self, alive: Alive | None = None) -> dict[ir.Node, float]:
        """The same by node of the model, but for conversions; what is fused counts for its product, or for its last node."""
        if alive is not None:
            alive = np.array(alive)
            self.prepare([None, alive])
        found: dict[ir.Node, float] = {}
        for one in self._timed:
            if one.owner is None:
                continue
            owner = one.kernels[0].node if len(one.kernels) == 1 else one.owner
            spent = self.baseline.factor * one.microseconds * (1.0 if alive is None else self._ratio(one, alive))
            found[owner] = found.get(owner, 0.0) + spent / 1e3
        return found

    def prepare(self, survivors: Iterable[Alive | None]) -> None:
        """Measures what predictions of some survivors need, many operators at a time.

        Raises:
            RunnerError: If an operator cannot be measured.
        """
        wanted: dict[tuple[Kernel, Sizes], None] = {}
        for alive in survivors:
            wanted.update(dict.fromkeys((kernel, kernel.sizes(alive)) for one in self._timed for kernel in one.kernels))
        corners = {key: self._corners(*key) for key in wanted if key[1] not in self._known[key[0]]}
        # What nothing is known of cannot be estimated.
        if self.probes.seconds < self._seconds or any(not self._known[kernel] for kernel, _sizes in corners):
            self.probes.measure([operator for found in corners.values() for operator, _share in found])
        for (kernel, sizes), found in corners.items():
            if all(operator in self.probes for operator, _share in found):
                self._known[kernel][sizes] = sum(share * self.probes[operator] for operator, share in found)
            else:
                self._known[kernel][sizes] = self._estimated(kernel, sizes)
                self.estimated += 1

    def levels(self, family: Family) -> tuple[int, ...]:
        """Widths of a family, descending, that are worth asking for: from one to the next something gets cheaper.

        Between two of them all convolutions that run over the family take the same time, as far as they work on blocks. A family
        that no such convolution runs over has all its widths.

        Raises:
            UsageError: If the family is of another analysis.
        """
        groups = next((one for one in self._groups if family in one.families), None)
        if groups is None:
            raise UsageError(f"family {family.name!r} is of another analysis or mode than the latency table")
        mine = np.zeros(groups.propagation.constraints.count, dtype=bool)
        mine[family.atoms] = True
        mine = mine[groups.class_of]
        stepping = [
            int(mine[bundle.labels].sum())
            for node, kernel in self._kernels.items()
            if isinstance(kernel, Convolution) and kernel.blocked(kernel.whole, self.baseline.block)
            for bundle in groups.propagation.products[node].groups
        ]
        per_width = sorted({count // family.width for count in stepping if count >= family.width})
        widths = range(family.width, 0, -1)
        if not per_width:
            return tuple(widths)

        def steps(width: int) -> list[int]:
            return [-(-each * width // self.baseline.block) for each in per_width]

        return tuple(width for width in widths if width == family.width or steps(width) != steps(width + 1))

    # -- record -------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the baseline, and microseconds by operator."""
        operators = {name: round(spent, 2) for name, spent in self.probes.times.items()}
        return {**dataclasses.asdict(self.baseline), "operators": operators}

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], groups: ChannelGroups, feed: Feed, *, also: Sequence[ChannelGroups] = ()
    ) -> LatencyTable:
        """The table of a record, which measures nothing: a prediction that needs more than the record raises LookupError.

        Args:
            data: As `to_dict` gives it.
            groups: Of the same model.
            feed: Of the same shapes.
            also: The same propagation solved for other modes.
        """
        fields = {field.name: data[field.name] for field in dataclasses.fields(Baseline)}
        nodes = tuple(
            NodeTime(**{**node, "inputs": tuple(node["inputs"]), "outputs": tuple(node["outputs"])})
            for node in data["nodes"]
        )
        probes = Probes(None, opset=groups.propagation.model.graph.opset_imports.get("", 17))
        probes.times.update(data["operators"])
        return cls(groups, feed, Baseline(**{**fields, "nodes": nodes}), probes, also=also)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _timed_part(self, part: Part) -> _Timed:
        spent = self.baseline.own(part.time)
        if not part.nodes:
            return _Timed(spent, None)
        owner, propagation = part.nodes[0], self._shapes.propagation
        products = [node for node in part.nodes if node in propagation.products]
        kernels = tuple(self._kernels[node] for node in products if node in self._kernels)
        if kernels and len(kernels) == len(products):
            return _Timed(spent, owner, kernels=kernels)
        terms: list[Term] = []
        for node in products:
            try:
                terms += terms_of(node, propagation, self._shapes.whole)
            except UnknownCost:
                continue
        if any(term.macs for term in terms):
            return _Timed(spent, owner, terms=tuple(terms))
        touched = {value: None for node in part.nodes for value in (*node.inputs, *node.outputs) if value is not None}
        values = [value for value in touched if propagation.varies(value)]
        narrower = tuple(value for value in values if propagation.known(value).bundles)
        return _Timed(spent, owner, values=narrower, elements=sum(self._shapes.elements(v, None) for v in values))

    def _ratio(self, one: _Timed, alive: Alive) -> float:
        """Time of a runtime node after a cut over that before."""
        if one.kernels:
            before = sum(self._known[kernel][kernel.whole] for kernel in one.kernels)
            return sum(self._known[kernel][kernel.sizes(alive)] for kernel in one.kernels) / before
        if one.terms:
            return sum(term.of(alive) for term in one.terms) / sum(term.macs for term in one.terms)
        lost = sum(self._shapes.elements(v, None) - self._shapes.elements(v, alive) for v in one.values)
        if not lost:
            return 1.0
        return 1.0 - lost / one.elements * (1.0 - min(self._idle / one.microseconds, 1.0))

    def _estimated(self, kernel: Kernel, sizes: Sizes) -> float:
        """Microseconds at sizes that were not measured: as much per unit of work as at those known that are nearest."""

        def work(sizes: Sizes) -> float:
            return sum(share * math.prod(corner) for corner, share in crossed(kernel.grid(sizes, self.baseline.block)))

        known = self._known[kernel]
        nearest = min(known, key=lambda other: sum(abs(math.log(a / b)) for a, b in zip(sizes, other, strict=True)))
        return known[nearest] * work(sizes) / work(nearest)

    def _corners(self, kernel: Kernel, sizes: Sizes) -> list[tuple[Operator, float]]:
        return [(kernel.at(corner), share) for corner, share in crossed(kernel.grid(sizes, self.baseline.block))]

    def _conversion(self, alive: Alive) -> float:
        """Microseconds of conversions between layouts: those of the profile in proportion, what is new by its elements."""
        cost = np.array([self.baseline.into_blocks, self.baseline.out_of_blocks, self.baseline.idle])
        before, after = float(cost @ self._converted), float(cost @ self._layouts.converted(alive))
        return self._conversions * after / before if before and self._conversions else max(after - before, 0.0)

    def _evenly(self, share: float) -> Alive:
        """Survivors when about a share of every family stays, at widths worth asking for."""
        groups = self._groups[0]
        kept = {}
        for family in groups.families:
            near = [width for width in self.levels(family) if width >= share * family.width]
            kept[family] = np.concatenate([family.members(cell)[: near[-1]] for cell in range(family.cell_count)])
        return groups.survivors(kept)
