"""Where times are measured and what lies between: grids of widths, exact at steps and linear where nothing steps.

A point of a grid is a width with its share; the shares of a width add up to 1. Grids have a bounded number of points per
octave, so that a search among hundreds of widths measures dozens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

Point = tuple[int, float]
_SMALL = 16
"""Below it, every width is measured as it is; the smallest step above it."""
ALIGNMENT = 4
"""Channels of a convolution that is to be run on blocks are a multiple of it; ONNX Runtime 1.31, `nchwc_transformer.cc`."""


def linear(size: int, full: int, *, finest: int = _SMALL) -> list[Point]:
    """Four points per octave, and the full width.

    Args:
        size: A width.
        full: The width before any cut.
        finest: The smallest step, a power of two.
    """
    if size < _SMALL or size == full:
        return [(size, 1.0)]
    step = max(finest, 1 << (size.bit_length() - 3))
    low = size // step * step
    return _between(size, low, low + step if size > full else min(low + step, full))


def odd(size: int) -> list[Point]:
    """The same with points that are no multiple of anything and above 16, for kernels that run where widths are like that.

    Args:
        size: A width.
    """
    if size <= _SMALL + 1:
        return [(size, 1.0)]
    step = max(_SMALL, 1 << ((size + 1).bit_length() - 3))
    low = (size + 1) // step * step - 1
    return _between(size, max(low, _SMALL + 1), low + step)


def stairs(size: int, block: int, *, finest: int = 8) -> list[Point]:
    """Multiples of a block, to which widths are rounded up: all of the first, then as many per octave.

    Args:
        size: A width.
        block: Width of a step.
        finest: Steps up to which every one is measured, a power of two.
    """
    steps = -(-size // block)
    stride = max(1, (1 << (steps.bit_length() - 1)) * 2 // finest)
    low = steps // stride * stride
    return [(count * block, share) for count, share in _between(steps, low, low + stride)]


def crossed(axes: Sequence[Sequence[Point]]) -> Iterator[tuple[tuple[int, ...], float]]:
    """The corners of a cell of several grids, with their shares."""
    for corner in itertools.product(*axes):
        yield tuple(size for size, _share in corner), math.prod(share for _size, share in corner)


def _between(size: int, low: int, high: int) -> list[Point]:
    if size == low or high <= low:
        return [(size, 1.0)]
    share = (size - low) / (high - low)
    return [(high, 1.0)] if share == 1.0 else [(low, 1.0 - share), (high, share)]
