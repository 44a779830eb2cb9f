"""What a Slice with constant bounds takes: one `Cut` per axis, and two cuts in a row as one."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.passes.simplification.dimensions import Dims
from irc.passes.simplification.scopes import STANDARD_DOMAINS

BOUNDS_ARE_INPUTS_SINCE = 10
END = 2**63 - 1
"""An end that is behind the last element of any axis."""
_FAR = 2**31 - 1
"""From here on an end means all that is left: ONNX recommends INT_MAX where the size is not known."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """What is taken of one axis, as Python writes it: `[start:end:step]`."""

    start: int
    end: int
    step: int = 1


def is_slice(node: ir.Node | None) -> bool:
    """Whether a node is a Slice of ONNX with an input."""
    return (
        node is not None
        and node.op_type == "Slice"
        and node.domain in STANDARD_DOMAINS
        and bool(node.inputs)
        and node.inputs[0] is not None
    )


def cuts(node: ir.Node, dims: Dims | None, opset: int) -> dict[int, Cut] | None:
    """The cuts of a Slice by axis, none negative; None if they are not constant or their axes not known.

    Args:
        node: A Slice.
        dims: Dimensions of its input, needed for negative axes.
        opset: Version of the default domain.
    """
    if opset < BOUNDS_ARE_INPUTS_SINCE:
        starts, ends = list(node.attributes.get_ints("starts", ())), list(node.attributes.get_ints("ends", ()))
        axes = list(node.attributes.get_ints("axes", range(len(starts))))
        steps = [1] * len(starts)
    else:
        inputs = [*node.inputs, None, None]
        given = [None if value is None else constant(value) for value in inputs[1:5]]
        if any(value is not None and array is None for value, array in zip(inputs[1:5], given, strict=True)):
            return None
        if given[0] is None or given[1] is None:
            return None
        starts, ends = _integers(given[0]), _integers(given[1])
        axes = list(range(len(starts))) if given[2] is None else _integers(given[2])
        steps = [1] * len(starts) if given[3] is None else _integers(given[3])
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        return None
    if any(axis < 0 for axis in axes):
        if dims is None:
            return None
        axes = [axis + len(dims) if axis < 0 else axis for axis in axes]
    if len(set(axes)) < len(axes) or any(axis < 0 for axis in axes):
        return None
    return {axis: Cut(*cut) for axis, *cut in zip(axes, starts, ends, steps, strict=True)}


def _integers(array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[int]:
    return [int(i) for i in array.reshape(-1)]


def both(first: Cut, second: Cut, size: int | None) -> Cut | None:
    """One cut for two in a row along one axis; None if that depends on a size which is not known.

    Args:
        first: The cut of the whole axis.
        second: The cut of what the first leaves.
        size: Elements of the whole axis, None if not known.
    """
    if size is not None:
        taken = range(size)[first.start : first.end : first.step][second.start : second.end : second.step]
        if len(taken) == 0:
            return Cut(0, 0)
        # What ends before the first element has no number from the front.
        return Cut(taken.start, taken.stop if taken.stop >= 0 else taken.stop - size, taken.step)
    if first.step != 1 or second.step != 1 or min(first.start, second.start, second.end) < 0:
        return None
    start = first.start + second.start
    if second.end >= _FAR:
        return Cut(min(start, END), first.end)
    return Cut(min(start, END), min(first.end, first.start + second.end)) if first.end >= 0 else None
