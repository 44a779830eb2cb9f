"""Connected components of labels, in a few vectorized sweeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irc.analysis.channels.bundles import Labels


def components(count: int, pairs: Sequence[tuple[Labels, Labels]]) -> Labels:
    """The component of every label, as the smallest label in it.

    Every sweep hooks the root of one end of each pair onto the smaller root of the other and then shortens all paths, until
    nothing changes.

    Args:
        count: Labels are 0 to count - 1.
        pairs: Arrays of labels that are connected at like positions.
    """
    root = np.arange(count, dtype=np.int64)
    if not pairs:
        return root
    left = np.concatenate([one for one, _other in pairs])
    right = np.concatenate([other for _one, other in pairs])
    while len(left):
        left, right = root[left], root[right]
        apart = left != right
        left, right = left[apart], right[apart]
        low, high = np.minimum(left, right), np.maximum(left, right)
        np.minimum.at(root, high, low)
        while True:
            above = root[root]
            if (above == root).all():
                break
            root = above
        left, right = high, low
    return root
