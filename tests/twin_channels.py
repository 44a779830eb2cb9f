"""Channels that do the same, planted in any model: every weight of one is overwritten by that of its twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, propagate
from irc.ir import constant, snapshot
from irc.passes.pruning.weight_roles import produced_axes

Array = np.ndarray[Any, Any]


def with_twins(model: ir.Model, *, factor: float = 1.0) -> tuple[ir.Model, int]:
    """A copy in which the second channel of every family is the first, with how many families that are.

    Args:
        model: Unchanged.
        factor: What the rows of matrices and filters that make the second channel are multiplied by, biases left as they are: unless it
            is 1, they are twins only where there are none.
    """
    found = snapshot(model)
    groups = ChannelGroups(propagate(found), "rows")
    planted = 0
    for family in groups.families:
        if family.statistics or family.cell_count > 1:
            continue
        first, second = family.atoms[:2]
        planted += 1
        for slot in groups.propagation.slots:
            array = constant(slot.initializer)
            if array is None or slot.initializer.const_value is None:
                continue
            view = np.array(array).reshape(slot.view)
            changed = False
            for bundle in slot.bundles:
                classes = groups.class_of[bundle.labels].ravel()
                sources, targets = np.flatnonzero(classes == first), np.flatnonzero(classes == second)
                if not len(targets) or len(sources) != len(targets):
                    continue
                rows = np.moveaxis(view, bundle.axes, range(len(bundle.axes)))
                flat = np.ascontiguousarray(rows).reshape(len(classes), -1)
                made = any(slot.axis_of[axis] in produced_axes(slot) for axis in bundle.axes)
                flat[targets] = flat[sources] * np.asarray(factor if made and array.ndim > 1 else 1, flat.dtype)
                view = np.moveaxis(flat.reshape(rows.shape), range(len(bundle.axes)), bundle.axes)
                changed = True
            if changed:
                value = slot.initializer
                value.const_value = ir.tensor(np.ascontiguousarray(view).reshape(array.shape), name=value.name)
    return found, planted
