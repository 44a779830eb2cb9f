"""Surgery: labels that survive in, a smaller model out, with nothing else changed.

    groups = channel_groups(model)
    cut(model, groups.propagation, groups.survivors({family: family.atoms[:8]}))

Weights are laid out anew by their labels; every attribute and constant that names a size is rewritten; shape arithmetic
keeps seeing the sizes it was written for, and only where it is used as a shape is the result scaled. Shapes are inferred
anew, and compared with those the labels predict.
"""

from __future__ import annotations

import onnx_ir as ir

from irc.analysis.channels import Propagation
from irc.analysis.channels.bundles import Array
from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.layout import shortened
from irc.channel_surgery.slot_arrays import replace_slots
from irc.errors import ModelError
from irc.ir import refresh_shapes


def cut(model: ir.Model, propagation: Propagation, alive: Array) -> None:
    """Removes all coordinates whose labels do not survive, in place.

    Args:
        model: The model that was analysed, or a snapshot of it with the same nodes and sizes; its weights are laid out as they
            are now, so that they may have been repaired before.
        propagation: Its labels.
        alive: A boolean per label, as `ChannelGroups.survivors` gives it.

    Raises:
        ModelError: If the survivors leave an axis empty, or rows of unlike length; the message names the value. The model is
            unchanged then. Also if the cut model contradicts what the labels predict, which is a defect of irc.
    """
    from irc.channel_surgery.rewrites import all_rewrites

    operation = Cut(model, propagation, alive)
    operation.check()
    constraints = propagation.constraints
    rewrites = all_rewrites()
    nodes = operation.nodes
    # First of all, while every node still reads its initializers itself.
    replace_slots(model, propagation, nodes, lambda slot, array: shortened(constraints, slot, array, alive))
    for node, original in nodes:
        if operation.touches(original):
            rewrite = rewrites.get((original.domain if original.domain != "ai.onnx" else "", original.op_type))
            if rewrite is not None:
                rewrite(node, operation)
    for value in model.graph.outputs:
        dims = operation.declared(value)
        if dims is not None:
            value.shape = dims
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output() and operation.changed(value):
                value.shape = None
    refresh_shapes(model)
    operation.compare()


__all__ = ["Cut", "ModelError", "cut"]
