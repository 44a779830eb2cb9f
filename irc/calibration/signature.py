"""What a model takes, and whether a sample fits: every mismatch is an error that shows expected and found."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.data import Feed, Sample
from irc.errors import DataError


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One required input.

    Attributes:
        name: Its name.
        dtype: Its element type.
        dims: Fixed sizes and symbols; None for unknown rank.
        optional: Whether an initializer gives it a default.
    """

    name: str
    dtype: ir.DataType
    dims: tuple[int | str, ...] | None
    optional: bool = False

    def __str__(self) -> str:
        return f"{_numpy_name(self.dtype)} {_format(self.dims)}"


def signature(model: ir.Model) -> dict[str, InputSpec]:
    """The inputs of a model by name, in order."""
    specs = {}
    for value in model.graph.inputs:
        dims = None
        if value.shape is not None:
            dims = tuple(
                d if isinstance(d, int) else str(d.value) if d.value is not None else "?" for d in value.shape
            )
        dtype = value.dtype if value.dtype is not None else ir.DataType.UNDEFINED
        name = value.name or ""
        specs[name] = InputSpec(name, dtype, dims, name in model.graph.initializers)
    return specs


def fit(arrays: Feed, specs: dict[str, InputSpec], origin: str, *, label: str | None = None) -> Sample:
    """Splits arrays into feed and labels and checks the feed against the model.

    Args:
        arrays: All arrays of one sample, batch axis included.
        specs: What the model takes.
        origin: Where the sample comes from; starts every message.
        label: The one array that is the label; None keeps every array that is no input.

    Raises:
        DataError: For missing inputs, wrong dtypes, ranks or sizes, NaN or infinity.
    """
    feed: Feed = {}
    for name, spec in specs.items():
        if name in arrays:
            feed[name] = _checked(arrays[name], spec, origin)
        elif not spec.optional:
            raise DataError(_missing(name, arrays, specs, origin))
    labels = {name: array for name, array in arrays.items() if name not in specs}
    if label is not None:
        if label not in labels:
            raise DataError(
                f"{origin}: there is no label {label!r}; arrays that are not inputs: {', '.join(labels) or 'none'}"
            )
        labels = {label: labels[label]}
    _check_symbols(feed, specs, origin)
    return Sample(feed, labels, origin)


def _missing(name: str, arrays: Feed, specs: dict[str, InputSpec], origin: str) -> str:
    others = [key for key in arrays if key not in specs]
    close = difflib.get_close_matches(name, others, n=1, cutoff=0.4) or (others[:1] if len(others) == 1 else [])
    advice = f"; rename {close[0]!r} to {name!r}?" if close else ""
    return (
        f"{origin}: input {name!r} is missing; the model takes {', '.join(f'{s.name} ({s})' for s in specs.values())} "
        f"and the sample has {', '.join(arrays) or 'nothing'}{advice}"
    )


def _checked(array: Any, spec: InputSpec, origin: str) -> np.ndarray[Any, Any]:
    array = np.asarray(array)
    found = f"{array.dtype.name} {list(array.shape)}"
    wanted = _numpy_dtype(spec.dtype)
    if wanted is None:
        raise DataError(f"{origin}: input {spec.name!r} has type {spec.dtype.name}, which irc cannot feed")
    expected = f"{origin}: input {spec.name!r} is {found}; the model expects {spec}"
    if wanted != np.dtype(object) and array.dtype != wanted:
        raise DataError(f"{expected}; convert it with .astype(np.{wanted.name})")
    if spec.dims is not None:
        if array.ndim != len(spec.dims):
            hint = "; add the batch axis: x[None]" if array.ndim == len(spec.dims) - 1 else ""
            raise DataError(f"{expected}{hint}")
        for size, dim in zip(array.shape, spec.dims, strict=True):
            if isinstance(dim, int) and dim != size:
                raise DataError(expected)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        bad = "NaN" if np.isnan(array).any() else "infinity"
        raise DataError(f"{origin}: input {spec.name!r} contains {bad}; remove or repair the sample")
    return array


def _check_symbols(feed: Feed, specs: dict[str, InputSpec], origin: str) -> None:
    """One symbol has one size within a sample."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, array in feed.items():
        for size, dim in zip(array.shape, specs[name].dims or (), strict=False):
            if isinstance(dim, int) or dim == "?":
                continue
            known = sizes.setdefault(dim, (size, name))
            if known[0] != size:
                raise DataError(
                    f"{origin}: dimension {dim!r} is {known[0]} in input {known[1]!r} and {size} in input {name!r}; "
                    "they must be equal"
                )


def _numpy_dtype(dtype: ir.DataType) -> np.dtype[Any] | None:
    if dtype == ir.DataType.STRING:
        return np.dtype(object)
    try:
        return np.dtype(dtype.numpy())
    except TypeError:
        return None


def _numpy_name(dtype: ir.DataType) -> str:
    numpy_dtype = _numpy_dtype(dtype)
    return numpy_dtype.name if numpy_dtype is not None else dtype.name.lower()


def _format(dims: tuple[int | str, ...] | None) -> str:
    return "of unknown shape" if dims is None else "[" + ", ".join(map(str, dims)) + "]"
