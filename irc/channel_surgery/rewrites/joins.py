"""Split: how long the parts are after the cut."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from irc.channel_surgery.cutting import Cut
from irc.channel_surgery.rewrites.registration import rewrite

_SIZES_AS_INPUT = 13


@rewrite("Split")
def split(node: ir.Node, cut: Cut) -> None:
    """Sizes become explicit: what survives of every part."""
    tensor = cut.read(node, 0)
    axis = node.attributes.get_int("axis", 0) % tensor.rank
    if cut.size(tensor, axis) == tensor.dims[axis]:
        return
    ends = np.cumsum([0, *(cut.made(node, index).dims[axis] for index in range(len(node.outputs)))]).tolist()
    counts = [cut.count_before(tensor, axis, end) for end in ends]
    sizes = [after - before for before, after in itertools.pairwise(counts)]
    if cut.model.graph.opset_imports.get("", 1) < _SIZES_AS_INPUT:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
        return
    node.attributes.pop("num_outputs", None)
    cut.set_constant(node, 1, np.array(sizes, dtype=np.int64))
