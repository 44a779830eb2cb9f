"""Inputs made up for a model when the user gives none: they fit its shapes, types and its own ranges.

Token ids stay below the rows of the table they look up; masks are zeros and ones with a one in every row; floats are
standard normal. Sizes that the model leaves open are short and vary from sample to sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from irc.calibration.data import DataSource, Feed, Sample
from irc.calibration.input_roles import Role, input_role
from irc.calibration.input_signature import InputSpec, signature
from irc.calibration.input_sizes import CHOICES, SizeChoice, demanded_sizes, input_sizes
from irc.errors import DataError, RunnerError

if TYPE_CHECKING:
    from irc.runner import Runner

PLAIN_INTEGERS = 9
"""Largest integer given to an input about which the graph says nothing."""
LARGEST_QUANTITY = 255
"""Largest integer given to an input that is turned into a float, like a pixel."""
FRACTION_KEPT = 0.75
"""Smallest share of ones in a row of a mask."""


def generate_feeds(model: ir.Model, *, count: int = 8, seed: int = 0, choice: int = 0) -> DataSource:
    """Made-up samples for a model, the same for the same arguments; made anew when iterated, never kept.

    Args:
        model: Its inputs are to be fed.
        count: Number of samples, at least 1.
        seed: Seed of the values.
        choice: Which sizes to try for what the model leaves open, an index into `CHOICES`.

    Raises:
        DataError: If an input has a type nothing can be made up for.
    """
    return GeneratedSource(model, count=count, seed=seed, choice=CHOICES[choice])


def runnable_feeds(runner: Runner, model: ir.Model, *, count: int = 8, seed: int = 0) -> DataSource:
    """Made-up samples that the model is seen to run on: sizes are tried until it does.

    Args:
        runner: Where it is tried.
        model: Its inputs are to be fed.
        count: Number of samples.
        seed: Seed of the values.

    Raises:
        DataError: If the model runs on none of the tries, or an input has a type nothing can be made up for.
        RunnerError: If the runtime refuses the model itself, or dies of it.
    """
    sources = [GeneratedSource(model, count=count, seed=seed, choice=choice) for choice in CHOICES]
    first_error: RunnerError | None = None
    opened = runner.open(model)
    try:
        for source in sources if sources[0].open_sizes else sources[:1]:
            try:
                for sample in source.distinct():
                    opened.run(sample.feed)
            except RunnerError as error:
                if error.crashed:
                    raise
                first_error = first_error or error
            else:
                return source
    finally:
        opened.close()
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in next(sources[0].samples()).feed.items())
    message = f"the model does not run on generated inputs ({shapes}): {first_error}; give --data"
    raise DataError(message) from first_error


class GeneratedSource(DataSource):
    """Samples made up for one choice of sizes.

    Attributes:
        open_sizes: Whether the choice makes a difference.
    """

    synthetic = True

    def __init__(self, model: ir.Model, *, count: int, seed: int, choice: SizeChoice) -> None:
        self.name = "generated inputs"
        self._count, self._seed, self._choice = count, seed, choice
        self._specs = {name: spec for name, spec in signature(model).items() if not spec.optional}
        values = {value.name: value for value in model.graph.inputs}
        self._roles = {name: input_role(values[name]) for name in self._specs}
        self._demands = {name: demanded_sizes(values[name]) for name in self._specs}
        for spec in self._specs.values():
            _check_type(spec)
        flags = any(spec.dtype == ir.DataType.BOOL and not spec.dims for spec in self._specs.values())
        self.open_sizes = flags or any(
            spec.dims is None or any(isinstance(dim, str) for dim in spec.dims) for spec in self._specs.values()
        )

    def __len__(self) -> int:
        return self._count

    def samples(self) -> Iterator[Sample]:
        """Makes one sample after another."""
        return (self._sample(index) for index in range(self._count))

    def distinct(self) -> Iterator[Sample]:
        """One sample of every combination of sizes."""
        return (self._sample(index) for index in range(min(self._count, len(self._choice.sequence))))

    def _sample(self, index: int) -> Sample:
        shapes, sizes = input_sizes(self._specs, self._demands, self._choice, index)
        longest = max((n for shape in shapes.values() for n in shape[1:2]), default=1)
        feed: Feed = {}
        for position, (name, spec) in enumerate(self._specs.items()):
            generator = np.random.default_rng([self._seed, index, position])
            role = self._roles[name]
            if spec.dtype == ir.DataType.BOOL and not shapes[name]:
                flag = index % 2 == 0 if self._choice.flag is None else self._choice.flag
                feed[name] = np.array(flag)
            else:
                feed[name] = _values(spec, shapes[name], role, _bound(role, sizes, longest), generator)
        return Sample(feed, {}, f"generated sample {index}")


def _check_type(spec: InputSpec) -> None:
    if spec.dtype == ir.DataType.STRING:
        raise DataError(f"input {spec.name!r} takes text, for which nothing can be generated; give --data")
    if spec.numpy_dtype is None:
        raise DataError(f"input {spec.name!r} has type {spec.type_name}, which cannot be fed from numpy")


def _bound(role: Role, sizes: Mapping[str, int], longest: int) -> float:
    """The largest integer allowed, once sizes are known."""
    ends = [role.high]
    for symbol in role.symbols:
        size = sizes.get(symbol, 1)
        ends.append(size if role.kind == "length" else size - 1)
    if role.kind == "length" and not role.symbols:
        ends.append(longest)
    return min(ends)


def _values(spec: InputSpec, shape: list[int], role: Role, high: float, generator: np.random.Generator) -> Any:
    dtype = spec.numpy_dtype
    assert dtype is not None
    if role.kind == "mask":
        return _mask(shape, generator).astype(dtype)
    if dtype.kind not in "iu":
        values = generator.standard_normal(shape)
        if role.kind == "positive":
            values = 0.25 + 0.5 * generator.random(shape)  # a ratio as well
        elif role.kind == "argument":
            values = _argument(shape, role.low)
        return np.asarray(values).astype(dtype)
    low, limit = role.low, np.iinfo(dtype).max
    if role.kind == "argument":
        return _argument(shape, low).astype(dtype)
    if role.kind == "length":
        low = max(1, low, int(min(high, limit)) // 2)
    elif role.kind == "value" and high == np.inf:
        high = min(limit, LARGEST_QUANTITY) if role.float_users or limit <= LARGEST_QUANTITY else PLAIN_INTEGERS
    elif "position" in spec.name.lower() and shape:
        ordered = np.minimum(np.arange(shape[-1]) + low, min(high, limit))
        return np.broadcast_to(ordered, shape).astype(dtype)
    high = int(max(low, min(high, limit)))
    return np.asarray(generator.integers(low, high, shape, endpoint=True)).astype(dtype)


def _mask(shape: list[int], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Ones, then zeros, along the last axis."""
    mask = np.ones(shape, np.int64)
    if not shape or shape[-1] < 4:
        return mask
    kept = generator.integers(int(np.ceil(FRACTION_KEPT * shape[-1])), shape[-1], shape[:-1], endpoint=True)
    positions = np.arange(shape[-1])
    return np.asarray(positions < np.asarray(kept)[..., None]).astype(np.int64)


def _argument(shape: list[int], value: int) -> np.ndarray[Any, Any]:
    """An operator's argument; of a target shape, only the first entry may be inferred."""
    filled = np.full(shape, value, np.int64)
    if value == -1 and filled.ndim:
        filled[1:] = 1
    return filled
