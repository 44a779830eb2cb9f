"""The permutation oracle: the same model with atoms in other places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Family
from irc.channel_oracles.correspondence import correspondence
from irc.channel_surgery.layout import permuted as relaid
from irc.channel_surgery.slot_arrays import replace_slots
from irc.ir import snapshot


def permuted(groups: ChannelGroups, *, seed: int = 0, families: Sequence[Family] | None = None) -> tuple[ir.Model, int]:
    """A model whose outputs must equal those of the analysed one, and how many atoms changed places in it.

    Args:
        groups: Solved groups.
        seed: Of the random order.
        families: Families to permute, all by default.
    """
    target, _moved = correspondence(groups, np.random.default_rng(seed))
    chosen = groups.families if families is None else families
    moving = np.zeros(len(target), dtype=bool)
    for family in chosen:
        moving[family.atoms] = True
    target = np.where(moving[groups.class_of], target, np.arange(len(target)))
    moved = int((target != np.arange(len(target)))[np.concatenate([f.atoms for f in chosen])].sum()) if chosen else 0
    propagation = groups.propagation
    model = snapshot(propagation.model)
    nodes = list(zip(model.graph, propagation.model.graph, strict=True))
    replace_slots(model, propagation, nodes, lambda slot, array: relaid(slot, array, target))
    return model, moved
