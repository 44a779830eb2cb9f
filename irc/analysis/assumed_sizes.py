"""Sizes for a model's dynamic dimensions: those the user gives, and sensible ones, said out loud, for the rest.

A dynamic dimension goes by its symbol ("batch"); one without a symbol by its input and axis ("image:0").
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from irc.errors import UsageError

SEQUENCE = 128
"""Default of whatever is neither a batch nor an image side: tokens, frames, boxes."""
IMAGE_SIDE = 224
_BATCH = re.compile(r"batch|^(?:n|b|bs|num_images)$")
_SEQUENCE = re.compile(r"seq|len|time|token|frame|step|^(?:t|s|l)$")
_IMAGE = re.compile(r"height|width|^(?:h|w)$")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the dynamic dimensions of a model's inputs.

    Attributes:
        given: What the user said, by symbol or "input:axis"; may name symbols inside the model too.
        assumed: What irc assumed for the rest.
    """

    given: Mapping[str, int]
    assumed: Mapping[str, int]

    @property
    def all(self) -> dict[str, int]:
        """Every known size by name."""
        return {**self.assumed, **self.given}

    def dims(self, value: ir.Value) -> tuple[int | None, ...] | None:
        """The shape of a value with known sizes put in; None for what stays unknown.

        Sums and products of symbols ("past + seq") are computed.
        """
        if value.shape is None:
            return None
        known = self.all
        return tuple(_size(dim, known.get(f"{value.name}:{axis}"), known) for axis, dim in enumerate(value.shape))


def parse_sizes(texts: Iterable[str]) -> dict[str, int]:
    """Sizes from `NAME=SIZE` texts, the spelling of `--dim`.

    Raises:
        UsageError: If a text is not of that form, a size is negative, or a name is given twice with different sizes.
    """
    sizes: dict[str, int] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not equals or not name or not number.strip().isdigit():
            raise UsageError(f"--dim {text!r} is not NAME=SIZE; for example --dim batch=1")
        if sizes.setdefault(name.strip(), int(number)) != int(number):
            raise UsageError(f"--dim {name.strip()} is given twice, as {sizes[name.strip()]} and {int(number)}")
    return sizes


def dynamic_axes(model: ir.Model) -> dict[str, list[tuple[str, int]]]:
    """Where each dynamic dimension of the inputs occurs: name to (input, axis) pairs, in order of first occurrence."""
    found: dict[str, list[tuple[str, int]]] = {}
    for value in model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int):
                found.setdefault(_name(value, axis, dim), []).append((value.name or "", axis))
    return found


def assume_sizes(model: ir.Model, given: Mapping[str, int] | None = None) -> Sizes:
    """Sizes for all dynamic dimensions of the inputs.

    Where none is given: 1 for batches, 224 for image sides, 128 for the rest.

    Raises:
        UsageError: If a given name is no dynamic dimension of the model.
    """
    given = dict(given or {})
    axes = dynamic_axes(model)
    known = [*axes, *(symbol for symbol in _inner_symbols(model) if symbol not in axes)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known) or 'none'}"
            raise UsageError(f"--dim {name}: the model has no such dynamic dimension; {advice}")
    inputs = {value.name: value for value in model.graph.inputs}
    bases: dict[str, int] = {}
    for name, places in axes.items():
        first, axis = places[0]
        value = inputs[first]
        dim = (value.shape or ())[axis]
        symbols = symbols_of(dim)
        if symbols and symbols != [name]:
            for symbol in symbols:  # a computed dimension: its parts get sizes, it follows
                if symbol not in axes:
                    bases.setdefault(symbol, _default(symbol, value, -1))
        else:
            bases.setdefault(name, _default(name, value, axis))
    return Sizes(given, {name: size for name, size in bases.items() if name not in given})


def symbols_of(dim: int | ir.SymbolicDim) -> list[str]:
    """The symbols a dimension is made of: none for a number or an unnamed one, itself if it is no formula."""
    if isinstance(dim, int) or dim.value is None:
        return []
    try:
        return sorted(dim.free_symbols())
    except ValueError:
        return [str(dim.value)]


def _size(dim: int | ir.SymbolicDim, given: int | None, known: Mapping[str, int]) -> int | None:
    if isinstance(dim, int):
        return dim
    if given is not None or dim.value is None:
        return given
    if str(dim.value) in known:
        return known[str(dim.value)]
    try:
        found = dim.evaluate(dict(known))
    except (ValueError, ZeroDivisionError):
        return None
    return found if isinstance(found, int) else None


def _name(value: ir.Value, axis: int, dim: ir.SymbolicDim) -> str:
    return str(dim.value) if dim.value is not None else f"{value.name}:{axis}"


def _default(name: str, value: ir.Value, axis: int) -> int:
    word = "" if name == f"{value.name}:{axis}" else name.lower()
    if _BATCH.search(word):
        return 1
    if _IMAGE.search(word):
        return IMAGE_SIDE
    if _SEQUENCE.search(word):
        return SEQUENCE
    if axis == 0:
        return 1
    image = value.shape is not None and len(value.shape) == 4 and axis >= 2
    return IMAGE_SIDE if image and value.dtype is not None and value.dtype.is_floating_point() else SEQUENCE


def _inner_symbols(model: ir.Model) -> list[str]:
    found: dict[str, None] = {}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            for dim in value.shape or ():
                found.update(dict.fromkeys(symbols_of(dim)))
    return list(found)
