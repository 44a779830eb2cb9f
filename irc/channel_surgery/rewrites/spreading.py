"""Tile, Pad and Resize: how many coordinates are made along axes that get shorter."""

from __future__ import annotations

import onnx_ir as ir

from irc.analysis.channels import NodeView
from irc.analysis.channels.rules.spreading import pad_widths
from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.elements import replace_elements
from irc.channel_surgery.rewrites.registration import rewrite


@rewrite("Tile")
def tile(node: ir.Node, cut: Cut) -> None:
    """Repeats of an axis of size 1 become its new size; those of a longer one stay, since they repeat what survives."""
    given, made = cut.read(node, 0), cut.made(node)
    spread = [axis for axis in range(given.rank) if given.dims[axis] == 1 and cut.size(made, axis) != made.dims[axis]]
    if spread:
        replace_elements(cut, node, 1, {axis: cut.size(made, axis) for axis in spread})


@rewrite("Pad")
def pad(node: ir.Node, cut: Cut) -> None:
    """Pads become the new coordinates that survive in front and behind; crops what survives of what they cut off."""
    given, made = cut.read(node, 0), cut.made(node)
    widths = pad_widths(NodeView(cut.original(node), cut.propagation), given.rank) or {}
    changed: dict[int, int] = {}
    for position, (axis, (before, after)) in enumerate(widths.items()):
        size, end = given.dims[axis], made.dims[axis]
        total = cut.size(given, axis)
        if before is None or after is None or (total == size and cut.size(made, axis) == end):
            continue
        front = cut.count_before(made, axis, before) if before > 0 else -cut.count_before(given, axis, -before)
        if after > 0:
            back = cut.size(made, axis) - cut.count_before(made, axis, end - after)
        else:
            back = cut.count_before(given, axis, size + after) - total
        changed[position], changed[position + len(widths)] = front, back
    if not changed:
        return
    if len(node.inputs) == 1:
        name = "pads" if "pads" in node.attributes else "paddings"
        old = list(node.attributes.get_ints(name, []))
        node.attributes[name] = ir.AttrInt64s(name, [changed.get(i, number) for i, number in enumerate(old)])
        return
    replace_elements(cut, node, 1, changed)


@rewrite("Resize")
def resize(node: ir.Node, cut: Cut) -> None:
    """Sizes of axes that are not scaled become what survives of them; scales stay 1."""
    if len(node.inputs) < 4 or node.inputs[3] is None:
        return
    made = cut.made(node)
    axes = [axis % made.rank for axis in node.attributes.get_ints("axes", list(range(made.rank)))]
    changed = {i: cut.size(made, axis) for i, axis in enumerate(axes) if cut.size(made, axis) != made.dims[axis]}
    if changed:
        replace_elements(cut, node, 3, changed)
