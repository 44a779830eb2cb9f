"""The elements of a labelled initializer: those that survive, or the same ones in another order."""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.analysis.channels.bundles import Bundle, Labels
from irc.analysis.channels.slots import Slot
from irc.errors import ModelError

Array = np.ndarray[Any, Any]


def shortened(slot: Slot, array: Array, alive: Array) -> Array | None:
    """The elements all of whose labels survive, or None if all do.

    Raises:
        ModelError: If what survives is no box.
    """
    lost = [bundle for bundle in slot.bundles if not alive[bundle.labels].all()]
    if not lost:
        return None
    if all(len(bundle.axes) == 1 for bundle in lost) and len(slot.view) == array.ndim:
        for bundle in lost:
            array = np.compress(alive[bundle.labels], array, axis=bundle.axes[0])
        return array
    mask = np.ones(slot.view, dtype=bool)
    for bundle in lost:
        mask &= spread(bundle, alive[bundle.labels], len(slot.view))
    mask = mask.reshape(array.shape)
    dims = [_length(slot, mask, axis) for axis in range(array.ndim)]
    if int(np.prod(dims)) != int(mask.sum()):
        raise ModelError(f"what survives of {slot.name!r} {list(array.shape)} is no box; this is a defect of irc")
    return array[mask].reshape(dims)


def spread(bundle: Bundle, values: Array, rank: int) -> Array:
    """Values on the axes of a bundle, with axes of size 1 for all others of a tensor."""
    order = sorted(range(len(bundle.axes)), key=lambda i: bundle.axes[i])
    shape = [1] * rank
    for i in order:
        shape[bundle.axes[i]] = values.shape[i]
    return np.transpose(values, order).reshape(shape)


def _length(slot: Slot, mask: Array, axis: int) -> int:
    """How many survive along an axis, on every line on which any does."""
    counts = mask.sum(axis=axis)
    counts = np.unique(counts[counts > 0])
    if len(counts) != 1:
        raise ModelError(f"what survives of {slot.name!r} along axis {axis} is ragged; this is a defect of irc")
    return int(counts[0])


def permuted(slot: Slot, array: Array, target: Labels) -> Array | None:
    """The elements laid out so that every coordinate holds what belonged to another label, or None if nothing moves.

    Args:
        slot: The initializer.
        array: Its elements.
        target: For every label, the label whose element takes its place.
    """
    moved = [bundle for bundle in slot.bundles if (target[bundle.labels] != bundle.labels).any()]
    if not moved:
        return None
    rank = len(slot.view)
    index: list[Array] = [
        np.arange(size).reshape([-1 if i == axis else 1 for i in range(rank)]) for axis, size in enumerate(slot.view)
    ]
    taken: set[int] = set()
    for bundle in moved:
        places = np.unravel_index(_places(bundle.labels.ravel(), target), bundle.labels.shape)
        for axis, place in zip(bundle.axes, places, strict=True):
            if axis not in taken:
                taken.add(axis)
                index[axis] = spread(bundle, place.reshape(bundle.labels.shape), rank)
    return np.ascontiguousarray(array.reshape(slot.view)[tuple(index)].reshape(array.shape))


def _places(labels: Labels, target: Labels) -> Array:
    """For every position, the position of the label that takes its place, like occurrence for like occurrence."""
    order = np.argsort(labels, kind="stable")
    values, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    occurrence = np.empty(len(labels), dtype=np.int64)
    occurrence[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    wanted = np.searchsorted(values, target[labels])
    found: Array = order[starts[wanted] + occurrence]
    return found
