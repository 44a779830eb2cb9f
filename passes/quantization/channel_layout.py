"""Which channel each element of a value belongs to, however the value was reshaped, transposed, split or joined.

A value of `[B, S, H * D]` has its channels along the last axis; as heads, `[B, H, S, D]`, along two. A layout says so by the axes along
which channels differ and, for each place on these, the number of the channel: -1 for what belongs to none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, Any]
_LARGEST = 1 << 22
"""A layout with more places is given up."""


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Where the channels of a value are.

    Attributes:
        axes: Axes along which channels differ, ascending, none negative.
        channels: int64, one dimension per axis: number of the channel, or -1.
    """

    axes: tuple[int, ...]
    channels: Array

    @classmethod
    def of(cls, axes: Sequence[int], channels: Array) -> Layout:
        """A layout in its shortest form: axes ascending, those left out along which nothing differs."""
        order = sorted(range(len(axes)), key=lambda i: axes[i])
        ascending, turned = [axes[i] for i in order], channels.transpose(order)
        for position in reversed(range(len(ascending))):
            first = turned.take([0], axis=position)
            if bool(np.all(turned == first)) and (len(ascending) > 1 or bool(np.all(first < 0))):
                turned = first.squeeze(position)
                del ascending[position]
        return cls(tuple(ascending), np.ascontiguousarray(turned))

    def same(self, other: Layout) -> bool:
        """Whether two layouts put the same channels in the same places."""
        return self.axes == other.axes and np.array_equal(self.channels, other.channels)

    @property
    def used(self) -> bool:
        """Whether any place belongs to a channel."""
        return bool(np.any(self.channels >= 0))

    def fits(self, value: ir.Value) -> bool:
        """Whether a value is known to have as many places along the axes."""
        shape = value.shape
        return (
            shape is not None
            and all(axis < len(shape) for axis in self.axes)
            and [shape[axis] for axis in self.axes] == list(self.channels.shape)
        )

    def moved(self, by: int) -> Layout | None:
        """The layout of an operand with so many axes more in front; None if it lacks one of the axes."""
        axes = tuple(axis + by for axis in self.axes)
        return Layout(axes, self.channels) if not axes or axes[0] >= 0 else None

    def transposed(self, order: Sequence[int]) -> Layout:
        """The layout behind a Transpose with `perm=order`."""
        return Layout.of([list(order).index(axis) for axis in self.axes], self.channels)

    def before_transpose(self, order: Sequence[int]) -> Layout:
        """The layout in front of a Transpose with `perm=order`."""
        return Layout.of([order[axis] for axis in self.axes], self.channels)

    def part(self, axis: int, start: int, length: int) -> Layout:
        """The layout of a stretch of one of the axes."""
        where = self.axes.index(axis)
        return Layout.of(self.axes, self.channels.take(range(start, start + length), axis=where))

    def inside(self, axis: int, start: int, total: int) -> Layout:
        """The layout of a longer value of which this is a stretch along one of the axes; the rest belongs to no channel."""
        where = self.axes.index(axis)
        shape = list(self.channels.shape)
        length, shape[where] = shape[where], total
        channels = np.full(shape, -1, np.int64)
        channels[(slice(None),) * where + (slice(start, start + length),)] = self.channels
        return Layout.of(self.axes, channels)

    def reshaped(self, old: Sequence[Any], new: Sequence[Any]) -> Layout | None:
        """The layout after a change of shape that keeps the order of the elements; None where it cannot be told.

        Args:
            old: Shape of the value: integers, and symbols that stand for equal sizes where they are equal.
            new: Its shape afterwards.
        """
        return self._along(_blocks_from_end(old, new), old, new) or self._along(_blocks_from_start(old, new), old, new)

    def _along(self, blocks: list[tuple[range, range]], old: Sequence[Any], new: Sequence[Any]) -> Layout | None:
        mine = [(a, b) for a, b in blocks if any(axis in a for axis in self.axes)]
        before = [axis for a, _ in mine for axis in a]
        after = [axis for _, b in mine for axis in b]
        if not set(self.axes) <= set(before) or any(not isinstance(old[axis], int) for axis in before):
            return None
        sizes = [old[axis] for axis in before]
        if np.prod(sizes, dtype=np.float64) > _LARGEST:
            return None
        narrow = [old[axis] if axis in self.axes else 1 for axis in before]
        places = np.broadcast_to(self.channels.reshape(narrow), sizes).reshape([new[axis] for axis in after])
        return Layout.of(after, places)

    def over(self, rank: int) -> Array:
        """The numbers of the channels as an array of some rank, 1 long where channels do not differ."""
        shape = [1] * rank
        for axis, size in zip(self.axes, self.channels.shape, strict=True):
            shape[axis] = size
        return self.channels.reshape(shape)


def factors(scales: Array, channels: Array) -> Array:
    """The scale of every place, 1 where it belongs to no channel, float32 of the shape of `channels`."""
    found = np.concatenate([scales.astype(np.float32), np.ones(1, np.float32)])
    return np.asarray(found[channels])


def _blocks_from_end(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[range, range]]:
    """The shortest runs of axes, from the last axis on, that hold the same elements before and after."""
    flipped = _blocks_from_start(list(reversed(old)), list(reversed(new)))
    m, n = len(old), len(new)
    return [(range(m - a.stop, m - a.start), range(n - b.stop, n - b.start)) for a, b in reversed(flipped)]


def _blocks_from_start(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[range, range]]:
    blocks: list[tuple[range, range]] = []
    i, j = 0, 0
    while i < len(old) and j < len(new):
        a, b = i + 1, j + 1
        if not (isinstance(old[i], int) and isinstance(new[j], int)):
            if isinstance(old[i], int) or isinstance(new[j], int) or old[i] != new[j] or old[i].value is None:
                break
        else:
            left, right = old[i], new[j]
            while left != right:
                grow_left = left < right
                if grow_left:
                    if a == len(old) or not isinstance(old[a], int):
                        return blocks
                    left, a = left * old[a], a + 1
                else:
                    if b == len(new) or not isinstance(new[b], int):
                        return blocks
                    right, b = right * new[b], b + 1
        blocks.append((range(i, a), range(j, b)))
        i, j = a, b
    return blocks
