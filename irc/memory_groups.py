"""Things in groups that fit a limit of memory together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def groups_within(items: Iterable[tuple[Item, int]], limit: int) -> list[list[Item]]:
    """Groups of neighbours whose sizes add up to a limit at most; what exceeds it alone is a group of its own.

    Args:
        items: Each with its size in bytes.
        limit: In bytes.

    Returns:
        The groups, in order; one empty group of nothing.
    """
    groups: list[list[Item]] = [[]]
    total = 0
    for item, size in items:
        if groups[-1] and total + size > limit:
            groups.append([])
            total = 0
        groups[-1].append(item)
        total += size
    return groups
