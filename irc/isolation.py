"""Find the rewrites that broke a model, by bisection over the rewrites of a stretch in the order they were made.

A trial rebuilds the model from the start of the stretch with only some of the rewrites allowed, and with the earlier
rewrites of the same sites, without which they are not reached. Because rewrites are
ordered pass by pass, bisecting them bisects the passes first and the sites of the pass at fault then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from irc.application import SiteKey
from irc.blame import find_culprits
from irc.errors import PassFailed

Trial = TypeVar("Trial")


@dataclasses.dataclass(frozen=True)
class Isolation(Generic[Trial]):
    """The outcome of a search for culprits.

    Attributes:
        trial: What `rebuild` made of every rewrite but the culprits.
        undone: The culprits, each with what was wrong.
    """

    trial: Trial
    undone: dict[SiteKey, str]


def isolate(
    keys: Sequence[SiteKey],
    reason: str,
    *,
    rebuild: Callable[[Sequence[SiteKey]], Trial],
    violation: Callable[[Trial, Sequence[SiteKey]], str | None],
) -> Isolation[Trial]:
    """Finds which of the rewrites must be undone so that the rest is sound.

    Args:
        keys: All rewrites of the stretch, in order; together they are known to be unsound.
        reason: What was wrong with all of them together.
        rebuild: The model with only the given rewrites, in whatever form `violation` takes it.
        violation: What is wrong with a model after the given rewrites, or None.

    Raises:
        PassFailed: If a pass cannot even run with only the sound rewrites.
    """
    messages: dict[int, str] = {}
    last: tuple[tuple[int, ...], Trial] | None = None

    def fails(indices: Sequence[int]) -> bool:
        nonlocal last
        allowed = _reachable([keys[i] for i in indices])
        try:
            trial = rebuild(allowed)
        except PassFailed as failure:
            found: str | None = str(failure)
        else:
            found = violation(trial, allowed)
            if found is None:
                last = (tuple(indices), trial)
        if found is not None and indices:
            messages[max(indices)] = found
        return found is not None

    culprits = sorted(find_culprits(len(keys), fails))
    kept = tuple(i for i in range(len(keys)) if i not in set(culprits))
    sound = last[1] if last is not None and last[0] == kept else rebuild([keys[i] for i in kept])
    return Isolation(sound, {keys[i]: f"verification failed: {messages.get(i, reason)}" for i in culprits})


def _reachable(keys: Sequence[SiteKey]) -> list[SiteKey]:
    """The keys, each after the earlier rewrites of its site."""
    earlier = (dataclasses.replace(key, occurrence=n) for key in keys for n in range(key.occurrence + 1))
    return list(dict.fromkeys(earlier))
