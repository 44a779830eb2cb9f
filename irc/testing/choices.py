"""Where a random graph takes its decisions from: a seeded generator, or hypothesis, which can then shrink the graph."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Choices(Protocol):
    """A source of decisions; the first of the options is the simplest."""

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""


class SeededChoices:
    """Decisions of `random.Random(seed)`.

    Args:
        seed: Equal seeds decide equally.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self._random.randrange(len(options))]

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return self._random.randint(low, high)


class DrawnChoices:
    """Decisions drawn from hypothesis.

    Args:
        draw: The function a hypothesis composite is given.
    """

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self._draw = draw

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        from hypothesis import strategies

        return int(self._draw(strategies.integers(low, high)))
