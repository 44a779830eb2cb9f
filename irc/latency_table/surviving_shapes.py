"""Shapes of values after a cut, from the labels that survive: what surgery would leave, without surgery."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.propagation import Propagation
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.channel_surgery.layout import surviving_size

Alive = np.ndarray[Any, Any]
Shape = tuple[int, ...]


class SurvivingShapes:
    """Shapes of a model by survivors.

    Survivors must not be changed in place between two questions.

    Args:
        propagation: Labels of its values.
        shapes: Its shapes as it is, for the feed that matters.

    Attributes:
        propagation: As given.
        whole: As given.
    """

    def __init__(self, propagation: Propagation, shapes: ConcreteShapes) -> None:
        self.propagation, self.whole = propagation, shapes
        self._alive: Alive | None = None
        self._counts: dict[tuple[int, int, tuple[int, ...]], int] = {}

    def made(self, value: ir.Value, alive: Alive | None) -> Shape | None:
        """The shape of a value that a node makes; None if it is not known.

        Args:
            value: Any value.
            alive: A boolean per label; None for the model as it is.
        """
        return self._cut(self.whole.static(value), self.propagation.known(value), alive)

    def read(self, node: ir.Node, index: int, alive: Alive | None) -> Shape | None:
        """The shape of an input of a node, of one of its weights too; None if it is not known."""
        value = node.inputs[index]
        return (
            None
            if value is None
            else self._cut(self.whole.static(value), self.propagation.recorded(node, index), alive)
        )

    def groups(self, node: ir.Node, alive: Alive | None) -> int:
        """The groups of a convolution of which any channel survives."""
        groups = node.attributes.get_int("group", 1)
        bundle = self.propagation.recorded(node, 0).on(1)
        if groups == 1 or alive is None or bundle is None:
            return int(groups)
        left = alive[next(Labelled((), (bundle,)).labels_along(1))]
        return int(left.reshape(groups, -1).any(axis=1).sum())

    def elements(self, value: ir.Value, alive: Alive | None) -> int:
        """Elements of a value that a node makes or the model is given; 0 if they are not known."""
        shape = self.made(value, alive)
        return 0 if shape is None else math.prod(shape)

    def _cut(self, shape: Shape | None, labelled: Labelled, alive: Alive | None) -> Shape | None:
        if shape is None or alive is None or not labelled.bundles or len(labelled.dims) != len(shape):
            return shape
        result = list(shape)
        for bundle in labelled.bundles:
            for axis in bundle.axes:
                size, left = labelled.dims[axis], self._left(bundle, axis, alive)
                if left < size:
                    # Labels are of the sizes of the analysis, which for a dynamic axis are not those of the feed.
                    result[axis] = left if shape[axis] == size else max(round(shape[axis] * left / size), 1)
        return tuple(result)

    def _left(self, bundle: Bundle, axis: int, alive: Alive) -> int:
        """Coordinates of an axis that survive; most values share their bundles' labels with others."""
        if alive is not self._alive:
            self._alive, self._counts = alive, {}
        key = id(bundle.labels), bundle.position(axis), bundle.factors
        if key not in self._counts:
            constraints = self.propagation.constraints
            self._counts[key] = surviving_size(constraints, bundle, alive, axis, "a value")
        return self._counts[key]
