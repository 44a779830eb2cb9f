"""Which observables go together in one sweep: as many as the memory budget holds."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irc.analysis.assumed_sizes import Sizes
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.calibration.data import Feed
from irc.calibration.statistics import Observable
from irc.memory_groups import groups_within

HISTOGRAM_BYTES = 512 << 10
"""About what counting one tensor takes, whatever its size: its counts, and codes that wait to be counted."""
_UNKNOWN_ELEMENTS = 4 << 20


def packed(model: ir.Model, observables: Sequence[Observable], feed: Feed, budget_bytes: int) -> list[list[Observable]]:
    """Groups of observables, in the order given; each fits the budget on a feed, or is of one observable.

    Args:
        model: Unchanged.
        observables: What is to be observed; those reduced to numbers take no memory worth counting.
        feed: An example, from which the sizes of values are computed.
        budget_bytes: Of one sweep.
    """
    if not any(o.kind in ("distribution", "gram") for o in observables):
        return [list(observables)] if observables else []
    shapes = ConcreteShapes(model, sizes_of(model, feed))
    values = ir.convenience.create_value_mapping(model.graph)
    sized = ((o, _bytes(o, values.get(o.value_name), shapes)) for o in observables)
    return groups_within(sized, budget_bytes)


def sizes_of(model: ir.Model, feed: Feed) -> Sizes:
    """The sizes that a feed gives to a model's dynamic dimensions."""
    given = {}
    for value in model.graph.inputs:
        if value.shape is None or value.name not in feed:
            continue
        for axis, (dim, size) in enumerate(zip(value.shape, feed[value.name].shape, strict=False)):
            symbol = dim.value if isinstance(dim, ir.SymbolicDim) else None
            given[symbol or f"{value.name}:{axis}"] = int(size)
    return Sizes(given, {})


def _bytes(observable: Observable, value: ir.Value | None, shapes: ConcreteShapes) -> int:
    if value is None or observable.kind not in ("distribution", "gram"):
        return 0
    dims = shapes.dims(value)
    channels = dims[observable.axis] if dims and observable.axis is not None and observable.axis < len(dims) else 1
    if observable.kind == "gram":
        return 3 * 8 * (channels or 1024) ** 2
    elements = shapes.elements(value)
    codes = 2 * (_UNKNOWN_ELEMENTS if elements is None else elements)
    return codes + HISTOGRAM_BYTES * (channels or 1024)
