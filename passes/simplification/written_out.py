"""Products and sums by constants that end a normalization or a Gelu which is written out and which the runtime fuses.

    d = x - ReduceMean(x);   y = d / Sqrt(ReduceMean(Pow(d, 2)) + epsilon) * scale [+ bias]
    y = x / Sqrt(ReduceMean(Pow(x, 2)) + epsilon) * scale
    y = x * (Erf(x / sqrt(2)) + 1) * 0.5

ONNX Runtime makes one kernel of these, of a Gelu with the bias before it too, when it loads a model: in its versions for
opsets that have no such operators, and wherever the passes that fuse have not been. Without the last node it recognizes
nothing. Time of a model of one of them and the MatMul, Conv or Gemm that could take that node in, written out over folded,
[2, 32, 64] and the like, float, one thread of an x86-64, ONNX Runtime 1.31:

| what | folded |
|---|---|
| layer normalization, scale and bias or scale alone | 0.75 to 0.84 |
| RMS normalization | 0.79 to 0.83 |
| Gelu | 0.86 |
| what is spelled in a way that the runtime does not fuse | 1.05 to 1.22 |
| normalization with one number for a scale, which the runtime does fuse | 1.09 to 1.32 |

So it is asked here whether the runtime would fuse (learnt from its optimized graphs), not whether it is such an operator:
it takes Pow, not Mul(d, d); Div by the root or Mul by Div(1, root), not Reciprocal; the last axis alone; rows as parameters;
a Gelu of float32.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from irc.ir import constant
from irc.passes.simplification.affine import Affine, affine_of
from irc.passes.simplification.scopes import STANDARD_DOMAINS

_TOLERANCE = 1e-3  # half precision has three digits


def ended_by(affine: Affine) -> str | None:
    """What the runtime fuses as long as an affine node ends it, or None.

    Args:
        affine: A product or sum by a constant.
    """
    if affine.node.op_type == "Mul" and _is_number(affine.constant, 0.5):
        return "Gelu" if affine.constant.dtype == ir.DataType.FLOAT and _is_doubled_gelu(affine.source) else None
    if not _is_row(affine):
        return None
    if affine.node.op_type == "Mul":
        return "normalization" if _is_normalized(affine.source, centered=False) else None
    scaled = affine_of(affine.source.producer()) if affine.node.op_type == "Add" else None
    if scaled is None or scaled.node.op_type != "Mul" or not _is_row(scaled):
        return None
    return "normalization" if _is_normalized(scaled.source, centered=True) else None


def _is_row(affine: Affine) -> bool:
    return len(affine.dims) == 1 and affine.per_channel


def _is_normalized(value: ir.Value, *, centered: bool) -> bool:
    """Whether a value is something over the root of its own power along the last axis, and has no mean, if asked."""
    quotient = _producer(_uncast(value), "Div", "Mul")
    if quotient is None:
        return False
    numerator, below = quotient.inputs
    if quotient.op_type == "Div":
        return _is_root_of_power(below, numerator, centered=centered)
    for data, inverse in ((numerator, below), (below, numerator)):
        division = _producer(inverse, "Div")
        if division is not None and _is_number(division.inputs[0], 1.0):
            return _is_root_of_power(division.inputs[1], data, centered=centered)
    return False


def _is_root_of_power(value: ir.Value | None, data: ir.Value | None, *, centered: bool) -> bool:
    """Whether a value is Sqrt(ReduceMean(Pow(data, 2)) + epsilon)."""
    root = _producer(value, "Sqrt")
    added = _producer(root.inputs[0], "Add") if root is not None else None
    if added is None:
        return False
    for mean in added.inputs:
        reduced = _producer(mean, "ReduceMean")
        power = _producer(reduced.inputs[0], "Pow") if reduced is not None else None
        if reduced is not None and power is not None and _reduces_last_axis(reduced):
            return _is_number(power.inputs[1], 2.0) and _are_same(power.inputs[0], data, centered=centered)
    return False


def _are_same(one: ir.Value | None, other: ir.Value | None, *, centered: bool) -> bool:
    """Whether two values are one but for Casts, or equal differences from one mean."""
    one, other = _uncast(one), _uncast(other)
    differences = [_producer(value, "Sub") for value in (one, other)]
    if centered and any(node is None or _producer(node.inputs[1], "ReduceMean") is None for node in differences):
        return False
    return one is other or (
        differences[0] is not None
        and differences[1] is not None
        and tuple(differences[0].inputs) == tuple(differences[1].inputs)
    )


def _reduces_last_axis(node: ir.Node) -> bool:
    axes: tuple[int, ...] = tuple(node.attributes.get_ints("axes", ()))
    if len(node.inputs) > 1 and (array := constant(node.inputs[1])) is not None:
        axes = tuple(int(axis) for axis in array.reshape(-1))
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axes == (-1,) or (shape is not None and axes == (len(shape) - 1,))


def _is_doubled_gelu(value: ir.Value) -> bool:
    """Whether a value is x * (Erf(x / sqrt(2)) + 1)."""
    product = _producer(value, "Mul")
    if product is None:
        return False
    for x, other in (tuple(product.inputs), tuple(product.inputs)[::-1]):
        added = _producer(other, "Add")
        for erf, one in () if added is None else (tuple(added.inputs), tuple(added.inputs)[::-1]):
            function = _producer(erf, "Erf")
            scaled = _producer(function.inputs[0], "Div") if function is not None else None
            if scaled is not None and scaled.inputs[0] is x and _is_number(one, 1.0):
                return _is_number(scaled.inputs[1], math.sqrt(2.0))
    return False


def _producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types and node.domain in STANDARD_DOMAINS else None


def _uncast(value: ir.Value | None) -> ir.Value | None:
    cast = _producer(value, "Cast")
    return value if cast is None else cast.inputs[0]


def _is_number(value: ir.Value | None, wanted: float) -> bool:
    """Whether a value always is one number, up to the digits of half precision."""
    array = constant(value)
    return array is not None and array.size == 1 and math.isclose(float(array.item()), wanted, rel_tol=_TOLERANCE)
