"""What recurrent operators read of a family, for the order in which its atoms go: inputs, and the states of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from irc.analysis.channels import ChannelGroups, Family
from irc.calibration.block_removal import Reader
from irc.passes.pruning.repair.recurrent_layers import RecurrentLayers
from irc.passes.pruning.repair.recurrent_moments import RecurrentMoments
from irc.passes.pruning.repair.recurrent_update import gram_of


def recurrent_readers(
    family: Family, groups: ChannelGroups, layers: RecurrentLayers, moments: RecurrentMoments
) -> Iterator[Reader]:
    """Every product of a recurrent operator that reads a family, where its moments and weights are finite."""
    found = list(layers.readers(family, groups))
    if found:
        moments.gather([layer for layer, _direction, _product, _blocks in found])
    for layer, direction, product, blocks in found:
        known, matrix = moments[layer], layer.matrix(direction, product)
        if known is None or not np.isfinite(matrix).all():
            continue
        gram, unit = gram_of(layer, direction, product, known)
        weight = np.ascontiguousarray(matrix * unit, np.float32)
        if np.any(weight) and np.any(gram):
            yield Reader(weight, gram, blocks)
