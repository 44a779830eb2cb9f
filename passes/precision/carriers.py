"""If, Loop and Scan: what their bodies hand in and out is narrow where the bodies compute it narrow.

A value that a body takes, carries and gives has one type in several places: the operator's input and output, the body's
input and output. They change together, and only where the body itself computes the value in the narrow type, so that
nothing is rounded that was not. Otherwise they stay float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import onnx_ir as ir

from irc.ir import bodies, constant
from irc.passes.precision.border import Border
from irc.passes.precision.number_format import NumberFormat

CARRIERS = frozenset(("If", "Loop", "Scan"))


@dataclasses.dataclass(frozen=True)
class Slot:
    """One value that a body takes, carries or gives.

    Attributes:
        outer_input: Index of the operator's input, or None.
        inner_input: Index of the body's input, or None.
        inner_output: Index of the body's output, in each body, or None.
        outer_output: Index of the operator's output, or None.
    """

    outer_input: int | None
    inner_input: int | None
    inner_output: int | None
    outer_output: int | None


def slots(node: ir.Node) -> Iterator[Slot]:
    """What the bodies of an If, Loop or Scan take, carry and give."""
    if node.op_type == "If":
        for index in range(len(node.outputs)):
            yield Slot(None, None, index, index)
        return
    (body,) = bodies(node)
    if node.op_type == "Loop":
        states = len(node.inputs) - 2
        for k in range(states):
            yield Slot(2 + k, 2 + k, 1 + k, k)
        for k in range(states, len(node.outputs)):
            yield Slot(None, None, 1 + k, k)
        return
    scanned = node.attributes.get_int("num_scan_inputs", 0)
    states = len(node.inputs) - scanned
    if len(body.inputs) != len(node.inputs):  # opset 8 has lengths in front
        return
    for k in range(len(node.inputs)):
        yield Slot(k, k, k, k) if k < states else Slot(k, k, None, None)
    for k in range(states, len(node.outputs)):
        yield Slot(None, None, k, k)


def can_become_narrow(node: ir.Node, slot: Slot, border: Border, number: NumberFormat) -> bool:
    """Whether the bodies compute, or read, the value of a slot in the narrow type."""
    places = _places(node, slot)
    if not places or any(v.dtype != ir.DataType.FLOAT or not isinstance(v.type, ir.TensorType) for v in places):
        return False
    if slot.inner_output is None:
        (body,) = bodies(node)
        assert slot.inner_input is not None
        return border.has_narrow_readers(body.inputs[slot.inner_input])
    computed = False
    for body in bodies(node):
        given = body.outputs[slot.inner_output]
        source = border.source(given)
        if source is not None:
            if source.graph is not body or source.producer() is None or any(out is source for out in body.outputs):
                return False
            if sum(out is given for out in body.outputs) > 1:
                return False
            computed = True
        elif (array := constant(given)) is None or number.why_not(array) is not None:
            return False
    return computed


def become_narrow(node: ir.Node, slot: Slot, border: Border) -> None:
    """Changes the type of a slot in all its places."""
    if slot.outer_input is not None:
        value = node.inputs[slot.outer_input]
        assert value is not None
        node.replace_input_with(slot.outer_input, border.narrowed(value))
        border.release(value)
    for body in bodies(node):
        if slot.inner_input is not None:
            border.become_narrow(body.inputs[slot.inner_input])
        if slot.inner_output is not None:
            given = body.outputs[slot.inner_output]
            name, widening = given.name, given.producer()
            narrow = body.outputs[slot.inner_output] = border.narrowed(given)
            border.release(given)
            if narrow.producer() is not None and widening is not None and widening.graph is None:
                narrow.name = name
    if slot.outer_output is not None:
        border.become_narrow(node.outputs[slot.outer_output])


def _places(node: ir.Node, slot: Slot) -> list[ir.Value]:
    found: list[ir.Value | None] = []
    if slot.outer_input is not None:
        found.append(node.inputs[slot.outer_input])
    for body in bodies(node):
        if slot.inner_input is not None:
            found.append(body.inputs[slot.inner_input])
        if slot.inner_output is not None:
            found.append(body.outputs[slot.inner_output])
    if slot.outer_output is not None:
        found.append(node.outputs[slot.outer_output])
    return [value for value in found if value is not None]
