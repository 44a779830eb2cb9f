"""Two halves of the samples: choices are made on one, the result is accepted on the other.

The split goes by content alone: sorted by hash, samples alternate. File names, order and repeats do not matter, and
two equal samples are always in the same half.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Half = Literal["choice", "acceptance", "all"]


def split(keys: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The keys of the choice half and of the acceptance half.

    Args:
        keys: Content hashes of the samples, in any order, repeats allowed.

    Returns:
        Two disjoint sets whose sizes differ by at most one, except that a single sample is in both: there is no other
        to accept on.
    """
    ordered = sorted(set(keys))
    choice = frozenset(ordered[0::2])
    return choice, frozenset(ordered[1::2]) or choice
