"""Operators that move or scale elements of one input: where the channels are behind them, and where they were in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.passes.quantization.channel_layout import Layout

_SAME = ("Relu", "LeakyRelu", "PRelu", "Identity", "Neg")
"""f(s x) = s f(x) for s > 0, element by element."""
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_Move = Callable[[ir.Node, Layout], Layout | None]


def _unmoved(node: ir.Node, layout: Layout) -> Layout | None:
    return layout


def _pooled(node: ir.Node, layout: Layout) -> Layout | None:
    return layout if layout.axes == (1,) else None


def _padded(node: ir.Node, layout: Layout) -> Layout | None:
    """Zeros stay zeros, and copies of elements scale with them; the channels themselves must not be padded."""
    if node.attributes.get_string("mode", "constant") == "constant" and _input(node, 2) is not None:
        fill = constant(node.inputs[2])
        if fill is None or fill.any():
            return None
    pads = constant(node.inputs[1]) if _input(node, 1) is not None else None
    if pads is None or _input(node, 3) is not None:
        return None
    rank = len(pads) // 2
    return None if any(pads[axis] or pads[axis + rank] for axis in layout.axes) else layout


def _averaged(node: ir.Node, layout: Layout) -> Layout | None:
    """A mean over other axes than those of the channels."""
    rank, axes = _averaged_axes(node)
    if set(axes) & set(layout.axes) or not axes:
        return None
    if node.attributes.get_int("keepdims", 1):
        return layout
    kept = [axis for axis in range(rank) if axis not in axes]
    return Layout.of([kept.index(axis) for axis in layout.axes], layout.channels)


def _averaged_back(node: ir.Node, layout: Layout) -> Layout | None:
    rank, axes = _averaged_axes(node)
    if not axes:
        return None
    if node.attributes.get_int("keepdims", 1):
        return None if set(axes) & set(layout.axes) else layout
    kept = [axis for axis in range(rank) if axis not in axes]
    return Layout.of([kept[axis] for axis in layout.axes], layout.channels)


def _averaged_axes(node: ir.Node) -> tuple[int, list[int]]:
    """Rank of what is averaged, and the axes; none where they are not known."""
    source = node.inputs[0]
    assert source is not None and source.shape is not None
    given = constant(_input(node, 1)) if len(node.inputs) > 1 else np.array(node.attributes.get_ints("axes", ()))
    rank = len(source.shape)
    return rank, [] if given is None else [int(axis) % rank for axis in given.reshape(-1)]


def _turned(node: ir.Node, layout: Layout) -> Layout | None:
    return layout.transposed(_order(node))


def _turned_back(node: ir.Node, layout: Layout) -> Layout | None:
    return layout.before_transpose(_order(node))


def _order(node: ir.Node) -> list[int]:
    source = node.inputs[0]
    assert source is not None and source.shape is not None
    rank = len(source.shape)
    return list(node.attributes.get_ints("perm", ()) or range(rank)[::-1])


def _reshaped(node: ir.Node, layout: Layout) -> Layout | None:
    old, new = _shapes(node)
    return layout.reshaped(old, new)


def _reshaped_back(node: ir.Node, layout: Layout) -> Layout | None:
    old, new = _shapes(node)
    return layout.reshaped(new, old)


def _shapes(node: ir.Node) -> tuple[list[Any], list[Any]]:
    old, new = node.inputs[0], node.outputs[0]
    assert old is not None and old.shape is not None and new.shape is not None
    return list(old.shape), list(new.shape)


MOVES: dict[str, tuple[_Move, _Move]] = {
    **{op: (_unmoved, _unmoved) for op in _SAME},
    **{op: (_pooled, _pooled) for op in _POOLS},
    **{op: (_reshaped, _reshaped_back) for op in _RESHAPES},
    "ReduceMean": (_averaged, _averaged_back),
    "ReduceSum": (_averaged, _averaged_back),
    "Pad": (_padded, _padded),
    "Transpose": (_turned, _turned_back),
}
"""By operator, a layout behind it by that in front, and the other way round; None where it does not go through."""


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None
