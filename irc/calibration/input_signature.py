"""What a model takes, and whether a sample fits: every mismatch is an error that shows expected and found."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.data import Feed, Sample
from irc.errors import DataError

UNKNOWN = "?"
"""A size about which the model says nothing, not even a symbol."""


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input.

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

    @property
    def numpy_dtype(self) -> np.dtype[Any] | None:
        """The numpy dtype of a feed, `object` for text; None for types numpy cannot hand to the runtime."""
        if self.dtype == ir.DataType.STRING:
            return np.dtype(object)
        try:
            dtype = np.dtype(self.dtype.numpy())
        except TypeError:
            return None
        return dtype if dtype.isbuiltin == 1 else None

    @property
    def type_name(self) -> str:
        """The type in numpy's words where it has any."""
        dtype = self.numpy_dtype
        if self.dtype == ir.DataType.UNDEFINED:
            return "sequence or optional"
        return "str" if dtype == np.dtype(object) else self.dtype.name.lower() if dtype is None else dtype.name

    def __str__(self) -> str:
        return f"{self.type_name} {_format(self.dims)}"


@dataclasses.dataclass(frozen=True)
class ArrayHeader:
    """Type and shape of an array that need not be read yet."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{'str' if self.dtype.kind in 'US' else self.dtype.name} {list(self.shape)}"


def signature(model: ir.Model) -> dict[str, InputSpec]:
    """The inputs of a model by name, in order."""
    specs = {}
    for value in model.graph.inputs:
        dims = None
        if value.shape is not None:
            dims = tuple(
                d if isinstance(d, int) else str(d.value) if d.value is not None else UNKNOWN for d in value.shape
            )
        tensor = isinstance(value.type, ir.TensorType) and value.dtype is not None
        dtype = value.dtype if tensor and value.dtype is not None else ir.DataType.UNDEFINED
        name = value.name or ""
        specs[name] = InputSpec(name, dtype, dims, name in model.graph.initializers)
    return specs


def fit(arrays: Feed, specs: Mapping[str, InputSpec], origin: str, *, label: str | None = None) -> Sample:
    """Splits arrays into feed and labels and checks the feed against the model.

    Args:
        arrays: All arrays of one sample, batch axis included.
        specs: What the model takes.
        origin: Where the sample comes from; starts every message.
        label: The one array that is the label; None keeps every array that is no input.

    Raises:
        DataError: For missing inputs, wrong dtypes, ranks or sizes, NaN or infinity.
    """
    check_headers(
        {name: ArrayHeader(array.dtype, array.shape) for name, array in arrays.items()}, specs, origin, label=label
    )
    feed = {name: _finite(_native(arrays[name]), name, origin) for name in specs if name in arrays}
    labels = {name: _native(a) for name, a in arrays.items() if name not in specs and label in (None, name)}
    return Sample(feed, labels, origin)


def check_headers(
    headers: Mapping[str, ArrayHeader], specs: Mapping[str, InputSpec], origin: str, *, label: str | None = None
) -> None:
    """Checks names, types and shapes of one sample's arrays, all that can be told without reading them.

    Raises:
        DataError: For missing inputs, wrong dtypes, ranks or sizes, or an absent label.
    """
    for name, spec in specs.items():
        if name in headers:
            _check_header(headers[name], spec, origin)
        elif not spec.optional:
            raise DataError(_missing(name, headers, specs, origin))
    if label is not None and label in specs:
        raise DataError(f"{origin}: label {label!r} is an input of the model; name an array that is not")
    if label is not None and label not in headers:
        others = [name for name in headers if name not in specs]
        found = f"arrays that are not inputs: {', '.join(others) or 'none'}"
        raise DataError(f"{origin}: there is no label {label!r}; {found}{_suggestion(label, others)}")
    _check_symbols(headers, specs, origin)


def _check_header(found: ArrayHeader, spec: InputSpec, origin: str) -> None:
    wanted = spec.numpy_dtype
    if wanted is None:
        raise DataError(
            f"{origin}: input {spec.name!r} has type {spec.type_name}, which cannot be fed from numpy; "
            "give the model an input of another type and a Cast"
        )
    expected = f"{origin}: input {spec.name!r} is {found}; the model expects {spec}"
    if wanted == np.dtype(object):
        if found.dtype.kind not in "USO":
            raise DataError(f"{expected}; convert it with .astype(str)")
    elif found.dtype.newbyteorder("=") != wanted:
        name = "bool_" if wanted == np.bool_ else wanted.name
        raise DataError(f"{expected}; convert it with .astype(np.{name})")
    if spec.dims is None:
        return
    rank = len(found.shape)
    if rank != len(spec.dims):
        advice = ""
        if rank == len(spec.dims) - 1:
            advice = "; add the batch axis: x[None]"
        elif rank == len(spec.dims) + 1 and found.shape[0] == 1:
            advice = "; drop the first axis: x[0]"
        raise DataError(f"{expected}{advice}")
    for axis, (size, dim) in enumerate(zip(found.shape, spec.dims, strict=True)):
        if isinstance(dim, int) and dim != size:
            raise DataError(f"{expected}; axis {axis} must be {dim}")


def _check_symbols(headers: Mapping[str, ArrayHeader], specs: Mapping[str, InputSpec], origin: str) -> None:
    """One symbol has one size within a sample."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, spec in specs.items():
        if name not in headers or spec.dims is None:
            continue
        for size, dim in zip(headers[name].shape, spec.dims, strict=True):
            if isinstance(dim, int) or dim == UNKNOWN:
                continue
            known, first = sizes.setdefault(dim, (size, name))
            if known != size:
                where = f"{known} in input {first!r} and {size} in input {name!r}"
                raise DataError(f"{origin}: dimension {dim!r} is {where}; the model expects one size")


def _missing(name: str, headers: Mapping[str, ArrayHeader], specs: Mapping[str, InputSpec], origin: str) -> str:
    others = [key for key in headers if key not in specs]
    fitting = [key for key in others if _fits(headers[key], specs[name])]
    close = difflib.get_close_matches(name, others, n=1, cutoff=0.6) or (fitting if len(fitting) == 1 else [])
    takes = ", ".join(f"{spec.name} ({spec})" for spec in specs.values())
    advice = f"; rename {close[0]!r} to {name!r}" if close else "; add it to the sample"
    return f"{origin}: input {name!r} is missing; the model takes {takes} and the sample has {_names(headers)}{advice}"


def _fits(found: ArrayHeader, spec: InputSpec) -> bool:
    same_rank = spec.dims is None or len(spec.dims) == len(found.shape)
    return found.dtype == spec.numpy_dtype and same_rank


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "no arrays"


def _suggestion(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array in this machine's byte order, as the runtime takes it."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _finite(array: np.ndarray[Any, Any], name: str, origin: str) -> np.ndarray[Any, Any]:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array
    bad = ~np.isfinite(array)
    what = "NaN" if np.isnan(array).any() else "infinity"
    index = [int(i) for i in np.argwhere(bad)[0]]
    count = f"{int(bad.sum())} of {array.size} elements, the first at {index}"
    raise DataError(f"{origin}: input {name!r} contains {what} ({count}); the model expects numbers; repair the sample")


def _format(dims: tuple[int | str, ...] | None) -> str:
    return "of any shape" if dims is None else "[" + ", ".join(map(str, dims)) + "]"
