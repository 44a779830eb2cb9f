"""How two models differ in what they take and give, and how a feed of one can be given to the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.type_names import type_name


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Which inputs (or outputs) of two models belong together.

    Attributes:
        names: Name in A to name in B.
        casts: Numpy type that an input of B needs where it differs from A's, by name in B.
        notes: How they were paired where it is not plain, in words.
        impossible: Why B cannot be fed what A is fed; "" if it can.
    """

    names: dict[str, str]
    casts: dict[str, np.dtype[Any]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    impossible: str = ""

    @property
    def same(self) -> bool:
        """Whether a feed of A is a feed of B as it is."""
        return not self.impossible and not self.casts and all(a == b for a, b in self.names.items())

    def feed(self, feed: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """A feed of A as B takes it."""
        translated = {}
        for name, array in feed.items():
            other = self.names.get(name)
            if other is not None:
                translated[other] = array.astype(self.casts[other]) if other in self.casts else array
        return translated


def interface_differences(a: ir.Model, b: ir.Model) -> list[str]:
    """Every difference in names, order, types and shapes of inputs and outputs, each in words."""
    found: list[str] = []
    for what, mine, theirs in (
        ("input", required_inputs(a), required_inputs(b)),
        ("output", list(a.graph.outputs), list(b.graph.outputs)),
    ):
        names, others = [v.name or "" for v in mine], [v.name or "" for v in theirs]
        found += [f"{what} {name!r} is only in A" for name in names if name not in others]
        found += [f"{what} {name!r} is only in B" for name in others if name not in names]
        if sorted(names) == sorted(others) and names != others:
            found.append(f"{what}s are in another order: {', '.join(names)} in A and {', '.join(others)} in B")
        by_name = {v.name: v for v in theirs}
        for value in mine:
            other = by_name.get(value.name)
            if other is None:
                continue
            if value.dtype != other.dtype:
                found.append(
                    f"{what} {value.name!r} is {type_name(value.dtype)} in A and {type_name(other.dtype)} in B"
                )
            if _shown(value) != _shown(other):
                found.append(f"{what} {value.name!r} is {_shown(value)} in A and {_shown(other)} in B")
    return found


def pair_inputs(a: ir.Model, b: ir.Model) -> Pairing:
    """How the inputs of two models belong together: by name, else by position where types and ranks agree."""
    mine, theirs = required_inputs(a), required_inputs(b)
    names = {v.name or "" for v in mine}
    missing = [v.name or "" for v in theirs if v.name not in names]
    notes: list[str] = []
    if not missing:
        pairs = [
            (v, next(w for w in theirs if w.name == v.name)) for v in mine if any(w.name == v.name for w in theirs)
        ]
        dropped = [v.name for v in mine if all(w.name != v.name for w in theirs)]
        if dropped:
            notes.append(f"B is run without {', '.join(map(repr, dropped))}, which it does not take")
    elif len(mine) == len(theirs) and all(_alike(v, w) for v, w in zip(mine, theirs, strict=True)):
        pairs = list(zip(mine, theirs, strict=True))
        notes.append("inputs paired by position: " + _pairs(pairs))
    else:
        return Pairing({}, impossible=f"B takes {', '.join(map(repr, missing))}, which A does not")
    casts: dict[str, np.dtype[Any]] = {}
    for value, other in pairs:
        clash = _clash(value, other)
        if clash:
            return Pairing({}, impossible=clash)
        if value.dtype != other.dtype and other.dtype is not None:
            casts[other.name or ""] = np.dtype(other.dtype.numpy())
            notes.append(f"input {other.name!r} of B is fed the same values as {type_name(other.dtype)}")
    return Pairing({v.name or "": w.name or "" for v, w in pairs}, casts, tuple(notes))


def pair_outputs(a: ir.Model, b: ir.Model) -> Pairing:
    """How the outputs of two models belong together: by name; by position if they share none."""
    mine, theirs = list(a.graph.outputs), list(b.graph.outputs)
    others = {v.name or "" for v in theirs}
    common = {v.name or "": v.name or "" for v in mine if v.name in others}
    if common:
        return Pairing(common)
    if len(mine) == len(theirs):
        pairs = list(zip(mine, theirs, strict=True))
        return Pairing(
            {v.name or "": w.name or "" for v, w in pairs}, notes=("outputs paired by position: " + _pairs(pairs),)
        )
    return Pairing({}, impossible=f"A has {len(mine)} outputs and B has {len(theirs)}, and no name is in both")


def required_inputs(model: ir.Model) -> list[ir.Value]:
    """Inputs without a default."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def _pairs(pairs: Sequence[tuple[ir.Value, ir.Value]]) -> str:
    return ", ".join(f"{a.name!r} and {b.name!r}" for a, b in pairs)


def _kind(dtype: ir.DataType | None) -> str:
    if dtype is None or dtype in (ir.DataType.STRING, ir.DataType.BOOL):
        return type_name(dtype)
    return "floating point" if dtype.is_floating_point() else "integer"


def _alike(a: ir.Value, b: ir.Value) -> bool:
    ranks = [len(v.shape) for v in (a, b) if v.shape is not None]
    return _kind(a.dtype) == _kind(b.dtype) and len(set(ranks)) <= 1


def _clash(a: ir.Value, b: ir.Value) -> str:
    """Why the values fed to `a` cannot be fed to `b`."""
    if _kind(a.dtype) != _kind(b.dtype):
        return f"input {a.name!r} is {type_name(a.dtype)} in A and {type_name(b.dtype)} in B"
    if a.shape is None or b.shape is None:
        return ""
    clash = len(a.shape) != len(b.shape) or any(
        isinstance(x, int) and isinstance(y, int) and x != y for x, y in zip(a.shape, b.shape, strict=True)
    )
    return f"input {a.name!r} is {_shown(a)} in A and {_shown(b)} in B" if clash else ""


def _shown(value: ir.Value) -> str:
    if value.shape is None:
        return "of unknown rank"
    return "[" + ", ".join(str(d) if isinstance(d, int) else str(d.value or "?") for d in value.shape) + "]"
