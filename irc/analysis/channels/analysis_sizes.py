"""Sizes for dynamic dimensions under which batches, lengths and single elements do not look alike."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from irc.analysis.assumed_sizes import IMAGE_SIDE, Sizes, assume_sizes
from irc.analysis.concrete_shapes import ConcreteShapes

_BATCH = 2
_LENGTHS = (31, 127, 1021, 16381)


def distinct_shapes(model: ir.Model, sizes: Mapping[str, int] | None = None) -> ConcreteShapes:
    """Concrete shapes for batches of 2 and prime lengths: the shortest lengths that leave the fewest shapes unknown.

    Networks on raw audio need thousands of samples to leave a frame.

    Args:
        model: Unchanged.
        sizes: Sizes of dynamic dimensions that the caller wants, by symbol or "input:axis".

    Raises:
        UsageError: If `sizes` names no dynamic dimension of the model.
    """
    assumed = assume_sizes(model, sizes)
    best: tuple[int, ConcreteShapes] | None = None
    for length in _LENGTHS:
        wanted = {name: _size(size, length) for name, size in assumed.assumed.items()}
        shapes = ConcreteShapes(model, Sizes(assumed.given, wanted))
        unknown = sum(not _sound(shapes, value) for node in model.graph for value in node.outputs if value.name)
        if best is None or unknown < best[0]:
            best = (unknown, shapes)
        if not unknown:
            break
    assert best is not None
    return best[1]


def _size(assumed: int, length: int) -> int:
    return _BATCH if assumed == 1 else assumed if assumed == IMAGE_SIDE else length


def _sound(shapes: ConcreteShapes, value: ir.Value) -> bool:
    static = shapes.static(value)
    return static is not None and all(size > 0 for size in static)
