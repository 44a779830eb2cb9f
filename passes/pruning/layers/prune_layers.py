"""Remove whole residual branches: `y = x + f(x)` becomes `y = x + c`, c being what f adds on average to every channel.

    prune-layers{count=4}             the four branches that the outputs miss least
    prune-layers{macs=0.7}            as many as it takes, by output error per multiply-accumulate saved
    prune-layers{ratio=0.25,unit=layer}   a quarter of the layers, attention and feed-forward network together

A site is a branch, under the name of the sum that it enters. Which ones go is found by trying: the model runs without each candidate, and
what its outputs lose decides; then again without the next. Branches are found by structure alone, so that blocks of
a ResNet, a MobileNet or a transformer, before or behind normalization, are all the same. A block whose shortcut is computed as well (a
projection) is none.

Constants are the means of the original, not of what is left: the sum of all of them puts a stream's mean right whichever branches
go. So each branch can be taken back alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irc.analysis.model_cost import cost
from irc.pass_base import Context, Contract, Pass, Remark, Site, Skip
from irc.passes.pruning.decided import figures
from irc.passes.pruning.layers.branch_costs import BranchCosts
from irc.passes.pruning.layers.branch_removal import put_constant, tidy
from irc.passes.pruning.layers.layer_decision import LayerPruning, percent
from irc.passes.pruning.layers.residual_branches import Branch, NoBranch


@dataclasses.dataclass(frozen=True)
class PruneLayers(Pass):
    """Removes the residual branches whose loss changes the model's outputs least; its inputs and outputs keep their shapes.

    Exactly one of `count`, `ratio`, `macs` and `parameters` is given. It needs data, unless a plan is replayed.

    Attributes:
        count: How many units go, at least 1.
        ratio: Share of the units that goes, above 0 and below 1; rounded up.
        macs: Share of the multiply-accumulates that stays, 0 to 1; no more do. Of the model as it was before it was pruned first.
        parameters: Share of the parameters that stays, likewise.
        unit: What goes at a time: a "branch", or a "layer", the branches that a sequence of layers repeats.
        repair: What stays of a branch: the "mean" of its channels over the samples, unless the outputs are no worse without; or "none".
        samples: At most so many samples give the means, and as many others the output errors.
        candidates: How many units are tried at each step, those that change least what they are added to.

    Source: the choice among few by output error refines Men et al., ShortGPT, arXiv:2403.03853, whose block influence says
    which few.
    """

    name: ClassVar[str] = "prune-layers"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    requires: ClassVar[tuple[str, ...]] = ("opset-13", "shapes-known")
    resizes: ClassVar[bool] = True

    count: int | None = None
    ratio: float | None = None
    macs: float | None = None
    parameters: float | None = None
    unit: Literal["branch", "layer"] = "branch"
    repair: Literal["mean", "none"] = "mean"
    samples: int = 64
    candidates: int = 8

    def __post_init__(self) -> None:
        names = ("count", "ratio", "macs", "parameters")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if len(given) != 1:
            what = ", ".join(given) or "none"
            raise ValueError(f"needs exactly one of count, ratio, macs and parameters, and has {what}; write macs=0.7")
        for name, value in given.items():
            if name != "count" and not 0 < value < 1:
                raise ValueError(f"{name} is {value:g}; it must be above 0 and below 1")
        for name in ("count", "samples", "candidates"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; it must be at least 1")

    @property
    def asked(self) -> tuple[str, float]:
        """The option that says how much goes."""
        for name in ("count", "ratio", "macs", "parameters"):
            if (value := getattr(self, name)) is not None:
                return name, float(value)
        raise AssertionError("__post_init__ asks for one")

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the branches that go, and why others and other sums stay.

        Raises:
            UsageError: If there are no data to choose by, or what is asked for cannot be reached.
        """
        pruning = LayerPruning(model, self, ctx)
        if pruning.repeated:
            yield Skip(None, "the model was pruned by these options before")
            return
        if not ctx.decisions.replaying:
            pruning.require_reachable()
        for item in pruning.found:
            if isinstance(item, NoBranch):
                yield Skip(item.add, item.reason)
            elif item in pruning.refused:
                yield Skip(item.add, pruning.refused[item], item.id)
            elif why := str(pruning.decision(item)["why"]):
                yield Skip(item.add, why, item.id)
            else:
                yield Site(item.add, (pruning, item), item.id)

    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Puts a constant in the place of one branch; `finish` removes what is not needed any more."""
        pruning, branch = _match(site)
        decision = pruning.decision(branch)
        saved = pruning.saved[branch]
        constant = np.asarray(decision["constant"])
        put_constant(branch, constant)
        what = "it" if self.unit == "branch" else "its layer"
        return Remark(
            f"{saved.macs:,} MACs and {saved.parameters:,} parameters less, "
            f"output error {percent(float(decision['error']))} when {what} goes alone"
            + (", its mean stays" if constant.size else "")
        )

    def finish(self, sites: Sequence[Site], ctx: Context) -> Remark | None:
        """Removes what nothing needs any more, and says what is left."""
        pruning = _match(sites[0])[0]
        branches = [_match(site)[1] for site in sites]
        before, together = pruning.before, float(pruning.decision(branches[0])["together"])
        tidy(pruning.model, branches)
        after = BranchCosts(pruning.model, cost(pruning.model)).without(())
        left = pruning.record(
            macs=(before.macs, after.macs), parameters=(before.parameters, after.parameters), widths={}
        )
        return Remark(f"{left}; output error of all that was chosen {percent(together)}")

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """The error of the model's outputs when each branch, or its layer, goes alone."""
        return figures(ctx.decisions, self.name, sites, "error")


def _match(site: Site) -> tuple[LayerPruning, Branch]:
    pruning, branch = site.match
    return pruning, branch
