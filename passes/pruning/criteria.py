"""Criteria: how much every atom of a family is worth keeping.

A criterion ranks the atoms of families. Most score each atom by itself, larger is worth more; block-OBS gives the order in which they go
when what stays makes up for those before. Worth is compared within a family; a scope that compares families with each other normalizes it
first, or measures what it comes to.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from irc.analysis.channels import ChannelGroups, Family
from irc.pass_base import Context
from irc.passes.pruning.activation_criteria import activation_scores
from irc.passes.pruning.candidate import Ranking
from irc.passes.pruning.magnitude import magnitudes
from irc.passes.pruning.removal_ranking import removal_ranking
from irc.passes.pruning.repair.repairer import Repairer
from irc.passes.pruning.weight_roles import scales_channels

Array = np.ndarray[Any, Any]
Scores = Mapping[Family, Array]
Criterion = Callable[[ChannelGroups, Context], Scores]
"""Scores of all families of groups, each `[atoms]` in the order of `Family.atoms`, at least 0."""

CriterionName = Literal["auto", "obs", "wanda", "flap", "group", "l1", "l2", "batch-norm", "random"]


def group(groups: ChannelGroups, ctx: Context) -> Scores:
    """Sum of the squares of all elements of an atom, in everything that makes and reads it.

    Source: Fang et al., DepGraph, arXiv:2301.12900, as in Torch-Pruning's `GroupMagnitudeImportance(p=2)`: squares are added, no
    root is drawn, biases do not count. That takes the mean over layers, which ranks alike.
    """
    return magnitudes(groups, power=2, produced_only=False)


def l1(groups: ChannelGroups, ctx: Context) -> Scores:
    """Sum of the absolute weights that make an atom.

    Source: Li et al., Pruning Filters for Efficient ConvNets, arXiv:1608.08710.
    """
    return magnitudes(groups, power=1, produced_only=True)


def l2(groups: ChannelGroups, ctx: Context) -> Scores:
    """Sum of the squares of the weights that make an atom.

    Source: Li et al., arXiv:1608.08710, section 4.4, which compares it with the absolute sum.
    """
    return magnitudes(groups, power=2, produced_only=True)


def batch_norm(groups: ChannelGroups, ctx: Context) -> Scores:
    """Sum of the absolute scales of the BatchNormalizations over an atom; families without one are ranked by "group".

    Source: Liu et al., Network Slimming, arXiv:1708.06519. It says little of networks that were not trained for sparse scales,
    and nothing once `fold-batch-norm` has folded them: run it before.
    """
    scales = magnitudes(groups, power=1, produced_only=False, counts=scales_channels)
    return {family: score for family, score in scales.items() if score.any()}


def random(groups: ChannelGroups, ctx: Context) -> Scores:
    """Random numbers, by the context's seed and the family's name: what any criterion has to beat."""
    return {
        family: np.random.default_rng([ctx.seed, zlib.crc32(family.name.encode())]).random(len(family.atoms))
        for family in groups.families
    }


SCORES: dict[str, Criterion] = {"group": group, "l1": l1, "l2": l2, "batch-norm": batch_norm, "random": random}
MEASURED = ("obs", "wanda", "flap")
"""Criteria that need data."""
assert {*SCORES, *MEASURED, "auto"} == set(get_args(CriterionName))


def rankings(
    name: str,
    groups: ChannelGroups,
    families: Iterable[Family],
    ctx: Context,
    repairer: Repairer | None,
    *,
    seeds: Mapping[Family, int],
) -> dict[Family, Ranking]:
    """Families with their atoms ranked; "group" ranks those that a criterion says nothing of.

    Args:
        name: Of the criterion, not "auto".
        groups: Solved groups.
        families: Of these groups.
        ctx: Seed and progress.
        repairer: Data, for the criteria that need it.
        seeds: Decide ties.

    Source: obs: Optimal BERT Surgeon, arXiv:2203.07259, ZipLM, arXiv:2302.04089; wanda: Sun et al., arXiv:2306.11695, summed over the
    weights that read an atom; flap: An et al., arXiv:2312.11983, equation 5, normalized by measurement instead of by layer.
    """
    families = list(families)
    found: dict[Family, Ranking] = {}
    scores: Scores = {}
    if name == "obs":
        assert repairer is not None
        read = [layer for family in families for layer, _group, _blocks in repairer.layers.readers(family, groups)]
        repairer.moments.gather(read)
        for number, family in enumerate(families):
            ctx.progress(number / len(families), f"ranking {family.name}")
            ranking = removal_ranking(family, groups, repairer)
            if ranking is not None:
                found[family] = ranking
    elif name in ("wanda", "flap"):
        assert repairer is not None
        scores = activation_scores(groups, repairer, "wanda" if name == "wanda" else "flap")
    else:
        scores = SCORES[name](groups, ctx)
    missing = [family for family in families if family not in found and family not in scores]
    rest = group(groups, ctx) if missing else {}
    for family in families:
        if family not in found:
            score = scores[family] if family in scores else rest[family]
            found[family] = Ranking.by_scores(family, score, seed=seeds[family])
    return found
