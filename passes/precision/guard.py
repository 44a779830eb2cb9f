"""Why an operator stays float32: what it is, its constants, the target, and the ranges of its values on the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from irc.ir import constant, constant_tensor
from irc.passes.precision.number_format import NumberFormat
from irc.passes.precision.operator_bounds import inner_magnitude
from irc.passes.precision.ranges import Range
from irc.passes.precision.retyping import MOVES, QUANTIZERS, RANDOM, Retyping, fill_value
from irc.passes.precision.value_roles import Roles, data_inputs
from irc.target import Target, is_dequantized

_SMALL_INTEGERS = frozenset((ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4))
_FLOORS = frozenset(("Add", "Clip", "Max", "Sum"))
_DENOMINATORS = {"Div": 1, "Log": 0, "Pow": 0, "Reciprocal": 0, "Sqrt": 0}
"""Operators, and which input of them must not become 0."""


def why_float(
    node: ir.Node, change: Retyping, roles: Roles, number: NumberFormat, target: Target | None, opset: int
) -> str | None:
    """Why an operator stays float32 whatever the data, or None."""
    if node.op_type in RANDOM:
        return "it draws random numbers, which would be others in another type"
    if node.op_type in QUANTIZERS or _is_quantized(node):
        return "it is quantized already"
    if target is not None and (reason := target.lacks_type(node.op_type, opset, number.dtype)) is not None:
        return f"{target.name}: {reason}"
    if roles.is_position(node):
        return f"it computes positions or angles, which {number.name} does not resolve"
    if node.op_type == "Attention" and len(node.outputs) > 3 and node.outputs[3].name:
        return "its scores are an output, where a mask is the lowest number of the type"
    masking = roles.masks(node)
    for index in change.inputs:
        array = constant(node.inputs[index])
        if array is not None and (reason := number.why_not(array, masking=masking)) is not None:
            return reason
    if node.op_type == "ConstantOfShape" and (reason := number.why_not(fill_value(node), masking=masking)) is not None:
        return reason
    return None


def _is_quantized(node: ir.Node) -> bool:
    """Whether an operator reads what is brought back from integers, or is what a quantizer reads."""
    if any(map(is_dequantized, node.inputs)):
        return True
    if node.op_type == "Cast" and (tensor := constant_tensor(node.inputs[0])) is not None:
        return tensor.dtype in _SMALL_INTEGERS
    return any(use.node.op_type == "QuantizeLinear" and use.idx == 0 for value in node.outputs for use in value.uses())


def values_of(node: ir.Node, change: Retyping) -> list[ir.Value]:
    """The values of an operator that would become narrow, constants aside."""
    inputs = [node.inputs[index] for index in change.inputs]
    found = [value for value in inputs if value is not None and constant_tensor(value) is None]
    return found + [node.outputs[index] for index in change.outputs]


def why_out_of_range(
    node: ir.Node,
    change: Retyping,
    ranges: Mapping[str, Range],
    roles: Roles,
    number: NumberFormat,
    headroom: float,
    main: ir.Graph,
) -> str | None:
    """Why an operator stays float32 by what the data showed, or None.

    Args:
        node: The operator.
        change: What would become narrow.
        ranges: Of float values, by name.
        roles: Of the values.
        number: The narrow format.
        headroom: How many times larger than observed a value may become.
        main: The main graph.
    """
    limit = number.largest / headroom
    for value in values_of(node, change):
        found = ranges.get(value.name or "")
        if found is None:
            if value.graph is not main:
                return f"no sample ran the body of {value.name!r}, so that its range is not known"
            continue
        if found.high != float("inf") and found.high > limit:
            return f"{value.name!r} reaches {found.high:.4g}; {number.name} holds {number.largest:.5g}, {limit:.5g} with headroom"
        if found.low != -float("inf") and found.low < -limit and not roles.is_score(value):
            return f"{value.name!r} reaches {found.low:.4g}; {number.name} holds {-number.largest:.5g}, {-limit:.5g} with headroom"
        if 0 < found.magnitude < number.smallest_normal:
            return f"{value.name!r} is at most {found.magnitude:.3g}, where {number.name} loses precision"
        if 0 < found.low < number.smallest_normal and _is_denominator(value):
            return (
                f"{value.name!r} goes down to {found.low:.3g}, where {number.name} loses precision, and is divided by"
            )
    inner = inner_magnitude(node, ranges)
    if inner is not None and inner[0] > limit:
        return (
            f"{inner[1]} may reach {inner[0]:.4g}; {number.name} holds {number.largest:.5g}, {limit:.5g} with headroom"
        )
    return None


def _is_denominator(value: ir.Value) -> bool:
    return any(_DENOMINATORS.get(use.node.op_type) == use.idx for use in value.uses())


def protected(nodes: Sequence[ir.Node], number: NumberFormat) -> Iterator[tuple[ir.Node, ir.Value, str]]:
    """Operators that need a number as small as an epsilon which the narrow format turns into 0.

    y = x / Sqrt(Add(variance, epsilon)): without the epsilon a variance of 0 divides by 0.

    Yields:
        The operator; the value that the epsilon keeps from zero; the reason in words.
    """
    for node in nodes:
        if node.op_type not in _FLOORS or not data_inputs(node):
            continue
        for value in node.inputs[1:] if node.op_type == "Clip" else node.inputs:
            array = constant(value)
            if array is None or array.size != 1 or not 0 < float(array.reshape(-1)[0]) < number.smallest_normal:
                continue
            if number.why_not(array) is None:
                continue
            floor, pending, seen = node.outputs[0], [node.outputs[0]], set[ir.Node]()
            while pending:
                for use in pending.pop().uses():
                    if use.node in seen:
                        continue
                    if _DENOMINATORS.get(use.node.op_type) == use.idx or use.node.op_type in MOVES:
                        seen.add(use.node)
                        if use.node.op_type not in ("Div", "Reciprocal"):
                            pending.extend(use.node.outputs)
                        yield use.node, floor, f"it divides by what {float(array.reshape(-1)[0]):.3g} keeps from zero"
