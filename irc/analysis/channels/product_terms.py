"""MACs of a node as a sum of products of widths: one product for most, two for recurrent operators and attention.

An LSTM multiplies inputs with W and its state with R; attention multiplies queries with keys and its scores with values. Each part is
proportional to the surviving share of the labels it runs over, their sum is not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels.bundles import Bundle, Labels
from irc.analysis.channels.propagation import Propagation
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.operation_macs import RUNTIME_DOMAIN, multiply_accumulates

Alive = np.ndarray[Any, Any]
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
ATTENTION = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention"})


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """MACs proportional to the survivors of each of some sets of labels, over those of others.

    Attributes:
        macs: MACs when all survive.
        groups: Labels of every index they run over.
        shared: Labels that several groups have.
    """

    macs: float
    groups: tuple[Labels, ...]
    shared: tuple[Labels, ...] = ()

    def of(self, alive: Alive) -> float:
        """MACs of what survives."""
        macs = self.macs
        for labels in self.groups:
            macs *= float(alive[labels].mean())
        for labels in self.shared:
            macs /= float(alive[labels].mean()) or 1.0
        return macs


def terms_of(node: ir.Node, propagation: Propagation, shapes: ConcreteShapes) -> tuple[Term, ...]:
    """The MACs of a node that has some in terms of labels; their sum is what the formula of its operator gives.

    Args:
        node: A node with an entry in `propagation.products`.
        propagation: Its labels.
        shapes: Sizes of all values that MACs are for.

    Raises:
        UnknownCost: If a shape is unknown, or the operator is.
    """
    macs = multiply_accumulates(node, shapes)
    if node.op_type in RECURRENT:
        return _split(macs, [(_size(node, i, shapes), _bundles(node, i, propagation)) for i in (1, 2)])
    if node.op_type in ATTENTION:
        if node.domain == RUNTIME_DOMAIN and node.op_type == "Attention":
            return _self_attention(macs, node, propagation, shapes)
        query, value = (shapes.static(node.inputs[i]) or (1,) for i in (0, 2))
        key = shapes.static(node.inputs[1]) or (1,)
        # With three axes, heads lie within the last: queries are as wide as keys for every head that shares them.
        same = 1.0 if len(query) == 4 else query[-1] / key[-1]
        parts = [(float(query[-1]), _bundles(node, 0, propagation)), (value[-1] * same, _bundles(node, 2, propagation))]
        return _split(macs, parts)
    product = propagation.products[node]
    return (Term(macs, _labels(product.groups), _labels(product.shared)),)


def _self_attention(macs: int, node: ir.Node, propagation: Propagation, shapes: ConcreteShapes) -> tuple[Term, ...]:
    """Attention that projects queries, keys and values itself, out of one weight."""
    weight = _bundles(node, 1, propagation)
    tokens = math.prod((shapes.static(node.inputs[0]) or (1,))[:2])
    projected = tokens * _size(node, 1, shapes)
    made = [bundle for bundle in weight if bundle.axes != (0,)]
    return Term(projected, _labels(weight)), Term(macs - projected, _labels(made))


def _split(macs: int, parts: Sequence[tuple[float, Sequence[Bundle]]]) -> tuple[Term, ...]:
    """MACs divided in proportion to sizes."""
    whole = sum(size for size, _bundles in parts) or 1.0
    return tuple(Term(macs * size / whole, _labels(bundles)) for size, bundles in parts)


def _labels(bundles: Sequence[Bundle]) -> tuple[Labels, ...]:
    return tuple(bundle.labels for bundle in bundles)


def _size(node: ir.Node, index: int, shapes: ConcreteShapes) -> int:
    return math.prod(shapes.static(node.inputs[index]) or (0,))


def _bundles(node: ir.Node, index: int, propagation: Propagation) -> Sequence[Bundle]:
    """Labels of an input, those of an initializer that is labelled under another view included."""
    found = propagation.recorded(node, index).bundles
    if found:
        return found
    slots = [slot for slot in propagation.slots if slot.initializer is node.inputs[index] and slot.use is None]
    return [bundle for slot in slots for bundle in slot.bundles]
