"""Scores from what flows through the channels: their spread and size over the data, times the weights that read them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from irc.analysis.channels import ChannelGroups, Family
from irc.passes.pruning.repair.repairer import Repairer

Array = np.ndarray[Any, Any]


def activation_scores(groups: ChannelGroups, repairer: Repairer, kind: Literal["wanda", "flap"]) -> dict[Family, Array]:
    """Scores of the families that a weight reads, one per atom.

        wanda:  sum |W[:, c]| sqrt(E[x_c^2])            flap:  sum W[:, c]^2 Var[x_c]

    summed over the columns c of an atom in all its readers.

    Args:
        groups: Solved groups.
        repairer: Layers of the model and moments of what they read.
        kind: Which.
    """
    found: dict[Family, Array] = {}
    readers = {family: repairer.layers.readers(family, groups) for family in groups.families}
    repairer.moments.gather([layer for mine in readers.values() for layer, _group, _blocks in mine])
    for family, mine in readers.items():
        score = np.zeros(len(family.atoms))
        for layer, group, blocks in mine:
            moments, weight = repairer.moments[layer], layer.weight.values
            if moments is None:
                continue
            matrix = np.abs(layer.layer.matrices(weight)[group].astype(np.float64))
            variance = np.maximum(np.diagonal(moments.gram[group]).astype(np.float64), 0.0)
            if kind == "flap":
                columns = np.square(matrix).sum(axis=1) * variance
            else:
                columns = matrix.sum(axis=1) * np.sqrt(variance + np.square(moments.mean[group]))
            read = blocks >= 0
            np.add.at(score, blocks[read], columns[read])
        if mine and score.any():
            found[family] = np.where(np.isfinite(score), score, np.inf)
    return found
