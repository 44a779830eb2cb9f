"""Cut channels, heads and neurons, and repair what is left from unlabelled samples; to a share of every family, or to a budget.

    prune-channels{macs=0.5}          as many as it takes to halve the multiply-accumulates
    prune-channels{parameters=0.5}    or the parameters
    prune-channels{latency=0.6}       or to save two fifths of the time, by operators measured here
    prune-channels{loss=0.01}         as much time as 1 % of accuracy buys
    prune-channels{ratio=0.3}         3 of 10 channels of every family

A site is a family: channels with everything that makes and reads them, under the name of the first value that is made with them.
What goes is decided for the model as a whole and remembered per family. The cut itself is one edit: weights are shared
by families (the rows of one, the columns of another), and survivors are named by labels of the model as it was analysed,
which a first cut would make void. So `rewrite` accepts a family and `finish` cuts all accepted ones at once. Whatever
subset is accepted (selection, limits, bisection, the guard), it is a legal cut: less is gone than with all of them; repaired it is anew.

With data, channels go in the order that costs what reads them least once the rest makes up for it (`removal_ranking`), widths are chosen
by measured sensitivity (`choice`), and all weights behind the first cut are fitted to the original's values (`repair`). Without data
there is magnitude, which says little of what a channel does, and no repair: exact where nothing is lost, a baseline elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import onnx_ir as ir

from irc.channel_surgery import cut
from irc.errors import UsageError
from irc.pass_base import Context, Contract, Pass, Remark, Site, Skip
from irc.passes.pruning.allocation import Scope
from irc.passes.pruning.criteria import CriterionName
from irc.passes.pruning.decided import figures
from irc.passes.pruning.decision import OF_COURSE, Pruning
from irc.passes.pruning.places import Place
from irc.passes.pruning.proof import proved
from irc.passes.pruning.repair.repairer import RepairName, apply_weights
from irc.passes.pruning.rounding import RoundTo, require_multiple

MAX_LISTED = 6


@dataclasses.dataclass(frozen=True)
class PruneChannels(Pass):
    """Cuts the channels, heads and neurons of least weight out of the model; its inputs and outputs keep their shapes.

    Exactly one of `ratio`, `macs`, `parameters`, `latency` and `loss` is given. Shares are of the model before it was pruned first.

    Attributes:
        ratio: Share of the atoms of every family that goes, 0 to 1; widths are rounded up.
        macs: Share of the multiply-accumulates that stays, 0 to 1; no more do.
        parameters: Share of the parameters that stays, 0 to 1; no more do.
        latency: Share of the time of one inference that stays, 0 to 1, by times of single operators measured here.
        loss: Relative loss of accuracy that is allowed, 0 to 1, as the outputs on samples held out let expect it: the fastest model
            that keeps within it.
        criterion: What an atom is worth: "obs", the error left in what reads it once the rest takes over; "wanda" and "flap",
            the weights that read it times the size or the spread of what they read; "group", the squares of all weights that
            make and read it; "l1" and "l2", the absolute values and the squares of those that make it; "batch-norm", the scales
            of BatchNormalization; "random". "auto" is "obs" with data and "group" without.
        scope: What is compared: atoms of a "family", so that all lose the same share; of all families ("global"), in units of
            their family's mean; of families of like structure ("isomorphic"); or, for a budget, families by what cutting each
            alone does to the outputs ("measured"), which competes with "family". "auto" is "measured" with data, else "family".
        repair: What makes up for the loss, from data: "update", the weights that read what is cut, fitted to the model as it
            was; "least-squares", thereafter every layer fitted in turn to what the original gives on the same samples;
            "statistics", only means and standard deviations fitted; "auto", whichever is best on samples held out; or "none".
        mode: What is cut of heads and groups: whole ones ("rows"), as many members of each ("columns"), or "both".
        statistics: Whether families are cut that a LayerNormalization or a mean runs over, such as a transformer's residual
            stream: what survives is then normalized differently.
        round_to: Channels are cut to multiples of this; "target" asks the target what its kernels want, "int8" what
            they will once the model is quantized.
        minimum: Smallest width of a family.
        largest_cut: Largest share that goes of one family, 0 to 1.
        allow_output: Outputs of the model that may get narrower, such as embeddings.
    """

    name: ClassVar[str] = "prune-channels"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    resizes: ClassVar[bool] = True

    ratio: float | None = None
    macs: float | None = None
    parameters: float | None = None
    latency: float | None = None
    loss: float | None = None
    criterion: CriterionName = "auto"
    scope: Scope = "auto"
    repair: RepairName = "auto"
    mode: Literal["rows", "columns", "both"] = "rows"
    statistics: bool = False
    round_to: RoundTo = "target"
    minimum: int = 1
    largest_cut: float = 0.9
    allow_output: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = {
            k: v for k in ("ratio", "macs", "parameters", "latency", "loss") if (v := getattr(self, k)) is not None
        }
        if len(given) != 1:
            what = ", ".join(given) or "none"
            raise ValueError(
                f"needs exactly one of ratio, macs, parameters, latency and loss, and has {what}; write macs=0.5"
            )
        for name, value in {**given, "largest_cut": self.largest_cut}.items():
            if not 0 < value < 1:
                raise ValueError(f"{name} is {value:g}; it must be above 0 and below 1")
        if self.ratio is not None and self.ratio > self.largest_cut:
            raise ValueError(f"ratio is {self.ratio:g} and largest_cut {self.largest_cut:g}; raise largest_cut")
        if self.minimum < 1:
            raise ValueError(f"minimum is {self.minimum}; it must be at least 1")
        require_multiple(self.round_to)

    @property
    def narrows(self) -> tuple[str, ...]:
        """The outputs that are allowed to."""
        return self.allow_output

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the families that lose something, and why others and pinned axes do not.

        Raises:
            UsageError: If a budget cannot be met, or `allow_output` names no output.
        """
        known = [value.name for value in model.graph.outputs]
        for name in self.allow_output:
            if name not in known:
                raise UsageError(
                    f"{self.name}: allow_output={name} is no output; there are {', '.join(map(str, known))}"
                )
        pruning = Pruning(model, self, ctx)
        yield from pruning.sites()
        if not pruning.repeated:
            yield from _pinned(pruning)

    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Accepts one family; `finish` makes the cut."""
        pruning, place = _match(site)
        family = place.family
        left = len(pruning.kept(place)) // family.cell_count
        positions = family.axes[0].positions
        unit = "channels" if positions == 1 else f"blocks of {positions} channels"
        each = f" in each of {family.cell_count} rows" if family.cell_count > 1 else ""
        decision = pruning.decision(place)
        loss = float(decision["loss"])
        return Remark(f"{family.width} -> {left} {unit}{each}, {loss:.1%} of its {decision['criterion']} score")

    def finish(self, sites: Sequence[Site], ctx: Context) -> Remark | None:
        """Cuts all accepted families at once."""
        pruning = _match(sites[0])[0]
        places = [_match(site)[1] for site in sites]
        alive, model = pruning.alive(places), pruning.model
        repair = pruning.repair(alive)
        cut(model, pruning.propagation, alive)
        proof = proved(pruning.propagation, pruning.modes, alive, model, ctx) if ctx.prove else None
        apply_weights(model, pruning.layers, repair)
        lines = (pruning.record_cut(alive), str(repair["remark"]), pruning.selection(alive), proof)
        return Remark("\n".join(line for line in lines if line))

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """The share of its score that each family lost: not an error of outputs, but the same order of magnitude and cheap."""
        return figures(ctx.decisions, self.name, sites, "loss")


def _match(site: Site) -> tuple[Pruning, Place]:
    pruning, place = site.match
    return pruning, place


def _pinned(pruning: Pruning) -> Iterator[Skip]:
    """Axes that no mode in question cuts, gathered by reason."""
    first = pruning.modes[0]
    found: dict[str, list[str]] = {}
    nodes: dict[str, ir.Node] = {}
    texts: dict[str, str] = {}
    for pin in first.pinned:
        key = pin.reason.kind if pin.reason.kind in OF_COURSE else pin.reason.text
        axis = pin.slot.axis_of[pin.slot.bundles[pin.bundle].axes[0]]
        part = "" if pin.pinned == pin.size else f" ({pin.pinned} of {pin.size})"
        found.setdefault(key, []).append(f"{pin.slot.name}[{axis}]{part}")
        texts.setdefault(key, pin.reason.text)
        nodes.setdefault(key, pruning.reader(pin.slot))
    for key, axes in found.items():
        more = f" and {len(axes) - MAX_LISTED} more" if len(axes) > MAX_LISTED else ""
        yield Skip(nodes[key], f"pinned, {texts[key]}: {', '.join(axes[:MAX_LISTED])}{more}", axes[0].split(" (")[0])
