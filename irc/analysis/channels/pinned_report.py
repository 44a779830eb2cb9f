"""Why axes are not cut, by kind of reason: what is left of a model when its families are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels.families import ChannelGroups, PinnedAxis
from irc.analysis.channels.propagation import Propagation
from irc.analysis.channels.roles import KERNEL, Roles
from irc.analysis.weights import parameters
from irc.pass_base import node_id

INPUT = "model input"
"""Kind of axes that meet the model's own inputs, which are as wide as they are."""
EXAMPLES = 3


def describe_pins(groups: ChannelGroups) -> list[dict[str, Any]]:
    """One row per kind of reason, most parameters first."""
    reached = {axis.slot.initializer for family in groups.families for axis in family.axes}
    kinds: dict[str, list[PinnedAxis]] = {}
    for pin in groups.pinned:
        kinds.setdefault(_kind(pin, groups.propagation), []).append(pin)
    rows = []
    for kind, pins in kinds.items():
        values = list(dict.fromkeys(pin.slot.initializer for pin in pins))
        rows.append(
            {
                "kind": kind,
                "axes": len(pins),
                "coordinates": sum(pin.pinned for pin in pins),
                "parameters": _count(values),
                "out_of_reach": _count([value for value in values if value not in reached]),
                "trivial": kind in (KERNEL, INPUT),
                "examples": list(dict.fromkeys(pin.reason.text for pin in pins))[:EXAMPLES],
            }
        )
    return sorted(rows, key=lambda row: (row["trivial"], -row["parameters"], row["kind"]))


def pinned_groups(groups: ChannelGroups, roles: Roles) -> tuple[list[dict[str, Any]], dict[PinnedAxis, str]]:
    """What is not cut but belongs together all the same, as a stream that reaches an output does, where operators share it.

    Returns:
        One row per group that two operators or more touch, and the name of the group of every pinned axis that is in one.
    """
    sides = [(operator, side.axis) for operator in roles.operators for side in operator.pinned]
    class_of = groups.class_of
    mine = {pin: np.unique(class_of[pin.slot.bundles[pin.bundle].labels]) for _operator, pin in sides}
    of_class: dict[int, int] = {}
    merged: dict[int, list[PinnedAxis]] = {}
    for index, (pin, classes) in enumerate(mine.items()):
        others = sorted({of_class[c] for c in classes.tolist() if c in of_class})
        merged[index] = [other for i in others for other in merged.pop(i)] + [pin]
        for other in merged[index]:
            of_class.update(dict.fromkeys(mine[other].tolist(), index))
    rows, names = [], {}
    for pins in sorted(merged.values(), key=lambda pins: list(mine).index(pins[0])):
        operators = [operator for operator, pin in sides if pin in pins]
        if len(set(operators)) > 1:
            name = f"pinned:{node_id(operators[0].node)}"
            names.update(dict.fromkeys(pins, name))
            rows.append(
                {
                    "name": name,
                    "size": len(np.unique(np.concatenate([mine[pin] for pin in pins]))),
                    "kind": pins[0].reason.kind,
                    "text": pins[0].reason.text,
                    "axes": len(pins),
                }
            )
    return rows, names


def pinned_axis(pin: PinnedAxis) -> dict[str, Any]:
    """One axis that is not cut."""
    return {
        "initializer": pin.slot.name,
        "axes": sorted({pin.slot.axis_of[axis] for axis in pin.slot.bundles[pin.bundle].axes}),
        "pinned": pin.pinned,
        "size": pin.size,
        "kind": pin.reason.kind,
        "text": pin.reason.text,
        "node": node_id(pin.slot.use[0]) if pin.slot.use is not None else "",
    }


def _count(values: Sequence[ir.Value]) -> int:
    return sum(parameters(value) for value in values)


def _kind(pin: PinnedAxis, propagation: Propagation) -> str:
    """The kind of a reason; channels of the model's inputs have one of their own."""
    if pin.reason.kind != "free axis":
        return pin.reason.kind
    node = pin.slot.use[0] if pin.slot.use is not None else next(iter(pin.slot.initializer.uses())).node
    reads = {_origin(value, propagation) for value in node.inputs if value is not None and propagation.varies(value)}
    inputs = set(propagation.model.graph.inputs)
    return INPUT if reads and reads <= inputs and f"{node_id(node)!r}" in pin.reason.text else pin.reason.kind


def _origin(value: ir.Value, propagation: Propagation) -> ir.Value:
    """The value that a chain of operators with one varying operand, none of which multiplies, starts from."""
    while (node := value.producer()) is not None and node not in propagation.products:
        varying = [v for v in node.inputs if v is not None and propagation.varies(v)]
        if len(varying) != 1:
            break
        value = varying[0]
    return value
