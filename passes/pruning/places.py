"""Families where they may be cut, or why they may not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family
from irc.pass_base import Context

if TYPE_CHECKING:
    from irc.passes.pruning.prune_channels import PruneChannels


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """A family where it may be cut.

    Attributes:
        id: Of its site; also what its width is remembered by.
        node: The first node that reads one of its initializers, in the model being rewritten.
        groups: The groups of a mode.
        family: The family in them.
        refused: Why it must not be cut, or None.
    """

    id: str
    node: ir.Node
    groups: ChannelGroups
    family: Family
    refused: str | None


def places_of(
    modes: Sequence[ChannelGroups], nodes: Mapping[ir.Node, ir.Node], options: PruneChannels, ctx: Context
) -> Iterator[Place]:
    """All families of one or two modes, in order; those that both have once.

    Args:
        modes: Solved groups.
        nodes: Of the model being rewritten, by those of the one that was analysed.
        options: The pass.
        ctx: The user's selection.
    """
    names: set[str] = set()
    for groups in modes:
        for family in groups.families:
            if groups is not modes[0] and _same_atoms(family, groups, modes[0]):
                continue  # no rows to speak of: the first mode has it
            name = family.name if family.name not in names else f"{family.name}:{groups.mode}"
            names.add(name)
            node = nodes.get(family.node, family.node)
            yield Place(name, node, groups, family, _why_left(family, node, name, options, ctx))


def _why_left(family: Family, node: ir.Node, name: str, options: PruneChannels, ctx: Context) -> str | None:
    if (reason := ctx.refuses(node, name)) is not None:
        return reason
    if family.statistics and not options.statistics:
        return f"cutting it changes a statistic: {family.statistics[0].text}; statistics=true cuts it nevertheless"
    if family.width <= options.minimum:
        return f"it is {family.width} wide, and the minimum is {options.minimum}"
    return None


def _same_atoms(family: Family, groups: ChannelGroups, other: ChannelGroups) -> bool:
    """Whether another mode has the same atoms."""
    labels = np.isin(groups.class_of, family.atoms)
    return bool((groups.class_of[labels] == other.class_of[labels]).all())
