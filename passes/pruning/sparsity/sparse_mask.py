"""Which weights of a layer stay: the best of all of them, or N of every M consecutive inputs.

Weights are `[G, N, K]`: a row per output of a group. For a pattern the inputs of a convolution are reordered, tap by tap and channel by
channel, and every tap's channels are filled up to a multiple of M by inputs that do not exist, as an engine pads them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_PATTERN = re.compile(r"([1-9]\d*):([1-9]\d*)")


@dataclasses.dataclass(frozen=True)
class Pattern:
    """N of every M consecutive inputs stay.

    Attributes:
        kept: N, from 1 to M - 1.
        width: M.
    """

    kept: int
    width: int

    @classmethod
    def of(cls, text: str) -> Pattern:
        """The pattern that "2:4" spells.

        Raises:
            ValueError: If it is none.
        """
        found = _PATTERN.fullmatch(text)
        if found is None or int(found[1]) >= int(found[2]):
            raise ValueError(f"pattern is {text!r}; write N:M with 0 < N < M, as in 2:4")
        return cls(int(found[1]), int(found[2]))

    def holds(self, kept: Array) -> bool:
        """Whether no M consecutive inputs keep more than N.

        Args:
            kept: `[..., K]` bool, K a multiple of M.
        """
        return bool((kept.reshape(-1, self.width).sum(axis=1) <= self.kept).all())

    def best(self, scores: Array) -> Array:
        """What stays by scores, `[..., K]` bool; of equal ones the later.

        Args:
            scores: `[..., K]`, K a multiple of M.
        """
        groups = scores.reshape(-1, self.width)
        kept = np.ones(groups.shape, bool)
        np.put_along_axis(kept, np.argsort(groups, axis=1, kind="stable")[:, : self.width - self.kept], False, axis=1)
        return kept.reshape(scores.shape)


@dataclasses.dataclass(frozen=True)
class InputOrder:
    """The inputs of a layer in the order in which a pattern groups them.

    Attributes:
        columns: `[K']`, positions in the weight; K stands for an input that does not exist.
        inputs: K.
    """

    columns: Array
    inputs: int

    @classmethod
    def of(cls, inputs: int, taps: int = 1, pattern: Pattern | None = None) -> InputOrder:
        """The order for a pattern; as they stand without one.

        Args:
            inputs: K, channel by channel and within those tap by tap.
            taps: Elements of the kernel; 1 for a product.
            pattern: What groups them.
        """
        if pattern is None:
            return cls(np.arange(inputs), inputs)
        channels = inputs // taps
        padded = math.ceil(channels / pattern.width) * pattern.width
        columns = np.full((taps, padded), inputs)
        columns[:, :channels] = np.arange(inputs).reshape(channels, taps).T
        return cls(columns.reshape(-1), inputs)

    def ordered(self, array: Array) -> Array:
        """`[..., K]` to `[..., K']`, zero for what does not exist."""
        padding = [(0, 0)] * (array.ndim - 1) + [(0, 1)]
        return np.asarray(np.pad(array, padding)[..., self.columns])

    def restored(self, array: Array) -> Array:
        """`[..., K']` to `[..., K]`."""
        result = np.zeros((*array.shape[:-1], self.inputs), array.dtype)
        real = self.columns < self.inputs
        result[..., self.columns[real]] = array[..., real]
        return result


def best(scores: Array, zeros: int) -> Array:
    """What stays when a number of weights goes, those with the least scores; of equal ones the later stay.

    Args:
        scores: Any shape.
        zeros: How many go.

    Returns:
        bool, of the shape of the scores.
    """
    flat = scores.reshape(-1)
    kept = np.ones(flat.size, bool)
    if zeros <= 0:
        return kept.reshape(scores.shape)
    # The order of all of them is not needed: who is below the last one that goes, and the first of those equal to it.
    threshold = np.partition(flat, zeros - 1)[zeros - 1]
    kept[flat < threshold] = False
    equal = np.flatnonzero(flat == threshold)
    kept[equal[: zeros - int((~kept).sum())]] = False
    return kept.reshape(scores.shape)


def best_of_rows(scores: Array, zeros: int) -> Array:
    """What stays when every row loses as many, up to one.

    Args:
        scores: `[..., K]`.
        zeros: How many go of all.
    """
    rows = scores.reshape(-1, scores.shape[-1])
    bounds = zeros * np.arange(len(rows) + 1) // len(rows)
    ranks = np.argsort(np.argsort(rows, axis=1, kind="stable"), axis=1, kind="stable")
    return (ranks >= np.diff(bounds)[:, None]).reshape(scores.shape)
