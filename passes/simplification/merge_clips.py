"""Merge two of Relu, Clip, Max and Min with a constant in a row into one.

    Relu(Relu(x))                       =>   Relu(x)
    Relu(Clip(x, 0, 6))                 =>   Clip(x, 0, 6)
    Min(Relu(x), 6)                     =>   Clip(x, 0, 6)
    Clip(Clip(x, a, b), c, d)           =>   Clip(x, a clipped to [c, d], b clipped to [c, d])

Bit by bit: NaN passes through all of them, -0.0 through Relu and Clip; a Max or Min with zero, which decides between
0.0 and -0.0, stays unless the other one does the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, constant_tensor, only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.clipping import BOUNDS_ARE_INPUTS_SINCE, Clipping, Number, clipping, extremes
from irc.passes.simplification.dimensions import Dimensions
from irc.passes.simplification.node_size import stored_bytes
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.unused import remove_unused

CLIPS_SINCE = {
    ir.DataType.FLOAT: 6,
    **dict.fromkeys(
        (ir.DataType.DOUBLE, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT32, ir.DataType.UINT64), 12
    ),
}
"""Types that Clip takes in every runtime, and the opset from which it does."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Merged:
    """What replaces two.

    Attributes:
        keep: "inner" or "outer" if that one does what both do, else "neither".
        low: Lower bound of the new Clip.
        high: Its upper bound.
    """

    keep: str
    low: Number = 0
    high: Number = 0


@dataclasses.dataclass(frozen=True)
class MergeClips(Pass):
    """Clips once instead of twice."""

    name: ClassVar[str] = "merge-clips"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the second of every two in a row, and why not."""
        opset, dims = model.graph.opset_imports.get("", 0), Dimensions(model)
        for node in model.graph.all_nodes():
            second = clipping(node, dims, opset)
            if second is None:
                continue
            data = node.inputs[second.data if isinstance(second, Clipping) else 0]
            inner = data.producer() if data is not None else None
            first = clipping(inner, dims, opset) if inner is not None else None
            if inner is None or first is None:
                continue
            if isinstance(first, str) or isinstance(second, str):
                yield Skip(node, first if isinstance(first, str) else str(second))
                continue
            merged = _merge(first, second)
            source = inner.inputs[first.data]
            reason = _why_not(inner, node, merged, source, opset) if isinstance(merged, _Merged) else merged
            yield Site(node, match=(merged, first, second, opset)) if reason is None else Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Removes the one that changes nothing, or puts a Clip in the place of both."""
        node = site.node
        merged, first, second, opset = site.match
        assert node is not None and isinstance(node.graph, ir.Graph)
        between = node.inputs[second.data]
        inner = between.producer() if between is not None else None
        assert between is not None and inner is not None
        source = inner.inputs[first.data]
        if merged.keep == "inner":
            pass_through(node, between)
        elif merged.keep == "outer":
            node.replace_input_with(second.data, source)
            remove_unused([between])
        else:
            others = [value for value in (*node.inputs, *inner.inputs) if value is not source]
            if opset < BOUNDS_ARE_INPUTS_SINCE:
                replace_node(node, "Clip", [source], {"min": float(merged.low), "max": float(merged.high)})
            else:
                replace_node(node, "Clip", [source, *_bounds(inner, node, merged)])
            remove_unused(others)
        return None


def _merge(first: Clipping, second: Clipping) -> _Merged | str:
    """What does what both do, the first one first."""
    if _adds_nothing(first, second):
        return _Merged("inner")
    zero_remains = second.low <= 0 <= second.high
    wider = _replaces(first.low, second.low) and _replaces(-first.high, -second.high)
    if wider and not (first.decides_zeros and zero_remains):
        return _Merged("outer")
    if first.decides_zeros or second.decides_zeros:
        return "Max or Min with zero decides between 0.0 and -0.0, which Clip does not"
    low, high = second.of(first.low), second.of(first.high)
    if isinstance(low, float) and low == high == 0 and not first.low <= 0 <= first.high:
        return "all become one zero, and a Clip keeps the sign that a zero has"
    return _Merged("neither", low, high)


