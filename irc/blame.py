"""Find the culprits among ordered rewrites with few trials, also those that fail only together.

`fails(S)` says whether the rewrites `S` together are unsound. Assuming that adding rewrites to an unsound set keeps it
unsound, bisection finds the smallest failing prefix; its last element belongs to a minimal failing set, whose other
members are found the same way, one bisection each. The set is removed, the rest is tried, and the search goes on behind
the prefix that is known to be sound: about log2(n) trials per culprit. This is delta debugging (Zeller and Hildebrandt
2002, IEEE TSE 28(2)) with the order of the rewrites used.

Where the assumption does not hold the search still ends, and its answer is one whose soundness was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

DEFAULT_LIMIT = 400


def find_culprits(count: int, fails: Callable[[Sequence[int]], bool], *, limit: int | None = None) -> list[int]:
    """The rewrites to undo so that the others together are sound.

    Args:
        count: Number of rewrites, numbered from 0 in the order they were made; all together they are known to fail.
        fails: Whether a set of rewrites, ascending, is unsound. Never asked about all of them, about none, or twice
            about the same set.
        limit: After this many questions everything behind the longest prefix known to be sound counts as a culprit
            (or everything, if even that prefix fails); None means 400. At least 1.

    Returns:
        Culprits, ascending. What remains was confirmed by `fails`, unless nothing remains.
    """
    questions = _Questions(fails, DEFAULT_LIMIT if limit is None else limit)
    remaining = list(range(count))
    culprits: list[int] = []
    sound = 0
    try:
        while remaining:
            prefix = _smallest(sound, len(remaining), lambda n: questions.unsound(remaining[:n]))  # noqa: B023
            sound = prefix - 1
            found = _complete(remaining[sound], remaining[:sound], questions)
            culprits += found
            sound -= len(found) - 1
            remaining = [i for i in remaining if i not in found]
            if remaining and not questions.unsound(remaining):
                break
    except _Exhausted:
        kept = remaining[:sound]
        if not kept or questions.last(kept):
            return list(range(count))
        return sorted(set(range(count)).difference(kept))
    return sorted(culprits)


class _Exhausted(Exception):
    """No more questions but the last."""


class _Questions:
    """Asks each question once, and keeps one in reserve for the end."""

    def __init__(self, fails: Callable[[Sequence[int]], bool], limit: int) -> None:
        self._fails, self._left = fails, limit - 1
        self._answers: dict[tuple[int, ...], bool] = {}

    def unsound(self, indices: Sequence[int]) -> bool:
        key = tuple(indices)
        if key not in self._answers:
            if self._left <= 0:
                raise _Exhausted
            self._left -= 1
            self._answers[key] = self._fails(list(indices))
        return self._answers[key]

    def last(self, indices: Sequence[int]) -> bool:
        self._left += 1
        return self.unsound(indices)


def _complete(last: int, pool: Sequence[int], questions: _Questions) -> list[int]:
    """The members of a minimal failing set of which `last` is one and the others are among `pool`."""
    found = [last]
    while pool and not questions.unsound(found):
        needed = _smallest(0, len(pool), lambda n: questions.unsound([*pool[:n], *found]))  # noqa: B023
        found.insert(0, pool[needed - 1])
        pool = pool[: needed - 1]
    return found


def _smallest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest n in (low, high] for which `holds(n)`, given that it holds for `high` and not for `low`."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
