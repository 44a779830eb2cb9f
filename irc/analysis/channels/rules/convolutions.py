"""Convolutions: plain, grouped and depthwise, and their transposes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.constraints import Reason
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.reshaping import reshaped
from irc.analysis.channels.rules.registration import rule


@rule("Conv")
def convolution(view: NodeView) -> None:
    """Y[n, o, ...] = sum over i of W[o, i, ...] * X[n, i, ...] + B[o], i and o within their group."""
    convolve(view)


@rule("FusedConv", domain="com.microsoft")
def fused_convolution(view: NodeView) -> None:
    """The same plus a tensor like Y, then an activation."""
    convolve(view, like=(3,))


@rule("ConvTranspose")
def transposed_convolution(view: NodeView) -> None:
    """The same with W[i, o of its group, ...]."""
    convolve(view, transposed=True)


def convolve(
    view: NodeView,
    *,
    transposed: bool = False,
    weight: int = 1,
    outputs: Sequence[int] = (2,),
    like: Sequence[int] = (),
    zeros: Mapping[int, int] | None = None,
) -> None:
    """A convolution of the first input.

    Args:
        view: The node.
        transposed: Whether the weight has its inputs first.
        weight: Index of the weight.
        outputs: Inputs with one element per output channel, or one for all: biases, scales, zero points.
        like: Inputs with the shape of the result.
        zeros: For integer operands, the input that holds their zero point.
    """
    x = view.read(0)
    groups = view.node.attributes.get_int("group", 1)
    for axis in range(2, x.rank):
        x = view.freed(x, axis, "kernel axis", "slides along this axis")
    batch, inputs = x.dims[:2]
    channels = view.dims_out()[1]
    x = _split(view, Labelled(x.dims[:2], x.bundles), (batch, groups, inputs // groups))
    of_output, of_input = _weight(view, weight, groups, inputs, channels, transposed=transposed)
    read = view.align((x, ("batch", "group", "input")), (of_input, ("group", "input")))
    rows = view.kept(read, ("batch", "group"))
    dims = (batch, groups, channels // groups)
    operands: list[tuple[Labelled, Sequence[str]]] = [
        (Labelled((batch, groups), tuple(rows)), ("batch", "group")),
        (of_output, ("group", "output")),
    ]
    for index in outputs:
        if view.has(index) and math.prod(view.read(index).dims) > 1:
            operands.append((_split(view, view.read(index), (groups, channels // groups)), ("group", "output")))
    for index in like:
        if view.has(index):
            tensor = view.read(index)
            for axis in range(2, tensor.rank):
                tensor = view.freed(tensor, axis, "kernel axis", "slides along this axis")
            tensor = Labelled(tensor.dims[:2], tensor.bundles)
            operands.append((_split(view, tensor, dims), ("batch", "group", "output")))
    made = view.align(*operands)
    view.costs([*read, *made], shared=rows, zeros=zeros)
    split = Labelled(dims, tuple(view.kept(made, ("batch", "group", "output"))))
    for bundle in split.bundles:
        view.constraints.box(bundle)
    view.write_bundles(_split(view, split, (batch, channels)).bundles)


def _split(view: NodeView, tensor: Labelled, dims: tuple[int, ...]) -> Labelled:
    return reshaped(view.constraints, tensor, dims, view.where)


def _weight(
    view: NodeView, index: int, groups: int, inputs: int, outputs: int, *, transposed: bool
) -> tuple[Labelled, Labelled]:
    """The weight's labels on (group, output of the group), and on (group, input of the group).

    Where the initializer is this node's alone, every group has labels of its own for its inputs (its outputs, if transposed); where
    they are computed, or shared, all groups have the same labels there, so that they are cut alike.
    """
    value = view.node.inputs[index]
    assert value is not None
    dims = view.propagation.dims(value) or ()
    sizes = (groups, outputs // groups, inputs // groups)
    first, second = (sizes[2], sizes[1]) if transposed else (sizes[1], sizes[2])
    slot = None
    if groups > 1 and second > 1:
        view_dims, axis_of = (groups, first, second, *dims[2:]), (0, 0, 1, *range(2, len(dims)))
        slot = view.propagation.claim(value, view_dims, axis_of, ((0, 1), (0, 2)))
    if slot is not None:
        by_axis = {bundle.axes[-1]: bundle for bundle in slot.bundles}
        pair = [_placed(by_axis, axis, (groups, size)) for axis, size in ((1, first), (2, second))]
        return (pair[1], pair[0]) if transposed else (pair[0], pair[1])
    weight = view.read(index)
    for axis in range(2, weight.rank):
        weight = view.freed(weight, axis, "kernel axis", "has it along the kernel")
    rows = Labelled(weight.dims[:1], tuple(b for b in weight.bundles if b.axes == (0,)))
    columns = Labelled((1, second), tuple(b.at((1,)) for b in weight.bundles if b.axes == (1,)))
    crossed = [b for b in weight.bundles if len(b.axes) > 1]
    view.constraints.pin_all(crossed, Reason("merged axes", f"{view.where} has a weight with a joint index"))
    split = _split(view, rows, (groups, first))
    return (columns, split) if transposed else (split, columns)


def _placed(by_axis: dict[int, Bundle], axis: int, dims: tuple[int, int]) -> Labelled:
    """The bundle of a claimed weight that ends at an axis of the view, on (group, that axis)."""
    bundle = by_axis.get(axis)
    if bundle is None:  # one input or output per group: the groups themselves
        bundle = by_axis.get(0)
        return Labelled(dims, () if bundle is None else (bundle.at((0,)),))
    return Labelled(dims, (bundle.at((0, 1)),))
