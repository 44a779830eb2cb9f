"""What stays the same at other sizes of the dynamic dimensions: axes that may carry labels of their own, and constants in disguise.

Labels hold for all sizes only if the axis they lie on has one size. Where the graph does not say so, it is analysed again at other sizes
and compared.
"""

from __future__ import annotations

import weakref

import onnx_ir as ir

from irc.analysis.assumed_sizes import Sizes
from irc.analysis.channels.propagation import NodeView, Propagation
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.ir import constant

_STRIDES = 32
_OTHER: weakref.WeakKeyDictionary[Propagation, ConcreteShapes] = weakref.WeakKeyDictionary()


def at_other_sizes(propagation: Propagation) -> ConcreteShapes:
    """The shapes of the analysed model at larger sizes of all dynamic dimensions; computed when first asked for."""
    if propagation not in _OTHER:
        sizes = propagation.shapes.sizes
        larger = Sizes(
            {name: _larger(size) for name, size in sizes.given.items()},
            {name: _larger(size) for name, size in sizes.assumed.items()},
        )
        _OTHER[propagation] = ConcreteShapes(propagation.model, larger) if sizes.all else propagation.shapes
    return _OTHER[propagation]


def _larger(size: int) -> int:
    """Image sides stay multiples of the strides of a network; lengths grow by half, so that learned positions still suffice."""
    return 2 * size if size % _STRIDES == 0 else size + max(1, size // 2)


def is_fixed(view: NodeView, value: ir.Value | None, axis: int) -> bool:
    """Whether an axis of a value has the same size whatever the model is fed."""
    assert value is not None
    dims = view.propagation.dims(value)
    if dims is None:
        return False
    declared = value.shape[axis] if value.shape is not None and len(value.shape) == len(dims) else None
    if isinstance(declared, int) and declared == dims[axis]:
        return True
    other = at_other_sizes(view.propagation).dims(value)
    return other is not None and other[axis] == dims[axis]


def fixed_elements(view: NodeView, index: int) -> list[int | None] | None:
    """The elements of an integer input, None for those that change with sizes; None for all if they depend on data."""
    elements = view.known(index)
    if elements is None:
        return None
    value = view.node.inputs[index]
    if constant(value) is not None:
        return list(elements)
    found = at_other_sizes(view.propagation).known(value)
    if found is None or found.size != len(elements):
        return [None] * len(elements)
    return [one if one == int(other) else None for one, other in zip(elements, found.ravel(), strict=True)]
