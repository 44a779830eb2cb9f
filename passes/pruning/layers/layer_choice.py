"""Which residual branches go: one after another, each time what the model's outputs lose least by, measured again every time.

The error is of the model's outputs against the original's, on samples that no mean came from, with everything gone that was chosen
before. Where multiply-accumulates or parameters are the budget, what counts is the error that is added per one saved.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.judge.model_outputs import ModelOutputs
from irc.pass_base import Context
from irc.passes.pruning.layers.branch_costs import BranchCosts, Cost
from irc.passes.pruning.layers.branch_facts import SampleHalves, branch_effects, channel_means
from irc.passes.pruning.layers.branch_gates import BranchGates, Constants, Gated
from irc.passes.pruning.layers.residual_branches import Branch
from irc.runner import Opened, Runner
from irc.sensitivity import LARGEST_ERROR

Array = np.ndarray[Any, Any]
Unit = tuple[Branch, ...]
"""Branches that go together."""
NOTHING = np.zeros(0)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What goes.

    Attributes:
        constants: What is put in the place of every branch that goes, float64; empty for nothing. In the order of the choice.
        alone: Output error when the unit of a branch goes alone, for every branch that was tried alone.
        together: Output error with everything gone.
        units: How many units go.
        unfit: Branches that data show to be none, with the reason.
        met: Whether that is enough.
    """

    constants: dict[Branch, Array]
    alone: dict[Branch, float]
    together: float
    units: int
    unfit: dict[Branch, str]
    met: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demand:
    """What is asked for.

    Attributes:
        met: Whether what is left after some units went, of how many, is little enough.
        saved: What a step from one cost to another saves of what the budget counts; 1 where units are counted.
    """

    met: Callable[[int, int, Cost], bool]
    saved: Callable[[Cost, Cost], int]


def choose(
    model: ir.Model,
    units: Sequence[Unit],
    demand: Demand,
    costs: BranchCosts,
    ctx: Context,
    *,
    repair: bool,
    samples: int,
    candidates: int,
) -> Chosen:
    """Takes units away until a demand is met, or nothing is left to take.

    Args:
        model: The original; unchanged.
        units: What may go.
        demand: What is asked for.
        costs: Of the model.
        ctx: Data and runner.
        repair: Whether means stay.
        samples: How many of either half are run.
        candidates: How many units are tried per step, those of least block influence.

    Raises:
        RunnerError: If the model does not run.
    """
    assert isinstance(ctx.runner, Runner)
    halves = SampleHalves.of(ctx.data, samples)
    branches = list(dict.fromkeys(branch for unit in units for branch in unit))
    effects = branch_effects(model, branches, halves.fit, ctx)
    other = "on some sample its shortcut {!r} has another shape than the sum"
    unfit = {b: other.format(b.shortcut.name) for b in branches if b in effects.unequal}
    means = channel_means(model, [b for b in branches if b not in unfit], halves.fit, ctx) if repair else {}
    fit = [unit for unit in units if not any(branch in unfit for branch in unit)]
    gates = BranchGates(model, [b for b in branches if b not in unfit], {b: mean.shape for b, mean in means.items()})
    with ctx.runner.open(gates.model) as opened:
        errors = _Errors(model, opened, gates, halves)
        search = _Search(fit, demand, costs, errors, means, effects.influence, candidates, ctx)
        met = search.run()
        alone = {branch: search.alone[unit] for unit in search.alone for branch in unit}
        return Chosen(search.gone, alone, errors.of(search.gone), search.taken, unfit, met)


class _Errors:
    """Output errors of one model with some branches gone, each measured once."""

    def __init__(self, model: ir.Model, opened: Opened, gates: BranchGates, halves: SampleHalves) -> None:
        self._opened, self._gates = opened, gates
        original = Gated(opened, gates, {})
        self._outputs = ModelOutputs(model, original, halves.held, limit=len(halves.held))
        self._known: dict[frozenset[tuple[Branch, bool]], float] = {}

    def of(self, gone: Constants) -> float:
        """Of the worst output; 0 where nothing is gone."""
        if not gone:
            return 0.0
        key = frozenset((branch, bool(constant.size)) for branch, constant in gone.items())
        if key not in self._known:
            error = self._outputs.error(Gated(self._opened, self._gates, gone)) or 0.0
            self._known[key] = min(error, LARGEST_ERROR) if math.isfinite(error) else LARGEST_ERROR
        return self._known[key]


