"""Operators that make coordinates: Expand, Tile, Pad, Resize, ConstantOfShape.

An axis that is made longer than what it was made from is free, or gets labels that no initializer has: then it follows whatever
width it meets.
"""

from __future__ import annotations

from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.other_sizes import at_other_sizes, fixed_elements, is_fixed
from irc.analysis.channels.pieces import along_fixed, joined, piece, replaced
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.registration import rule
from irc.ir import constant


@rule("Expand")
def expand(view: NodeView) -> None:
    """Y = X broadcast with a shape: labels stay on their axes, seen from the last."""
    view.parameters(1)
    tensor, dims = view.read(0), view.dims_out()
    if view.known(1) is None:
        return _unknown(view, tensor)
    lead = len(dims) - tensor.rank
    bundles = [bundle.at([axis + lead for axis in bundle.axes]) for bundle in tensor.bundles]
    spread = [axis for axis, size in enumerate(dims) if axis < lead or tensor.dims[axis - lead] != size]
    view.write_bundles([*bundles, *_adopting(view, tensor, spread)])


@rule("Tile")
def tile(view: NodeView) -> None:
    """Y = X repeated along its axes, and so its labels."""
    view.parameters(1)
    tensor, dims = view.read(0), view.dims_out()
    if not view.has(1) or view.has(2) or view.known(1) is None:
        return _unknown(view, tensor)
    spread = []
    for axis, (before, after) in enumerate(zip(tensor.dims, dims, strict=True)):
        if before == after:
            continue
        if before == 1:
            spread.append(axis)
        elif tensor.on(axis) is not None and not is_fixed(view, view.node.outputs[0], axis):
            tensor = view.freed(tensor, axis, "dynamic size", "repeats it so often as is not fixed")
        bundle = tensor.on(axis)
        if bundle is not None:
            tensor = Labelled(tensor.dims, replaced(tensor, bundle, joined(view, [bundle] * (after // before), axis)))
    view.write_bundles([*tensor.bundles, *_adopting(view, tensor, spread)])


@rule("ConstantOfShape")
def constant_of_shape(view: NodeView) -> None:
    """Y = one number everywhere, in as many places as are wanted."""
    view.parameters(0)
    if view.known(0) is not None:
        view.write_bundles(_adopting(view, Labelled(()), list(range(len(view.dims_out())))))


def _unknown(view: NodeView, tensor: Labelled) -> None:
    view.pin_inputs("computed sizes", f"{view.where} is told sizes that are not known", [0])


def _adopting(view: NodeView, tensor: Labelled, axes: list[int]) -> list[Bundle]:
    """Labels for new coordinates along axes of fixed size, of floats.

    What a Reshape merges with labels there must stay free to be repeated with them.
    """
    output = view.node.outputs[0]
    dtype = view.propagation.shapes.dtype(output)
    merged = any(use.node.op_type in ("Reshape", "Flatten") for use in output.uses())
    if dtype is None or not dtype.is_floating_point() or (merged and tensor.bundles):
        return []
    dims = view.dims_out()
    return [
        view.constraints.fresh_bundle([axis], [dims[axis]])
        for axis in axes
        if dims[axis] > 1 and is_fixed(view, output, axis)
    ]


@rule("Pad")
def pad(view: NodeView) -> None:
    """Y = X with new coordinates in front and behind; they get labels of their own. Negative ones crop."""
    view.parameters(1, 2, 3)
    tensor, dims = view.read(0), view.dims_out()
    pads = pad_widths(view, tensor.rank)
    constant_mode = view.node.attributes.get_string("mode", "constant") == "constant"
    result = tensor
    for axis in range(tensor.rank):
        before, after = pads.get(axis, (0, 0)) if pads is not None else (None, None)
        if tensor.on(axis) is None or (before == 0 and after == 0):
            continue
        if before is None or after is None or not constant_mode:
            why = "pads it by what it holds" if not constant_mode else "pads it by sizes that are not constants"
            result = view.freed(result, axis, "padded axis", why)
            continue
        result = along_fixed(view, result, axis)
        bundle = result.on(axis)
        if bundle is not None:
            result = Labelled(result.dims, replaced(result, bundle, _padded(view, bundle, axis, before, after)))
    assert len(dims) == result.rank
    view.write_bundles(result.bundles)


def _padded(view: NodeView, bundle: Bundle, axis: int, before: int, after: int) -> Bundle | None:
    size = bundle.labels.shape[bundle.position(axis)]
    start, end = max(0, -before), size - max(0, -after)
    if end <= start or (end - start == 1 and before <= 0 and after <= 0):
        return piece(view, bundle, axis, start, end) if end > start else None
    if start or end < size:
        for stop in (start, end):
            if 0 < stop < size:
                view.constraints.box(bundle.take(axis, range(stop)))
    parts = [bundle.take(axis, range(start, end))]
    for width, front in ((before, True), (after, False)):
        if width > 0:
            shape = list(bundle.labels.shape)
            shape[bundle.position(axis)] = width
            parts.insert(0 if front else len(parts), Bundle(bundle.axes, view.constraints.fresh(shape), bundle.factors))
    return joined(view, parts, axis)


def pad_widths(view: NodeView, rank: int) -> dict[int, tuple[int | None, int | None]] | None:
    """Coordinates added in front and behind by axis, None for those that are not constants; None if the axes are not."""
    attributes = view.node.attributes
    if len(view.node.inputs) == 1:
        widths: list[int | None] = list(attributes.get_ints("pads", attributes.get_ints("paddings", [0] * 2 * rank)))
        axes: list[int | None] = [*range(rank)]
    else:
        axes = [*range(rank)]
        if view.has(3):
            axes = fixed_elements(view, 3) or [None]
        widths = fixed_elements(view, 1) or [None] * (2 * len(axes))
    if any(axis is None for axis in axes):
        return None
    half = len(axes)
    return {axis % rank: (widths[i], widths[half + i]) for i, axis in enumerate(axes) if axis is not None}


@rule("Resize", "Upsample")
def resize(view: NodeView) -> None:
    """Y = X interpolated; axes that are not scaled keep their labels."""
    view.parameters(*range(1, len(view.node.inputs)))
    tensor = view.read(0)
    same = _unscaled(view, tensor)
    for axis in range(tensor.rank):
        if axis not in same:
            tensor = view.freed(tensor, axis, "resized axis", "interpolates along it")
    view.write_bundles(tensor.bundles)


def _unscaled(view: NodeView, tensor: Labelled) -> set[int]:
    """Axes whose coordinates stay as they are."""
    attributes, dims = view.node.attributes, view.dims_out()
    if attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return set()
    axes = [axis % tensor.rank for axis in attributes.get_ints("axes", list(range(tensor.rank)))]
    free = set(range(tensor.rank)) - set(axes)
    equal = {axis for axis in axes if tensor.dims[axis] == dims[axis]}
    if view.has(3) and view.known(3):
        wanted = fixed_elements(view, 3)
        if attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch" or wanted is None:
            return free
        return free | {a for i, a in enumerate(axes) if a in equal and wanted[i] == tensor.dims[a]}
    scales = _scales(view)
    return free | {a for i, a in enumerate(axes) if scales is not None and a in equal and scales[i] == 1.0}


def _scales(view: NodeView) -> list[float] | None:
    """Scales per axis, 0 for those that change with sizes; None if they are not known."""
    attribute = view.node.attributes.get_floats("scales", [])
    if len(attribute):
        return list(attribute)
    index = 2 if len(view.node.inputs) > 2 else 1
    if not view.has(index):
        return None
    value = view.node.inputs[index]
    found = view.propagation.shapes.known(value)
    other = found if constant(value) is not None else at_other_sizes(view.propagation).known(value)
    if found is None or other is None or found.shape != other.shape:
        return None
    return [float(one) if one == two else 0.0 for one, two in zip(found.ravel(), other.ravel(), strict=True)]
