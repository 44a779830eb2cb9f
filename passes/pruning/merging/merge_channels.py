"""Merge channels that do the same: one of them stays and what read the other reads it instead, by so much more.

    x_c ~ a x_k + b:     W[:, k] += a W[:, c],   bias += W[:, c] b,   and channel c goes with all that makes and reads it

    merge-channels                        what is alike to 1 % of its energy, in every family
    merge-channels{similarity=0.9}        what is alike to 10 %
    merge-channels{macs=0.8}              the most alike first, until a fifth of the multiply-accumulates are gone

With data, likeness is that of what each layer reads, and each layer that reads a channel has an a and a b of its own. Without data it is
that of the weights that make the channels, and finds duplicates: scaled ones behind Relu, negated ones where all is linear.

A site is a family, as for `prune-channels`: `rewrite` accepts it and `finish` cuts all accepted ones at once. A merge repairs by one
channel that stays; `prune-channels`, given data, uses all of them and loses less at equal cost. What speaks for merging is that a channel
only goes where another one is like it, and that it needs no data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import onnx_ir as ir

from irc.pass_base import Context, Contract, Pass, Remark, Site, Skip
from irc.passes.pruning.decided import figures
from irc.passes.pruning.merging.decision import Merging
from irc.passes.pruning.merging.merge_edit import write_merges
from irc.passes.pruning.places import Place
from irc.passes.pruning.proof import proved
from irc.passes.pruning.rounding import RoundTo, require_multiple

SIMILARITY = 0.99


@dataclasses.dataclass(frozen=True)
class MergeChannels(Pass):
    """Merges channels that do the same; the model's inputs and outputs keep their shapes.

    At most one of `similarity`, `ratio`, `macs` and `parameters` is given. Shares are of the model as it was before it was pruned first.

    Attributes:
        similarity: Least share of a channel's energy, in what layers make of it, that the other must predict (R^2), 0 to 1. 0.99
            unless a budget is given: what is lost of the outputs of a layer is then below a hundredth of what the merged channels are.
        ratio: Share of the channels of every family that goes, 0 to 1; widths are rounded up.
        macs: Share of the multiply-accumulates that stays, 0 to 1; no more do.
        parameters: Share of the parameters that stays, 0 to 1; no more do.
        likeness: What tells: "data", "weights", or "auto", data if there are any.
        scope: Where a budget takes from: the same share of every "family"; of all families what loses least energy per unit of the
            budget ("global"); or "measured", what moves the outputs least by trials of each family, where that competes with the other
            two on samples held out. "auto" is "measured" with data and "global" without.
        round_to: Channels are merged down to multiples of this; "target" asks the target what its kernels want, "int8" what
            they will once the model is quantized.
        minimum: Smallest width of a family.
        largest_cut: Largest share that goes of one family, 0 to 1.

    Source: Srinivas and Babu, Data-free Parameter Pruning, arXiv:1507.06149 (rows of like neurons added up); Kim et al., Neuron Merging,
    arXiv:2010.13160 (the scale of cosine neighbours behind ReLU absorbed by the next layer). With data it is the update of block-OBS
    for one survivor.
    """

    name: ClassVar[str] = "merge-channels"
    contract: ClassVar[Contract] = Contract.APPROXIMATE
    resizes: ClassVar[bool] = True

    similarity: float | None = None
    ratio: float | None = None
    macs: float | None = None
    parameters: float | None = None
    likeness: Literal["auto", "data", "weights"] = "auto"
    scope: Literal["auto", "family", "global", "measured"] = "auto"
    round_to: RoundTo = "target"
    minimum: int = 1
    largest_cut: float = 0.9

    def __post_init__(self) -> None:
        names = ("similarity", "ratio", "macs", "parameters")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            raise ValueError(f"takes at most one of {', '.join(names)}, and has {', '.join(given)}; write macs=0.8")
        for name, value in {**given, "largest_cut": self.largest_cut}.items():
            if not 0 < value < 1 and not (name == "similarity" and value == 1):
                raise ValueError(f"{name} is {value:g}; it must be above 0 and below 1")
        if self.ratio is not None and self.ratio > self.largest_cut:
            raise ValueError(f"ratio is {self.ratio:g} and largest_cut {self.largest_cut:g}; raise largest_cut")
        if self.minimum < 1:
            raise ValueError(f"minimum is {self.minimum}; it must be at least 1")
        require_multiple(self.round_to)

    @property
    def threshold(self) -> float | None:
        """The similarity asked for; None where a budget is."""
        budget = (self.ratio, self.macs, self.parameters)
        return self.similarity or (SIMILARITY if all(share is None for share in budget) else None)

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the families that lose channels, and why others do not.

        Raises:
            UsageError: If a budget cannot be met, or data are asked for that are not there.
        """
        yield from Merging(model, self, ctx).sites()

    def rewrite(self, site: Site, ctx: Context) -> Skip | Remark | None:
        """Accepts one family; `finish` makes the cut."""
        merging, place = _match(site)
        decision = merging.decision(place)
        left, unread = len(merging.kept(place)), int(decision["unread"])
        merged = place.family.width - left - unread
        positions = place.family.axes[0].positions
        unit = "channels" if positions == 1 else f"blocks of {positions} channels"
        dropped = f", {unread} dropped" if unread else ""
        lost = f"at most {float(decision['worst']):.1%} of a channel's energy lost"
        return Remark(f"{place.family.width} -> {left} {unit}, {merged} merged{dropped}, {lost}")

    def finish(self, sites: Sequence[Site], ctx: Context) -> Remark | None:
        """Merges and cuts all accepted families at once."""
        merging = _match(sites[0])[0]
        places = [_match(site)[1] for site in sites]
        alive, model = merging.alive(places), merging.model
        merges = [merge for place in places for merge in merging.merges(place, merging.decision(place))]
        proof: list[str] = []

        def prove() -> None:
            proof.append(proved(merging.propagation, merging.modes, alive, model, ctx))

        write_merges(model, merges, alive, merging.layers, proof=prove if ctx.prove else None)
        return Remark(", ".join([merging.record_cut(alive), *proof]))

    def site_errors(
        self, before: ir.Model, after: ir.Model, sites: Sequence[str], ctx: Context
    ) -> dict[str, float] | None:
        """The share of their output energy that the layers lose which read each family."""
        return figures(ctx.decisions, self.name, sites, "lost")


def _match(site: Site) -> tuple[Merging, Place]:
    merging, place = site.match
    return merging, place
