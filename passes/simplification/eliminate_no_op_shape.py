"""Remove nodes that move nothing: what reshapes, permutes, slices, pads, repeats or resizes a tensor into itself.

Transpose<perm=[0, 1, 2]>(x)                =>  x
Reshape(x: float[n, 3, 4], [0, -1, 4])      =>  x
Slice(x, starts=[0], ends=[INT64_MAX])      =>  x
Expand(x: float[n, 4], [1, 4])              =>  x
Concat<axis=1>(x)                           =>  x
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.dimensions import Dim, Dimensions, Dims, is_number
from irc.passes.simplification.pass_through import pass_through, why_no_gain

TO_THE_END = 2**31 - 1
"""A Slice that ends here or later goes to the end of any dimension: ONNX recommends INT_MAX for dimensions of unknown size."""


@dataclasses.dataclass(frozen=True)
class EliminateNoOpShape(Pass):
    """Removes shape operators that provably return their input, symbolic dimensions included.

    Where one connects a graph input with a graph output, an Identity takes its place if it is smaller.
    """

    name: ClassVar[str] = "eliminate-no-op-shape"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the nodes that return their input, and those that would but for a detail."""
        opset, dims = model.graph.opset_imports.get("", 0), Dimensions(model)
        for node in model.graph.all_nodes():
            rule = _RULES.get(node.op_type)
            if rule is None or node.domain not in ("", "ai.onnx") or not node.inputs or node.inputs[0] is None:
                continue
            answer = rule(node, dims, opset)
            if isinstance(answer, str):
                yield Skip(node, answer)
            elif answer:
                reason = why_no_gain(node, node.inputs[0])
                yield Site(node) if reason is None else Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Lets the users of the output use the input."""
        node = site.node
        assert node is not None and node.inputs[0] is not None
        pass_through(node, node.inputs[0])
        return None


def _transpose(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    before = dims.of(node.inputs[0])
    perm = node.attributes.get_ints("perm", None)
    if perm is None:
        perm = None if before is None else range(len(before))[::-1]
    if perm is None or (before is not None and len(perm) != len(before)):
        return False
    # Axes of size 1 may trade places with each other.
    return all(axis == i or (before is not None and before[i] == 1) for i, axis in enumerate(perm))


def _reshape(node: ir.Node, dims: Dimensions, opset: int) -> bool | str:
    before = dims.of(node.inputs[0])
    if before is None:
        return False
    target: Dims | None
    target = tuple(node.attributes.get_ints("shape", ())) if opset < 5 else dims.elements(node.inputs[1])
    if target is None or len(target) != len(before):
        return dims.of(node.outputs[0]) == before
    copies = not node.attributes.get_int("allowzero", 0)
    other = [t for t, b in zip(target, before, strict=True) if t != b and not (t == 0 and copies)]
    # Where all other dimensions stay, -1 is what it was.
    if not other or other == [-1]:
        return True
    unknown = any(t != b and not (is_number(t) and is_number(b)) for t, b in zip(target, before, strict=True))
    return "it may change the shape: not all dimensions of its input are known" if unknown and -1 in other else False


def _flatten(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    before = dims.of(node.inputs[0])
    if before is None or len(before) != 2:
        return False
    axis = (
        node.attributes.get_int("axis", 1) % 3
        if node.attributes.get_int("axis", 1) >= 0
        else node.attributes.get_int("axis") + 2
    )
    return axis == 1 or (axis == 0 and before[0] == 1) or (axis == 2 and before[1] == 1)


def _squeeze(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    before, axes = dims.of(node.inputs[0]), _axes(node, dims, since=13, opset=opset)
    # No axes means all of size 1; whether an empty list means that too, runtimes do not agree.
    return axes == () and before is not None and all(is_number(dim) and dim != 1 for dim in before)


def _unsqueeze(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    return _axes(node, dims, since=13, opset=opset) == ()


def _expand(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    before, target = dims.of(node.inputs[0]), dims.elements(node.inputs[1])
    if before is None or target is None:
        return target == () or (before is not None and dims.of(node.outputs[0]) == before)
    if len(target) > len(before):
        return False
    return all(t in (1, b) for t, b in zip(target, before[len(before) - len(target) :], strict=True))


def _tile(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    repeats = dims.elements(node.inputs[1]) if opset >= 6 else None
    return repeats is not None and all(r == 1 for r in repeats)


def _slice(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    before = dims.of(node.inputs[0])
    starts, ends, axes, steps = _bounds(node, dims, opset)
    if starts is None or ends is None or axes is None or steps is None or any(step != 1 for step in steps):
        return False
    for start, end, axis in zip(starts, ends, axes, strict=True):
        known = before is not None and isinstance(axis, int) and -len(before) <= axis < len(before)
        size = before[axis] if known else None  # type: ignore[index]
        if start != 0 and not (isinstance(start, int) and isinstance(size, int) and start <= -size):
            return False
        last = end if isinstance(end, int) else -1
        if end != size and last < (size if isinstance(size, int) else TO_THE_END):
            return False
    return True


def _bounds(node: ir.Node, dims: Dimensions, opset: int) -> tuple[Dims | None, Dims | None, Dims | None, Dims | None]:
    """Starts, ends, axes and steps of a Slice; None for what is not known."""
    if opset < 10:
        first, last = (tuple(node.attributes.get_ints(name)) for name in ("starts", "ends"))
        return first, last, tuple(node.attributes.get_ints("axes", range(len(first)))), (1,) * len(first)
    starts, ends = dims.elements(node.inputs[1]), dims.elements(node.inputs[2])
    count = len(starts or ())
    axes = dims.elements(node.inputs[3]) if _has(node, 3) else tuple(range(count))
    return starts, ends, axes, dims.elements(node.inputs[4]) if _has(node, 4) else (1,) * count


def _pad(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    if opset >= 11:
        pads = dims.elements(node.inputs[1])
    else:
        pads = tuple(node.attributes.get_ints("pads" if opset > 1 else "paddings", (1,)))
    return pads is not None and all(pad == 0 for pad in pads)


def _concat(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    return len(node.inputs) == 1


def _split(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    return len(node.outputs) == 1 and node.attributes.get_int("num_outputs", 1) == 1


def _reduce(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    # Where there is this attribute, the axes are an input.
    if not node.attributes.get_int("noop_with_empty_axes", 0):
        return False
    return not _has(node, 1) or dims.elements(node.inputs[1]) == ()


def _resize(node: ir.Node, dims: Dimensions, opset: int) -> bool | str:
    before = dims.of(node.inputs[0])
    mode = node.attributes.get_string("coordinate_transformation_mode", "")
    if opset < 9:  # an Upsample: there is no Resize yet
        same = all(scale == 1.0 for scale in node.attributes.get_floats("scales", (0.0,)))
    else:
        index = 1 if opset < 11 else 2
        scales = constant(node.inputs[index]) if _has(node, index) else None
        same = scales is not None and scales.size > 0 and bool(np.all(scales == 1.0))
        if _has(node, 3):  # then there are no scales, or an empty list of them
            axes = node.attributes.get_ints("axes", None)
            sized = (
                None
                if before is None
                else tuple(before[axis] for axis in (range(len(before)) if axes is None else axes))
            )
            same = sized is not None and dims.elements(node.inputs[3]) == sized
    if same and mode in ("tf_crop_and_resize", "tf_half_pixel_for_nn"):
        return f"coordinate_transformation_mode {mode} need not read its input where it is"
    return same


def _blocks(node: ir.Node, dims: Dimensions, opset: int) -> bool:
    return node.attributes.get_int("blocksize", 0) == 1


def _has(node: ir.Node, index: int) -> bool:
    return index < len(node.inputs) and node.inputs[index] is not None


def _axes(node: ir.Node, dims: Dimensions, *, since: int, opset: int) -> tuple[Dim, ...] | None:
    """The axes an operator names, () for none; they are an input from opset `since` on."""
    if opset < since:
        return tuple(node.attributes.get_ints("axes", ()))
    return dims.elements(node.inputs[1]) if _has(node, 1) else ()


_RULES: dict[str, Callable[[ir.Node, Dimensions, int], bool | str]] = {
    "Concat": _concat,
    "DepthToSpace": _blocks,
    "Expand": _expand,
    "Flatten": _flatten,
    "Pad": _pad,
    # The other reductions (L1, SumSquare, LogSum, ...) change the elements even where they reduce nothing.
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"), _reduce),
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _blocks,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
