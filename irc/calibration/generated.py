"""Inputs made up for a model when the user gives none: they fit its shapes, types and its own ranges.

Token ids stay below the rows of the embedding they look up; integers that act as masks are zeros and ones; floats are
standard normal. Symbolic batch-like sizes are 1, others a short sequence that varies from sample to sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.data import Feed, FeedList, Sample
from irc.calibration.signature import InputSpec, signature
from irc.errors import DataError

SEQUENCE_LENGTHS = (16, 24, 12, 20)
_PASS_THROUGH = {
    "Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Slice", "Concat", "Expand", "Transpose",
    "Min", "Max", "Clip", "Abs",
}  # fmt: skip
_MASK_USERS = {"Where", "Not", "And", "Or", "Equal", "Sub", "Mul", "ReduceSum", "CumSum", "Greater", "Less"}
_BATCH_WORDS = ("batch", "n", "b", "bs", "num_images")
DEFAULT_TOKENS = 100


def generate_feeds(model: ir.Model, *, count: int = 8, seed: int = 0) -> FeedList:
    """Made-up samples for a model, the same for the same seed.

    Args:
        model: Its inputs are to be fed.
        count: Number of samples.
        seed: Seed of the values.

    Raises:
        DataError: If an input has a type nothing can be made up for.
    """
    specs = {name: spec for name, spec in signature(model).items() if not spec.optional}
    ranges = {value.name: _integer_range(value) for value in model.graph.inputs if value.name in specs}
    samples = []
    for index in range(count):
        generator = np.random.default_rng([seed, index])
        sizes: dict[str, int] = {}
        feed: Feed = {}
        for name, spec in specs.items():
            shape = [_size(d, axis, len(spec.dims or ()), sizes, index) for axis, d in enumerate(spec.dims or ())]
            feed[name] = _values(spec, shape, ranges[name], generator)
        samples.append(Sample(feed, {}, f"generated sample {index}"))
    return FeedList(samples, name="generated inputs", synthetic=True)


def _size(dim: int | str, axis: int, rank: int, sizes: dict[str, int], index: int) -> int:
    if isinstance(dim, int):
        return dim
    batch = dim.lower() in _BATCH_WORDS or "batch" in dim.lower() or (axis == 0 and rank > 1)
    size = 1 if batch else SEQUENCE_LENGTHS[index % len(SEQUENCE_LENGTHS)]
    return size if dim == "?" else sizes.setdefault(dim, size)


def _values(spec: InputSpec, shape: list[int], limits: tuple[int, int] | None, generator: Any) -> Any:
    if spec.dtype == ir.DataType.STRING:
        raise DataError(f"input {spec.name!r} takes text, for which nothing can be generated; give --data")
    try:
        dtype = np.dtype(spec.dtype.numpy())
    except TypeError as error:
        raise DataError(f"input {spec.name!r} has type {spec.dtype.name}; give --data") from error
    if dtype == np.bool_:
        return np.ones(shape, np.bool_)
    if np.issubdtype(dtype, np.integer):
        low, high = limits if limits is not None else (0, DEFAULT_TOKENS)
        high = min(high, int(np.iinfo(dtype).max))
        values = generator.integers(low, high, shape, endpoint=True)
        if (low, high) == (0, 1):
            values = np.ones(shape, np.int64)
            if shape and shape[-1] > 4:
                values[..., shape[-1] - shape[-1] // 4 :] = 0
        return np.asarray(values).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _integer_range(value: ir.Value) -> tuple[int, int] | None:
    """Smallest and largest value an integer input may take, from what the graph does with it."""
    if value.dtype is None or not value.dtype.is_integer():
        return None
    rows: list[int] = []
    mask = False
    pending, seen = [value], {id(value)}
    while pending:
        current = pending.pop()
        for use in current.uses():
            node = use.node
            if node.op_type in ("Gather", "GatherElements") and use.idx == 1:
                shape = node.inputs[0].shape if node.inputs[0] is not None else None
                axis = node.attributes.get_int("axis", 0)
                if shape is not None and isinstance(shape[axis], int):
                    rows.append(int(shape[axis]))
            elif node.op_type == "Cast" and _casts_to_mask(node):
                mask = True
            elif node.op_type in _MASK_USERS:
                mask = True
            if node.op_type in _PASS_THROUGH and use.idx == 0:
                for output in node.outputs:
                    if id(output) not in seen:
                        seen.add(id(output))
                        pending.append(output)
    if rows:
        return 0, max(min(rows) - 1, 0)
    return (0, 1) if mask or "mask" in (value.name or "").lower() else None


def _casts_to_mask(node: ir.Node) -> bool:
    target = node.attributes.get_int("to", 0)
    return ir.DataType(target) == ir.DataType.BOOL or ir.DataType(target).is_floating_point()
