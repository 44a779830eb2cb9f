"""The order in which atoms go when what stays takes over: block-OBS on everything that reads a family.

The cost of an atom is what its loss leaves of error in the outputs of its readers, each in units of its own output's energy, once the
atoms that stay have been fitted to make up for it; see `irc.calibration.block_removal`. A path gives order and cost for every width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.analysis.channels import ChannelGroups, Family
from irc.calibration.block_removal import Reader, removal_path
from irc.passes.pruning.candidate import Ranking
from irc.passes.pruning.repair.recurrent_readers import recurrent_readers
from irc.passes.pruning.repair.repairer import Repairer

Array = np.ndarray[Any, Any]


def removal_ranking(family: Family, groups: ChannelGroups, repairer: Repairer) -> Ranking | None:
    """Atoms of every cell from the last to go to the first; None where no weight reads the family."""
    readers = []
    for layer, group, blocks in repairer.layers.readers(family, groups):
        moments, weight = repairer.moments[layer], layer.weight.values
        if moments is None or not np.isfinite(weight).all():
            continue
        matrix = np.ascontiguousarray(layer.layer.matrices(weight)[group].T, np.float32)
        gram = moments.gram[group] if layer.adds_bias is not None else moments.second(group)
        if np.any(matrix) and np.any(gram):
            readers.append(Reader(matrix, gram, blocks))
    if repairer.layers.recurrent.all:
        readers += recurrent_readers(family, groups, repairer.layers.recurrent, repairer.moments.recurrent)
    if not readers:
        return None
    cells = np.asarray(family.cells)
    path = removal_path(readers, cells=cells)
    rounds = path.errors[:: family.cell_count]
    worth = np.diff(rounds)[::-1]
    order = [family.atoms[path.order[cells[path.order] == cell]][::-1] for cell in range(family.cell_count)]
    return Ranking.of(np.array(order), worth)