def _adds_nothing(first: Clipping, second: Clipping) -> bool:
    """Whether the second leaves everything as it is that the first gives."""
    if not second.decides_zeros:
        return second.low <= first.low and first.high <= second.high
    if first.decides_zeros and _same(first.low, second.low) and _same(first.high, second.high):
        return True
    return (first.low > 0 and second.low == 0) or (first.high < 0 and second.high == 0)


def _replaces(inner: Number, outer: Number) -> bool:
    """Whether a lower bound makes one before it superfluous."""
    return inner < outer or _same(inner, outer)


def _same(a: Number, b: Number) -> bool:
    return a == b and math.copysign(1, a) == math.copysign(1, b)


def _why_not(inner: ir.Node, outer: ir.Node, merged: _Merged, source: ir.Value | None, opset: int) -> str | None:
    """Why two must stay although one could do what they do, or None."""
    if merged.keep == "inner":
        return None
    if not only_consumer(inner.outputs[0], outer):
        return f"the output of the {inner.op_type} before it has other users"
    if merged.keep == "outer":
        return None
    dtype = outer.outputs[0].dtype
    assert dtype is not None  # what is not known to clip numbers is no clipping
    if "Clip" not in (inner.op_type, outer.op_type) and opset < CLIPS_SINCE.get(dtype, opset + 1):
        return f"runtimes may have no Clip of {dtype.name} in opset {opset}"
    if opset < BOUNDS_ARE_INPUTS_SINCE:
        return None
    larger = _growth(inner, outer, merged, source, dtype) > 0
    return "the bounds to store are larger than what they replace" if larger else None


def _growth(inner: ir.Node, outer: ir.Node, merged: _Merged, source: ir.Value | None, dtype: ir.DataType) -> int:
    """Bytes that a Clip in the place of both adds to the model, at most, beside the mention of what is clipped."""
    added = (
        _mention("Clip") - 2 - _mention(inner.op_type) - _mention(outer.op_type) - 2 * _mention(inner.outputs[0].name)
    )
    stay = []
    for name, bound, end in zip(("min", "max"), (merged.low, merged.high), extremes(dtype), strict=True):
        held = _held(inner, outer, bound)
        if bound == end:
            added += _mention("")  # it is left out, which a bound after it makes the file say
        elif held is None:
            added += stored_bytes(f"{name}__", 1, int(dtype.itemsize))
        else:
            added += _mention(held.name)
            stay.append(held)
    given = [value for value in (*inner.inputs, *outer.inputs) if value is not None and value is not source]
    constants = {value: tensor for value in given if (tensor := constant_tensor(value)) is not None}
    added -= sum(_mention(value.name) for value in given if value in constants)
    for value, tensor in constants.items():
        if value not in stay and all(use.node in (inner, outer) for use in value.uses()):
            added -= tensor.nbytes + _mention(value.name) + 6
    return added


def _mention(name: str | None) -> int:
    return len(name or "") + 2


def _held(inner: ir.Node, outer: ir.Node, bound: Number) -> ir.Value | None:
    """A scalar constant that one of two operators has already."""
    for value in (*outer.inputs, *inner.inputs):
        array = constant(value) if value is not None and value.shape is not None and len(value.shape) == 0 else None
        if array is not None and _same(array.item(), bound):
            return value
    return None


def _bounds(inner: ir.Node, outer: ir.Node, merged: _Merged) -> list[ir.Value | None]:
    """The bounds as inputs of a Clip, None for what it does without."""
    graph, dtype = outer.graph, outer.outputs[0].dtype
    assert isinstance(graph, ir.Graph) and dtype is not None
    result: list[ir.Value | None] = []
    for name, bound, end in zip(("min", "max"), (merged.low, merged.high), extremes(dtype), strict=True):
        if bound == end:
            result.append(None)
            continue
        held = _held(inner, outer, bound)
        result.append(held if held is not None else add_initializer(graph, name, np.array(bound, dtype.numpy())))
    return result if result[-1] is not None else result[:-1]
