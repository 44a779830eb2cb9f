"""Sizes for dynamic dimensions under which batches, lengths and single elements do not look alike."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from irc.analysis.assumed_sizes import IMAGE_SIDE, Sizes, assume_sizes
from irc.analysis.concrete_shapes import ConcreteShapes

_BATCH = 2
_TRIALS = ((31, 64), (127, 224), (1021, 224), (16381, 224))
"""Lengths and image sides, the small ones first."""


def distinct_shapes(model: ir.Model, sizes: Mapping[str, int] | None = None) -> ConcreteShapes:
    """Concrete shapes for batches of 2, prime lengths and small images: the first sizes that leave the fewest shapes unknown.

    Networks on raw audio need thousands of samples to leave a frame, some image networks large images to leave a pixel.

    Args:
        model: Unchanged.
        sizes: Sizes of dynamic dimensions that the caller wants, by symbol or "input:axis".

    Raises:
        UsageError: If `sizes` names no dynamic dimension of the model.
    """
    assumed = assume_sizes(model, sizes)
    best: tuple[int, ConcreteShapes] | None = None
    for length, side in _TRIALS:
        wanted = {name: _size(size, length, side) for name, size in assumed.assumed.items()}
        shapes = ConcreteShapes(model, Sizes(assumed.given, wanted))
        unknown = sum(not _sound(shapes, value) for node in model.graph for value in node.outputs if value.name)
        if best is None or unknown < best[0]:
            best = (unknown, shapes)
        if not unknown:
            break
    assert best is not None
    return best[1]


def _size(assumed: int, length: int, side: int) -> int:
    return _BATCH if assumed == 1 else side if assumed == IMAGE_SIDE else length


def _sound(shapes: ConcreteShapes, value: ir.Value) -> bool:
    static = shapes.static(value)
    return static is not None and all(size > 0 for size in static)
