"""An oracle that sees what ordinary numbers hide: signs of zeros, NaN, infinities, sizes that only look equal.

Everything `pass_kit` checks, and that a model never gets larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from pass_kit import Array, Feed, Outcome, apply, assert_promises, op_types, run, text

from irc.pass_base import Pass

SPECIAL = (-0.0, np.nan, 0.0, np.inf, -np.inf, -1.5, 0.25, 7.0, -1e-42, 1e-42, 3e38, -3e38, 2.0, 6.0)
"""Cycled through every float input; float16 makes infinities and zeros of some."""


def special_feed(model: ir.Model, sizes: Mapping[str, int], *, shift: int = 0) -> Feed:
    """One feed of special numbers; unnamed dimensions take the size called "?"."""
    feed: Feed = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        assert value.shape is not None and value.dtype is not None and value.name
        dims = [d if isinstance(d, int) else sizes[d.value or "?"] for d in value.shape]
        count, dtype = int(np.prod(dims)), value.dtype.numpy()
        if value.dtype == ir.DataType.BOOL:
            feed[value.name] = ((np.arange(count) + shift) % 2 == 0).reshape(dims)
        elif np.issubdtype(dtype, np.integer):
            info = np.iinfo(dtype)
            extremes = [info.min, 0, 1, info.max, info.max // 3, info.min // 5]
            numbers = [extremes[(i + shift) % 6] for i in range(count)]
            feed[value.name] = np.array(numbers, dtype).reshape(dims)
        else:
            with np.errstate(over="ignore"):
                numbers = [SPECIAL[(i + shift) % len(SPECIAL)] for i in range(count)]
                feed[value.name] = np.array(numbers).astype(dtype).reshape(dims)
    return feed


def assert_identical(found: Array, expected: Array) -> None:
    """Equal in form and in bits, NaN equal to any NaN."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    if found.dtype.kind == "f":
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found)[numbers], np.signbit(expected)[numbers])


def assert_exact_after(
    pass_: Pass,
    model: ir.Model,
    *,
    sizes: tuple[Mapping[str, int], ...] = ({"n": 3, "m": 2, "k": 2, "?": 3},),
    feeds: tuple[Feed, ...] = (),
) -> Outcome:
    """Applies a pass and checks its promises, that outputs are the same bits, and that the model is not larger.

    Args:
        pass_: The pass.
        model: Unchanged.
        sizes: Sizes of symbols, a run each.
        feeds: Feeds for models whose inputs special numbers do not suit; replaces `sizes`.
    """
    outcome = apply(pass_, model)
    assert_promises(pass_, model, outcome)
    assert len(text(outcome.model)) <= len(text(model)), "the model got larger"
    assert len(op_types(outcome.model)) <= len(op_types(model))
    for feed in feeds or [special_feed(model, s, shift=shift) for s in sizes for shift in (0, 5)]:
        for expected, found in zip(run(model, feed), run(outcome.model, feed), strict=True):
            assert_identical(found, expected)
    return outcome


def initializer_names(model: ir.Model) -> list[str]:
    """Names of the initializers of the main graph, sorted."""
    return sorted(model.graph.initializers)


def constants(**values: Any) -> dict[str, Array]:
    """Integer lists as int64 vectors, everything else as it is."""
    return {name: np.array(v, np.int64) if isinstance(v, list) else np.asarray(v) for name, v in values.items()}
