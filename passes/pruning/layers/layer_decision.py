"""What goes of a model's residual branches, decided once for all of them from data, and remembered by branch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from irc.analysis.model_cost import cost
from irc.decisions import Decision
from irc.errors import UsageError
from irc.pass_base import Context
from irc.passes.pruning.decided import SiteDecisions, has_data
from irc.passes.pruning.layers.branch_costs import BranchCosts, Cost
from irc.passes.pruning.layers.layer_choice import NOTHING, Chosen, Demand, Unit, choose
from irc.passes.pruning.layers.repeated_layers import repeated_layers
from irc.passes.pruning.layers.residual_branches import Branch, NoBranch, residual_branches

if TYPE_CHECKING:
    from irc.passes.pruning.layers.prune_layers import PruneLayers

EPSILON = 1e-9


class LayerPruning(SiteDecisions):
    """One model under one set of options.

    A decision says "why" a branch stays, empty if it goes; "constant", what stays of it; "error" of the outputs when its unit goes
    alone, and "together" with all that goes.

    Args:
        model: The model to rewrite; unchanged.
        options: The pass.
        ctx: Data, decisions and selection.

    Attributes:
        found: All residual branches and other sums, in order.
        refused: Why branches must not go.
        units: What goes together.
        costs: Of the model as it is before anything is rewritten.
        before: Of everything.
        saved: What goes with each branch alone.
    """

    options: PruneLayers

    def __init__(self, model: ir.Model, options: PruneLayers, ctx: Context) -> None:
        super().__init__(model, options, ctx)
        nodes = cost(model)
        self.costs = BranchCosts(model, nodes)
        self.before = self.costs.without(())
        self.found = list(residual_branches(model, {node.node: node.macs for node in nodes.nodes}))
        self.refused: dict[Branch, str] = {}
        for branch in self._branches():
            reason = branch.refused or ctx.refuses(branch.add, branch.id)
            if reason is not None:
                self.refused[branch] = reason
        self.units = self._units()
        self.saved = {branch: self._saved_by(branch) for branch in self.open}

    def _saved_by(self, branch: Branch) -> Cost:
        left = self.costs.without([branch])
        return Cost(self.before.macs - left.macs, self.before.parameters - left.parameters)

    def _branches(self) -> list[Branch]:
        return [item for item in self.found if not isinstance(item, NoBranch)]

    def _units(self) -> list[Unit]:
        if self.options.unit == "branch":
            return [(branch,) for branch in self._branches() if branch not in self.refused]
        units = []
        for unit in repeated_layers([branch for branch in self._branches() if branch.refused is None]):
            staying = next((branch for branch in unit if branch in self.refused), None)
            if staying is None:
                units.append(unit)
                continue
            for branch in unit:
                self.refused.setdefault(branch, f"its layer stays, for {staying.id!r} does")
        return units

    # -- decisions ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def open(self) -> list[Branch]:
        """The branches that may go."""
        return [branch for unit in self.units for branch in unit]

    @property
    def _facts(self) -> str:
        return f"{','.join(self._sites)};{len(self.found)};{self.before}"

    @functools.cached_property
    def _decided(self) -> Mapping[str, Decision]:
        chosen = self._chosen()
        found: dict[str, Decision] = {}
        for branch in self.open:
            why = chosen.unfit.get(branch, "")
            if not why and branch not in chosen.constants:
                why = f"it stays: {self.asked_text} is met without it"
                if branch in chosen.alone:
                    why += f", and the output error would be {percent(chosen.alone[branch])} if it went alone"
            found[branch.id] = {
                "why": why,
                "constant": np.asarray(chosen.constants.get(branch, NOTHING)),
                "error": chosen.alone.get(branch, 0.0),
                "together": chosen.together,
            }
        return found

    def _chosen(self) -> Chosen:
        options, ctx = self.options, self._ctx
        if not has_data(ctx):
            raise UsageError(f"{options.name}: needs data; give --data")
        chosen = choose(
            self.model,
            self.units,
            self._demand(),
            self.costs,
            ctx,
            repair=options.repair == "mean",
            samples=options.samples,
            candidates=options.candidates,
        )
        if not chosen.met:
            raise UsageError(self._unreachable(self.costs.without(chosen.constants), chosen.units))
        return chosen

    def require_reachable(self) -> None:
        """Whether there is any branch to remove where a number or a budget asks for one.

        Raises:
            UsageError: If not.
        """
        demand = self._demand()
        if not self.units and not demand.met(0, 0, self.before):
            raise UsageError(self._unreachable(self.before, 0))

    # -- what is asked for --------------------------------------------------------------------------------------------

    @property
    def asked_text(self) -> str:
        """What was asked for, as it was spelled."""
        name, value = self.options.asked
        return f"{name}={value:g}"

    def left(self, cost: Cost) -> float:
        """The share of what the budget counts that is left of the original."""
        return self._counted(cost) / max(1, self._whole)

    def _counted(self, cost: Cost) -> int:
        return cost.parameters if self.options.parameters is not None else cost.macs

    @property
    def _whole(self) -> int:
        name = "parameters" if self.options.parameters is not None else "macs"
        return int(self.original.get(name, self._counted(self.before)))

    def _demand(self) -> Demand:
        name, value = self.options.asked
        if name == "count":
            return Demand(met=lambda gone, of, cost: gone >= value, saved=lambda before, after: 1)
        if name == "ratio":
            return Demand(met=lambda gone, of, cost: gone >= of * value - EPSILON, saved=lambda before, after: 1)
        limit = value * self._whole
        return Demand(
            met=lambda gone, of, cost: self._counted(cost) <= limit,
            saved=lambda before, after: self._counted(before) - self._counted(after),
        )

    def _unreachable(self, cost: Cost, gone: int) -> str:
        name, _ = self.options.asked
        least = f"{gone} can go" if name in ("count", "ratio") else f"{self.left(cost):.3g} is left"
        advice = "ask for less" if self.units else "there is no residual branch to remove"
        return f"{self.options.name}: {self.asked_text} cannot be reached, only {least}; {advice}"


def percent(error: float) -> str:
    """An output error in a user's words."""
    return f"{100 * error:.3g} %"
