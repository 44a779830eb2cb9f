"""Find the culprits among ordered rewrites with few trials, also those that fail only together.

`fails(S)` says whether the rewrites `S` together are unsound. Assuming that adding rewrites to an unsound set keeps it
unsound, bisection finds the smallest failing prefix; its last element belongs to a minimal failing set, whose other members
are found the same way, one bisection each. The set is removed, the rest is tried, and the search goes on behind the
prefix that is known to be sound: about log2(n) trials per culprit. This is delta debugging (Zeller and Hildebrandt 2002, IEEE TSE 28(2))
with the order of the rewrites used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

DEFAULT_LIMIT = 400


def find_culprits(
    count: int, fails: Callable[[Sequence[int]], bool], *, limit: int = DEFAULT_LIMIT
) -> list[int]:
    """The rewrites to undo so that the others together are sound.

    Args:
        count: Number of rewrites, numbered from 0 in the order they were made; all together they are known to fail.
        fails: Whether a set of rewrites, ascending, is unsound. Never asked about all of them or about none.
        limit: Give up after this many questions and return every rewrite.

    Returns:
        Culprits, ascending. Their removal was confirmed by `fails`, unless nothing remains.
    """
    asked = 0

    def unsound(indices: Sequence[int]) -> bool:
        nonlocal asked
        asked += 1
        if asked > limit:
            raise _Exhausted
        return fails(indices)

    remaining = list(range(count))
    culprits: list[int] = []
    sound = 0
    try:
        while True:
            found, sound = _failing_set(remaining, sound, unsound)
            culprits += found
            gone = set(found)
            sound -= sum(1 for i in remaining[:sound] if i in gone)
            remaining = [i for i in remaining if i not in gone]
            if not remaining or not unsound(remaining):
                return sorted(culprits)
    except _Exhausted:
        return list(range(count))


class _Exhausted(Exception):
    """More questions than the limit."""


def _failing_set(
    remaining: list[int], sound: int, unsound: Callable[[Sequence[int]], bool]
) -> tuple[list[int], int]:
    """One minimal failing set within `remaining`, which fails as a whole, and the length of the prefix known sound.

    Args:
        remaining: Candidates, ascending.
        sound: Length of a prefix of `remaining` that is known not to fail.
        unsound: The question.
    """
    prefix = _smallest(sound, len(remaining), lambda n: unsound(remaining[:n]))
    found = [remaining[prefix - 1]]
    pool = remaining[: prefix - 1]
    while pool and not unsound(sorted(found)):
        needed = _smallest(0, len(pool), lambda n: unsound(sorted([*pool[:n], *found])))
        found.append(pool[needed - 1])
        pool = pool[: needed - 1]
    return found, prefix - 1


def _smallest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest n in (low, high] for which `holds(n)`, given that it holds for `high` and not for `low`."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
