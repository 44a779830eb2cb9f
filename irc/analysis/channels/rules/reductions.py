"""Reductions: operators that sum, average or search along axes."""

from __future__ import annotations

from collections.abc import Sequence

from irc.analysis.channels.alignment import Letter
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.normalization import along
from irc.analysis.channels.rules.registration import rule


def reduce(view: NodeView, axes: Sequence[int], *, keepdims: bool) -> None:
    """The first input reduced along some axes: cutting a label there changes the result, the rest passes."""
    tensor = view.read(0)
    groups = view.align((tensor, range(tensor.rank)))
    along(view, groups, axes, "sums up or compares all of them")
    letters: list[Letter] = [("one", i) if i in axes else i for i in range(tensor.rank) if keepdims or i not in axes]
    view.write_bundles(view.kept(groups, letters))


@rule(
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum"),
    *("ReduceLogSumExp", "ReduceSumSquare"),
)
def reduction(view: NodeView) -> None:
    """Y = reduction of x along `axes`, an attribute or an input; along all if there are none, unless that is a noop."""
    rank = view.read(0).rank
    if view.has(1):
        view.parameters(1)
        axes = view.known(1)
        if axes is None:
            view.pin_inputs("unknown axes", f"{view.where} has axes that are computed")
            return
    else:
        axes = list(view.node.attributes.get_ints("axes", []))
    if not axes and view.node.attributes.get_int("noop_with_empty_axes", 0) == 1:
        view.write(view.read(0))
        return
    reduced = [axis % rank for axis in axes] if axes else list(range(rank))
    reduce(view, reduced, keepdims=bool(view.node.attributes.get_int("keepdims", 1)))


@rule("ArgMax", "ArgMin")
def arg_reduction(view: NodeView) -> None:
    """The place of the largest element along an axis, which must keep its places."""
    tensor = view.read(0)
    axis = view.node.attributes.get_int("axis", 0) % tensor.rank
    tensor = view.freed(tensor, axis, "places", "tells places along this axis")
    groups = view.align((tensor, range(tensor.rank)))
    keepdims = view.node.attributes.get_int("keepdims", 1)
    letters: list[Letter] = [("one", i) if i == axis else i for i in range(tensor.rank) if keepdims or i != axis]
    view.write_bundles(view.kept(groups, letters))


@rule("TopK")
def top(view: NodeView) -> None:
    """The largest elements along an axis and their places."""
    view.parameters(1)
    tensor = view.read(0)
    axis = view.node.attributes.get_int("axis", -1) % tensor.rank
    tensor = view.freed(tensor, axis, "places", "orders this axis by value")
    view.write_bundles(tensor.bundles)
    if view.makes(1):
        view.write_bundles(tensor.bundles, 1)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(view: NodeView) -> None:
    """exp(x) over its sum along `axis`; before opset 13 along all axes from `axis` on."""
    tensor = view.read(0)
    flattens = view.opset < 13
    axis = view.node.attributes.get_int("axis", 1 if flattens else -1) % tensor.rank
    for i in range(axis, tensor.rank if flattens else axis + 1):
        tensor = view.freed(tensor, i, "softmax axis", "normalizes along this axis")
    view.write(tensor)


@rule("BiasSoftmax", domain="com.microsoft")
def bias_softmax(view: NodeView) -> None:
    """Softmax(x + bias) along all axes from `axis` on."""
    tensor, bias = view.read(0), view.read(1)
    axis = view.node.attributes.get_int("axis", 1) % tensor.rank
    if bias.rank != tensor.rank:
        view.pin_inputs("broadcast", f"{view.where} broadcasts its bias in a way of its own")
        return
    for i in range(axis, tensor.rank):
        tensor = view.freed(tensor, i, "softmax axis", "normalizes along this axis")
        bias = view.freed(bias, i, "softmax axis", "normalizes along this axis")
    groups = view.align((tensor, range(tensor.rank)), (bias, range(tensor.rank)))
    view.write_bundles(view.kept(groups, range(tensor.rank)))
