"""How many zeros each layer gets when the weights of all of them compete."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irc.passes.pruning.sparsity.sparse_mask import Array

_BINS = 1 << 16


def zeros_by_site(scores: Mapping[str, Array], share: float) -> dict[str, int]:
    """The zeros of each layer when those of least score go, in units of the root mean square of their layer.

    Scores are told apart to one part in 128, so that a histogram over their own bits is enough; those of the last bin go layer by layer.

    Args:
        scores: Of every weight, by layer; not negative.
        share: Of all of them together.
    """
    counts = {}
    for site, array in scores.items():
        scale = np.sqrt(np.square(array, dtype=np.float64).mean()) or 1.0
        # Floats that are not negative are in the order of their bits.
        bins = (array / scale).astype(np.float32).reshape(-1).view(np.uint32) >> 16
        counts[site] = np.bincount(bins, minlength=_BINS)
    total = sum(array.size for array in scores.values())
    wanted = round(share * total)
    below = np.concatenate([[0], np.cumsum(sum(counts.values()))])
    last = int(np.searchsorted(below, wanted, side="right")) - 1
    found = {site: int(count[:last].sum()) for site, count in counts.items()}
    left = wanted - sum(found.values())
    for site, count in counts.items():
        more = min(left, int(count[last])) if last < _BINS else 0
        found[site] += more
        left -= more
    return found
