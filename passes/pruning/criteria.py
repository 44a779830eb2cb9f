"""Criteria: how much every atom of a family is worth keeping.

A criterion is a function from channel groups to scores, one per atom of every family, larger is worth more. Scores are
compared within a family; a scope that compares families with each other normalizes them first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from irc.analysis.channels import ChannelGroups, Family
from irc.pass_base import Context
from irc.passes.pruning.magnitude import magnitudes

Array = np.ndarray[Any, Any]
Scores = Mapping[Family, Array]
Criterion = Callable[[ChannelGroups, Context], Scores]
"""Scores of all families of groups, each `[atoms]` in the order of `Family.atoms`, at least 0."""

CriterionName = Literal["group", "l1", "l2"]


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


CRITERIA: dict[CriterionName, Criterion] = {"group": group, "l1": l1, "l2": l2}
assert set(CRITERIA) == set(get_args(CriterionName))
