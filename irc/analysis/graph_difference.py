"""How two graphs differ, as counts: operators and constants; and whether two files are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from irc.analysis.description import operator_counts


def operator_differences(a: ir.Model, b: ir.Model) -> dict[str, tuple[int, int]]:
    """Numbers of nodes in A and in B, by operator, where they differ; in the order of A, then of B."""
    mine, theirs = operator_counts(a), operator_counts(b)
    return {
        name: (mine.get(name, 0), theirs.get(name, 0))
        for name in (*mine, *(name for name in theirs if name not in mine))
        if mine.get(name, 0) != theirs.get(name, 0)
    }


def constant_differences(a: ir.Model, b: ir.Model) -> dict[str, int]:
    """How many constants of one name are `equal` (type, shape, bytes) or `changed`, and `only_a` and `only_b`."""
    mine, theirs = _constants(a), _constants(b)
    both = [name for name in mine if name in theirs]
    equal = sum(_equal_tensors(mine[name], theirs[name]) for name in both)
    return {
        "equal": equal,
        "changed": len(both) - equal,
        "only_a": len(mine) - len(both),
        "only_b": len(theirs) - len(both),
    }


def _constants(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    return {
        value.name or "": value.const_value
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None
    }


def _equal_tensors(a: ir.TensorProtocol, b: ir.TensorProtocol) -> bool:
    if a.dtype != b.dtype or tuple(a.shape) != tuple(b.shape):
        return False
    if a.dtype == ir.DataType.STRING:
        return bool(np.array_equal(a.numpy(), b.numpy()))
    return a.tobytes() == b.tobytes()


def equal_files(a: Path, b: Path, *, data_files: Sequence[str] = ()) -> bool:
    """Whether two model files, and the data files of these names beside them, are equal byte by byte."""
    pairs = [(a, b), *((a.resolve().parent / name, b.resolve().parent / name) for name in data_files)]
    return all(_equal_bytes(x, y) for x, y in pairs)


def _equal_bytes(a: Path, b: Path) -> bool:
    if not b.exists():
        return False
    if a.samefile(b):
        return True
    if a.stat().st_size != b.stat().st_size:
        return False
    with a.open("rb") as first, b.open("rb") as second:
        while chunk := first.read(1 << 20):
            if chunk != second.read(1 << 20):
                return False
    return True