class _Search:
    def __init__(
        self,
        units: Sequence[Unit],
        demand: Demand,
        costs: BranchCosts,
        errors: _Errors,
        means: Mapping[Branch, Array],
        influence: Mapping[Branch, float],
        candidates: int,
        ctx: Context,
    ) -> None:
        self._units, self._demand, self._costs, self._errors = units, demand, costs, errors
        self._means, self._influence, self._tried, self._ctx = means, influence, candidates, ctx
        self.gone: dict[Branch, Array] = {}
        self.alone: dict[Unit, float] = {}
        self._taken: list[Unit] = []

    def run(self) -> bool:
        """Takes units until the demand is met, and gives back what it is met without; whether it is."""
        while not self._met(self.gone):
            self._ctx.progress(0.5, f"choosing layers, {len(self._taken)} gone")
            best = self._best()
            if best is None:
                return False
            self._taken.append(best)
            self.gone = self._without_needless_means(self._with(best), best)
        self._give_back()
        for unit in self._taken:
            if unit not in self.alone:
                self.alone[unit] = self._errors.of({branch: self.gone[branch] for branch in unit})
        return True

    @property
    def taken(self) -> int:
        """How many units are gone."""
        return len(self._taken)

    def _with(self, unit: Unit) -> dict[Branch, Array]:
        return {**self.gone, **{branch: self._means.get(branch, NOTHING) for branch in unit}}

    def _met(self, gone: Mapping[Branch, Array]) -> bool:
        units = sum(all(branch in gone for branch in unit) for unit in self._taken)
        return self._demand.met(units, len(self._units), self._left(gone))

    def _left(self, gone: Mapping[Branch, Array]) -> Cost:
        """What is left, the means that stay among the parameters."""
        left = self._costs.without(gone)
        return Cost(left.macs, left.parameters + sum(constant.size for constant in gone.values()))

    def _best(self) -> Unit | None:
        """The unit that adds least error for what it saves, among those that hardly change what they are added to."""
        now, before = self._errors.of(self.gone), self._left(self.gone)
        saved: dict[Unit, int] = {}
        for unit in self._units:
            if not any(branch in self.gone or self._went_with_another(branch) for branch in unit):
                saved[unit] = self._demand.saved(before, self._left(self._with(unit)))
        worth = [unit for unit, amount in saved.items() if amount > 0]
        worth.sort(key=lambda unit: sum(self._influence[branch] for branch in unit) / saved[unit])
        best: tuple[float, Unit] | None = None
        for unit in worth[: self._tried]:
            error = self._errors.of(self._with(unit))
            if not self.gone:
                self.alone[unit] = error
            added = error - now
            price = added / saved[unit] if added > 0 else added * saved[unit]
            if best is None or price < best[0]:
                best = price, unit
        return best[1] if best is not None else None

    def _went_with_another(self, branch: Branch) -> bool:
        return any(branch.add in other.inner for other in self.gone)

    def _without_needless_means(self, gone: dict[Branch, Array], unit: Unit) -> dict[Branch, Array]:
        """Leaves the means of a unit out where the outputs are no worse without."""
        bare = {**gone, **dict.fromkeys(unit, NOTHING)}
        needless = any(gone[b].size for b in unit) and self._errors.of(bare) <= self._errors.of(gone)
        return bare if needless else gone

    def _give_back(self) -> None:
        """Units without which the demand is met as well come back, that of the largest gain first."""
        while True:
            spared: list[tuple[float, Unit]] = []
            for unit in self._taken[:-1]:
                rest = {branch: c for branch, c in self.gone.items() if branch not in unit}
                if self._met(rest):
                    spared.append((self._errors.of(rest), unit))
            if not spared:
                return
            _error, unit = min(spared, key=lambda item: item[0])
            self._taken.remove(unit)
            self.gone = {branch: c for branch, c in self.gone.items() if branch not in unit}
