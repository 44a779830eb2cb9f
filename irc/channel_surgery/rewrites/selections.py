"""Slice and Gather: where the picked coordinates lie among the survivors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import NodeView
from irc.analysis.channels.bundles import Labelled
from irc.analysis.channels.rules.selections import slice_bounds
from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.elements import replace_elements
from irc.channel_surgery.rewrites.registration import rewrite
from irc.ir import add_initializer, constant

_FIRST, _LAST = -(1 << 31) + 1, (1 << 31) - 1
"""Bounds before the first and behind the last coordinate of any axis, for indices of 32 bits too."""
Bounds = tuple[int, int, int]


@rewrite("Slice")
def slice_(node: ir.Node, cut: Cut) -> None:
    """Bounds count survivors. Where steps leave no regular pattern, a Gather in front picks the coordinates."""
    tensor = cut.read(node, 0)
    bounds = slice_bounds(NodeView(cut.original(node), cut.propagation), tensor.rank)
    changed: dict[int, Bounds] = {}
    for position, (axis, (start, end, step)) in enumerate((bounds or {}).items()):
        if start is None or end is None or step is None or cut.size(tensor, axis) == tensor.dims[axis]:
            continue
        places = range(*slice(start, end, step).indices(tensor.dims[axis]))
        if step != 1:
            changed[position] = _strided(node, cut, tensor, axis, places)
            continue
        first = cut.count_before(tensor, axis, places.start)
        last = end if end >= tensor.dims[axis] else cut.count_before(tensor, axis, places.stop)
        changed[position] = (first, last, 1)
    if not changed:
        return
    if len(node.inputs) == 1:
        for name, which in (("starts", 0), ("ends", 1)):
            old = list(node.attributes.get_ints(name, []))
            new = [changed[i][which] if i in changed else number for i, number in enumerate(old)]
            node.attributes[name] = ir.AttrInt64s(name, new)
        return
    for index, which in ((1, 0), (2, 1), (4, 2)):
        if index < len(node.inputs) and node.inputs[index] is not None:
            replace_elements(cut, node, index, {i: found[which] for i, found in changed.items()})


def _strided(node: ir.Node, cut: Cut, tensor: Labelled, axis: int, places: range) -> Bounds:
    """Bounds for some places among the survivors, picked by a Gather first if they are not evenly spaced."""
    wanted = _among_survivors(cut, tensor, axis, list(places))
    steps = np.unique(np.diff(wanted))
    if len(steps) == 0:
        return wanted[0], wanted[0] + 1, 1
    if len(steps) == 1 and steps[0] != 0:
        step = int(steps[0])
        beyond = wanted[-1] + (1 if step > 0 else -1)
        return wanted[0], beyond if beyond >= 0 else _FIRST, step
    indices = add_initializer(cut.model.graph, f"{node.outputs[0].name}_indices", np.array(wanted, dtype=np.int64))
    cut.set_input(node, 0, cut.insert_before(node, "Gather", [node.inputs[0], indices], {"axis": axis}))
    return 0, _LAST, 1


def _among_survivors(cut: Cut, tensor: Labelled, axis: int, places: list[int]) -> list[int]:
    kept = cut.kept(tensor, axis)
    position = np.cumsum(kept) - 1
    return [int(position[place]) for place in places if kept[place]]


@rewrite("Gather")
def gather(node: ir.Node, cut: Cut) -> None:
    """Indices count survivors; those of coordinates that are cut are left out."""
    tensor = cut.read(node, 0)
    axis = node.attributes.get_int("axis", 0) % tensor.rank
    old = constant(cut.original(node).inputs[1])
    if old is None or cut.size(tensor, axis) == tensor.dims[axis]:
        return
    wanted = _among_survivors(cut, tensor, axis, [int(i) % tensor.dims[axis] for i in old.ravel()])
    new = np.array(wanted or [0], old.dtype)  # only the size of what is made is read where nothing survives
    cut.set_constant(node, 1, new.reshape(old.shape if old.ndim == 0 else (-1,)))
