"""Labels on the coordinates of a tensor: which of them may be cut, and which belong together.

A **label** is an integer that names one coordinate which may be cut. A **bundle** puts labels on some axes of a tensor: an
array of labels with the sizes of these axes. Channels of a convolution are a bundle of one axis; heads times head dimensions,
after the split of a hidden axis, are a *joint* bundle of two axes, so that every coordinate keeps its own label through
Reshape, Transpose, Split and Concat. The bundles of a tensor are disjoint; an axis in none is **free** and is never cut (batch,
time, space).

Each axis of a bundle carries a **factor**: the identity of the index along it, which survives transposition and tells, where
bundles of several tensors meet, which of their axes run over the same thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Labels = np.ndarray[Any, np.dtype[np.int64]]


@dataclasses.dataclass(frozen=True, eq=False)
class Bundle:
    """Labels on some axes of a tensor.

    Attributes:
        axes: The axes, in the order in which the index was split: rows before members. Not always ascending.
        labels: Labels, one dimension per axis, in the order of `axes`.
        factors: Identity of the index along each axis.
    """

    axes: tuple[int, ...]
    labels: Labels
    factors: tuple[int, ...]

    def at(self, axes: Sequence[int]) -> Bundle:
        """The same labels on other axes of another tensor."""
        return Bundle(tuple(axes), self.labels, self.factors)

    def position(self, axis: int) -> int:
        """Where an axis of the tensor stands among those of the bundle."""
        return self.axes.index(axis)

    def take(self, axis: int, indices: Any) -> Bundle:
        """The labels of some coordinates along an axis."""
        return Bundle(self.axes, np.take(self.labels, indices, axis=self.position(axis)), self.factors)

    def without(self, axis: int) -> Bundle:
        """The labels at the first coordinate of an axis, which is left out."""
        at = self.position(axis)
        return Bundle(
            self.axes[:at] + self.axes[at + 1 :],
            np.take(self.labels, 0, axis=at),
            self.factors[:at] + self.factors[at + 1 :],
        )

    def physical(self) -> tuple[tuple[int, ...], Labels, tuple[int, ...]]:
        """Axes, labels and factors in the order in which the axes lie in the tensor."""
        order = sorted(range(len(self.axes)), key=lambda i: self.axes[i])
        return (
            tuple(self.axes[i] for i in order),
            np.transpose(self.labels, order),
            tuple(self.factors[i] for i in order),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """A tensor as the analysis sees it: its sizes and its bundles.

    Attributes:
        dims: Sizes of all axes.
        bundles: Disjoint bundles.
    """

    dims: tuple[int, ...]
    bundles: tuple[Bundle, ...] = ()

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.dims)

    def on(self, axis: int) -> Bundle | None:
        """The bundle that holds an axis, None where it is free."""
        return next((bundle for bundle in self.bundles if axis in bundle.axes), None)

    def without(self, *axes: int) -> Labelled:
        """The same sizes and only the bundles that hold none of some axes."""
        return Labelled(self.dims, tuple(b for b in self.bundles if not set(axes) & set(b.axes)))

    def transposed(self, order: Sequence[int]) -> Labelled:
        """Axes in another order: axis `i` of the result is axis `order[i]`."""
        place = {axis: i for i, axis in enumerate(order)}
        return Labelled(
            tuple(self.dims[axis] for axis in order),
            tuple(bundle.at([place[axis] for axis in bundle.axes]) for bundle in self.bundles),
        )

    def labels_along(self, axis: int) -> Iterator[Labels]:
        """The labels of one line along an axis per choice of the bundle's other coordinates; nothing if it is free."""
        bundle = self.on(axis)
        if bundle is not None:
            lines = np.moveaxis(bundle.labels, bundle.position(axis), -1)
            yield from lines.reshape(-1, lines.shape[-1])


def occurrences(labels: Labels) -> Labels:
    """For every position, how often its label stood before it."""
    order = np.argsort(labels, kind="stable")
    _values, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    result = np.empty(len(labels), dtype=np.int64)
    result[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return result
