"""Another pipeline where the first came to little: dynamic int8 where ranges fixed beforehand cost too much.

A recipe may name a second choice. It is built only where more than half of what the first rewrote had to be taken back, for
accuracy or for speed, and it is taken only if it stays within the budget and is the faster of the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irc.build import Build
    from irc.built import Built
    from irc.recipe import Recipe

LEAST_SPEEDUP = 1.01
"""The second choice has to be faster than the first by this factor."""


def with_second_choice(build: Build, built: Built, again: Callable[[Recipe], Build]) -> tuple[Build, Built]:
    """The build to publish: the one given, or that of the recipe's second choice.

    Args:
        build: The first build.
        built: What it gave.
        again: Makes a build of another recipe of the same model, data and options.
    """
    recipe = build.recipe
    if build.plan is not None or not recipe.second_choice or built.taken_back <= built.approximate:
        return build, built
    other = again(dataclasses.replace(recipe, steps=recipe.second_choice, second_choice=()))
    found = other.run()
    if not found.approximate or found.missed or not _faster(found, built):
        return build, built
    found.notes.append(
        f"{built.taken_back} of {built.taken_back + built.approximate} rewrites of {_names(built)} had to be taken back; "
        f"{_names(found)} was built instead"
    )
    return other, found


def _faster(found: Built, built: Built) -> bool:
    if not built.approximate or built.missed:
        return True
    if found.latency is None or built.latency is None:
        return False
    return found.latency.speedup > LEAST_SPEEDUP * built.latency.speedup


def _names(built: Built) -> str:
    records = [record for record in built.ledger if record.contract == "approximate"]
    return " and ".join(record.name for record in records if record.rewritten or record.undone)
