"""Slice and Gather: coordinates of an axis picked by constants, or by what is only known at run time."""

from __future__ import annotations

from collections.abc import Sequence

from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.other_sizes import fixed_elements
from irc.analysis.channels.pieces import along_fixed, picked, piece, replaced, single
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.registration import rule
from irc.ir import constant


@rule("Slice")
def slice_(view: NodeView) -> None:
    """Y = X[start:end:step] along some axes: labels are sliced where the bounds are constants."""
    view.parameters(1, 2, 3, 4)
    tensor = view.read(0)
    bounds = slice_bounds(view, tensor.rank)
    if bounds is None:
        for axis in range(tensor.rank):
            tensor = view.freed(tensor, axis, "computed bounds", "slices along axes that are not known")
        return view.write_bundles(tensor.bundles)
    for axis, (start, end, step) in bounds.items():
        if tensor.on(axis) is not None and (start is None or end is None or step is None):
            tensor = view.freed(tensor, axis, "computed bounds", "slices it with bounds that are not constants")
        tensor = along_fixed(view, tensor, axis)
        bundle = tensor.on(axis)
        if bundle is None or start is None or end is None or step is None:
            continue
        places = range(*slice(start, end, step).indices(tensor.dims[axis]))
        part: Bundle | None = bundle
        if step == 1 and len(places) < tensor.dims[axis]:
            part = piece(view, bundle, axis, places.start, places.stop)
        elif step != 1:
            part = picked(view, bundle, axis, list(places))
        tensor = Labelled(tensor.dims, replaced(tensor, bundle, part))
    return view.write_bundles(tensor.bundles)


def slice_bounds(view: NodeView, rank: int) -> dict[int, tuple[int | None, int | None, int | None]] | None:
    """Start, end and step by axis, None for those that are not constants; None if the axes are not."""
    if not view.has(1):
        given = view.node.attributes
        starts: Sequence[int | None] = given.get_ints("starts", [])
        ends: Sequence[int | None] = given.get_ints("ends", [])
        axes: Sequence[int | None] = given.get_ints("axes", list(range(len(starts))))
        steps: Sequence[int | None] = [1] * len(starts)
    else:
        count = (view.propagation.dims(view.node.inputs[1]) or (0,))[0]  # type: ignore[arg-type]
        starts, ends = (fixed_elements(view, index) or [None] * count for index in (1, 2))
        axes = _optional(view, 3, list(range(count)))
        steps = _optional(view, 4, [1] * count)
    if any(axis is None for axis in axes):
        return None
    return {
        axis % rank: (start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
        if axis is not None
    }


def _optional(view: NodeView, index: int, default: Sequence[int]) -> Sequence[int | None]:
    if not view.has(index):
        return default
    return fixed_elements(view, index) or [None] * len(default)


@rule("Gather")
def gather(view: NodeView) -> None:
    """Y = X[..., indices, ...] along an axis: labels are gathered where indices are constants.

    Otherwise it is a lookup, and all rows of the table stay.
    """
    view.parameters(1)
    tensor = view.read(0)
    axis = view.node.attributes.get_int("axis", 0) % tensor.rank
    places = view.node.inputs[1]
    indices = constant(places)
    rank = len(view.propagation.dims(places) or ())  # type: ignore[arg-type]
    if indices is None or rank > 1:
        tensor = view.freed(tensor, axis, "lookup", "looks coordinates of it up")
    tensor = along_fixed(view, tensor, axis)
    bundle = tensor.on(axis)
    if bundle is not None and indices is not None:
        wanted = [int(i) % tensor.dims[axis] for i in indices.ravel()]
        part = None
        if len(wanted) == 1 and rank == 0 and _only_sized(view):
            pass  # one coordinate is as good as another
        elif len(wanted) == 1:
            part = single(view, bundle, axis, wanted[0])
        else:
            part = picked(view, bundle, axis, wanted)
        tensor = Labelled(tensor.dims, replaced(tensor, bundle, part))
    moved = [a if a < axis else a + rank - 1 for a in range(tensor.rank)]
    view.write_bundles([b.at([moved[a] for a in b.axes]) for b in tensor.bundles])


def _only_sized(view: NodeView) -> bool:
    """Whether nothing but the sizes of what the node makes is read, as exporters do for `x[..., -1].shape`."""
    output = view.node.outputs[0]
    readers = {use.node.op_type for use in output.uses()}
    return bool(readers) and readers <= {"Shape", "Size"} and not output.is_graph_output()


@rule("CumSum")
def cumulative(view: NodeView) -> None:
    """Y = sums of X up to every coordinate of an axis, which must stay as it is."""
    axes = fixed_elements(view, 1)
    view.parameters(1)
    tensor = view.read(0)
    for axis in range(tensor.rank):
        if axes is None or axes[0] is None or axis == axes[0] % tensor.rank:
            tensor = view.freed(tensor, axis, "ordered axis", "sums up along it")
    view.write(tensor)


@rule("Trilu")
def triangle(view: NodeView) -> None:
    """Y = a triangle of X over its last two axes, which must stay as they are."""
    view.parameters(1)
    tensor = view.read(0)
    for axis in (tensor.rank - 2, tensor.rank - 1):
        tensor = view.freed(tensor, axis, "ordered axis", "takes a triangle of it")
    view.write(tensor)


@rule("ReverseSequence")
def reverse(view: NodeView) -> None:
    """Y = X with the first coordinates along time in reverse, as many as each element of the batch says."""
    view.parameters(1)
    tensor = view.read(0)
    for name, default in (("batch_axis", 1), ("time_axis", 0)):
        axis = view.node.attributes.get_int(name, default) % tensor.rank
        tensor = view.freed(tensor, axis, "ordered axis", "reverses it")
    view.write(tensor)


@rule("GatherND")
def gather_nd(view: NodeView) -> None:
    """Y[i, ...] = X[batch..., indices[i]..., ...]: axes that indices name stay as they are, those behind keep their labels."""
    view.parameters(1)
    tensor, places = view.read(0), view.read(1)
    named = view.node.attributes.get_int("batch_dims", 0) + places.dims[-1]
    for axis in range(named):
        tensor = view.freed(tensor, axis, "lookup", "looks coordinates of it up")
    shift = places.rank - 1 - named
    view.write_bundles([bundle.at([axis + shift for axis in bundle.axes]) for bundle in tensor.bundles])
