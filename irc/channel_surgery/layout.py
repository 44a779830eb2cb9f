"""The elements of a labelled initializer: those that survive, or the same ones in another order."""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.analysis.channels.bundles import Bundle, Labels, occurrences
from irc.analysis.channels.constraints import Constraints
from irc.analysis.channels.slots import Slot
from irc.errors import ModelError

Array = np.ndarray[Any, Any]


def surviving_lines(constraints: Constraints, bundle: Bundle, alive: Array, axis: int) -> Array:
    """Survivors along an axis of a bundle, `[lines, coordinates]`: one line per surviving choice of what lies outside of it.

    A coordinate survives if anything inside of it does: a row as long as any of its members, of one row or of another.
    """
    order = constraints.order(bundle.factors)
    at = order.index(bundle.position(axis))
    mask = np.transpose(alive[bundle.labels], order)
    mask = np.asarray(mask.any(axis=tuple(range(at + 1, mask.ndim))))
    lines: Array = mask.reshape(-1, mask.shape[-1])
    return lines[lines.any(axis=1)]


def surviving_size(constraints: Constraints, bundle: Bundle, alive: Array, axis: int, name: str) -> int:
    """How many coordinates of an axis survive.

    Raises:
        ModelError: If none does, or if that differs between the rows of a joint bundle.
    """
    counts = np.unique(surviving_lines(constraints, bundle, alive, axis).sum(axis=1))
    if not len(counts):
        raise ModelError(f"nothing would survive of {name!r}; keep at least one channel of it")
    if len(counts) > 1:
        raise ModelError(f"what would survive of {name!r} has rows of unlike length; cut as many of each row")
    return int(counts[0])


def shortened(constraints: Constraints, slot: Slot, array: Array, alive: Array) -> Array | None:
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
    sizes = list(slot.view)
    for bundle in lost:
        mask &= spread(bundle, alive[bundle.labels], len(slot.view))
        for axis in bundle.axes:
            sizes[axis] = surviving_size(constraints, bundle, alive, axis, slot.name)
    dims = [1] * array.ndim
    for axis, size in zip(slot.axis_of, sizes, strict=True):
        dims[axis] *= size
    if int(np.prod(dims)) != int(mask.sum()):
        raise ModelError(f"what survives of {slot.name!r} {list(array.shape)} is no box; this is a defect of irc")
    return array[mask.reshape(array.shape)].reshape(dims)


def spread(bundle: Bundle, values: Array, rank: int) -> Array:
    """Values on the axes of a bundle, with axes of size 1 for all others of a tensor."""
    order = sorted(range(len(bundle.axes)), key=lambda i: bundle.axes[i])
    shape = [1] * rank
    for i in order:
        shape[bundle.axes[i]] = values.shape[i]
    return np.transpose(values, order).reshape(shape)


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
    values, starts = np.unique(labels[order], return_index=True)
    wanted = np.searchsorted(values, target[labels])
    found: Array = order[starts[wanted] + occurrences(labels)]
    return found
