"""Pieces of labelled axes: cut out, and joined again.

Contiguous pieces of a joint bundle may lose other members in every row, as long as every piece loses equally many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irc.analysis.channels.bundles import Bundle, Labelled, occurrences
from irc.analysis.channels.constraints import Reason
from irc.analysis.channels.other_sizes import is_fixed
from irc.analysis.channels.propagation import NodeView


def along_fixed(view: NodeView, tensor: Labelled, axis: int, index: int = 0) -> Labelled:
    """An operand with labels along an axis only if the axis has the same size at all sizes of the model's inputs."""
    if tensor.on(axis) is None or is_fixed(view, view.node.inputs[index], axis):
        return tensor
    return view.freed(tensor, axis, "dynamic size", "cuts it along an axis of no fixed size")


def replaced(tensor: Labelled, old: Bundle, new: Bundle | None) -> tuple[Bundle, ...]:
    """The bundles of a tensor, one of them another."""
    return tuple(b for b in (new if bundle is old else bundle for bundle in tensor.bundles) if b is not None)


def settled(view: NodeView, bundle: Bundle) -> Bundle | None:
    """A bundle without axes of size 1; a single coordinate that is left alone must survive."""
    for axis, size in zip(bundle.axes, bundle.labels.shape, strict=True):
        if size == 1 and len(bundle.axes) > 1:
            return settled(view, bundle.without(axis))
        if size == 1:
            view.constraints.pin(bundle.labels, Reason("single channel", f"{view.where} takes it alone"))
            return None
    view.constraints.box(bundle)
    return bundle


def piece(view: NodeView, bundle: Bundle, axis: int, start: int, end: int) -> Bundle | None:
    """Coordinates from `start` to `end` of an axis; as many survive in every row, and in front of them too.

    An index that single coordinates are taken from, as queries, keys and values are from a packed product, is not what is cut.
    """
    if end - start == 1 and len(bundle.axes) > 1:
        view.constraints.picked.add(bundle.factors[bundle.position(axis)])
    for stop in (start, end):
        if 0 < stop < bundle.labels.shape[bundle.position(axis)]:
            view.constraints.box(bundle.take(axis, range(stop)))
    return settled(view, _taken(view, bundle, axis, range(start, end)))


def picked(view: NodeView, bundle: Bundle, axis: int, indices: Any) -> Bundle | None:
    """Coordinates of an axis in any order; all rows lose the same ones."""
    if len(bundle.axes) > 1:
        reason = Reason("other axis", f"{view.where} picks coordinates of an index")
        view.constraints.representatives(bundle, [axis], reason)
    return settled(view, _taken(view, bundle, axis, indices))


def _taken(view: NodeView, bundle: Bundle, axis: int, indices: Any) -> Bundle:
    """Coordinates of an axis. Copies of one coordinate get labels of their own, equal to it, that remember which copy they are.

    Later they may go separate ways, and the second copy of one channel can only change places with the second of another.
    """
    part = bundle.take(axis, indices)
    if all(len(np.unique(labels)) == labels.size for labels in (bundle.labels, part.labels)):
        return part
    copies = occurrences(bundle.labels.ravel()).reshape(bundle.labels.shape)
    labels = view.constraints.fresh(part.labels.shape)
    view.constraints.equal(labels, part.labels, np.take(copies, indices, axis=bundle.position(axis)))
    return Bundle(bundle.axes, labels, bundle.factors)


def single(view: NodeView, bundle: Bundle, axis: int, index: int) -> Bundle | None:
    """One coordinate of an axis, without the axis; an index that coordinates are picked from is not cut by rows."""
    if len(bundle.axes) > 1:
        view.constraints.picked.add(bundle.factors[bundle.position(axis)])
    return picked(view, bundle, axis, [index])


def joined(view: NodeView, parts: Sequence[Bundle], axis: int) -> Bundle:
    """Bundles on the same axes one behind the other along one of them."""
    first = parts[0]
    at, arrays = first.position(axis), []
    for part in parts:
        order = [part.position(a) for a in first.axes]
        arrays.append(np.transpose(part.labels, order))
        if len(order) > 1:
            for source, factor in zip(order, first.factors, strict=True):
                view.constraints.same_factor(part.factors[source], factor)
    factors = first.factors if len(first.axes) > 1 else (view.constraints.factor(within=first.factors[0]),)
    labels = np.concatenate(arrays, axis=at)
    if len(np.unique(labels)) < labels.size:  # what comes twice may differ: each part has labels of its own
        copies = [view.constraints.fresh(array.shape) for array in arrays]
        for copy, array in zip(copies, arrays, strict=True):
            view.constraints.equal(copy, array)
        labels = np.concatenate(copies, axis=at)
    whole = Bundle(first.axes, labels, factors)
    for part in parts:
        view.constraints.box(part)
    view.constraints.box(whole)
    return whole
