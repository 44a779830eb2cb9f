"""Remove elementwise nodes that change no element: neutral constants, casts to the same type, a choice of one.

    Mul(x, 1), Div(x, 1), Pow(x, 1), Sub(x, 0.0), Add(x, -0.0)   =>   x      (integers: Add(x, 0) too)
    And(x, true), Or(x, false), Xor(x, false)                    =>   x
    And(x, c), c all false; Or(x, c), c all true                 =>   c      if x does not enlarge it
    Cast<to=T>(x: T), Max(x), Sum(x), Min(x, x), And(x, x)       =>   x

Adding 0.0 turns -0.0 into 0.0, and dividing by the result tells them apart: such an Add stays, unless x is never -0.0,
as after Abs, Exp, a Cast from integers, or another Add of a constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import constant_tensor
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.dimensions import Dimensions, Dims
from irc.passes.simplification.pass_through import pass_through, why_no_gain

MAX_BYTES = 1 << 20
"""Constants above this size (1 MiB) are weights and not read: looking for ones in them would cost more than it finds."""
BROADCASTS_SINCE = 7
"""Before, an attribute said whether and how the second input is broadcast."""

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_COMMUTATIVE = ("Add", "Mul", "And", "Or", "Xor")
_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1, "And": True, "Or": False, "Xor": False}
_ABSORBING = {"And": False, "Or": True}
_CHOICES = ("And", "Or", "Max", "Min")
_N_ARY = ("Max", "Min", "Sum", "Mean")

_Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class EliminateNoOpArithmetic(Pass):
    """Removes elementwise operators that return one of their inputs bit by bit, signs of zeros and NaN included.

    Where one connects a graph input with a graph output, an Identity takes its place if it is smaller.
    """

    name: ClassVar[str] = "eliminate-no-op-arithmetic"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the nodes that return one of their inputs, and those that would but for a detail."""
        opset, dims = model.graph.opset_imports.get("", 0), Dimensions(model)
        for node in model.graph.all_nodes():
            if node.domain not in ("", "ai.onnx"):
                continue
            found = _same(node) or _neutral(node, dims, opset) or _absorbing(node, dims, opset)
            if isinstance(found, str):
                yield Skip(node, found)
            elif found is not None:
                reason = why_no_gain(node, found)
                yield Site(node, match=found) if reason is None else Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Lets the users of the output use the input."""
        assert site.node is not None
        pass_through(site.node, site.match)
        return None


def _same(node: ir.Node) -> ir.Value | None:
    """The input that is returned whatever its elements are."""
    if not node.inputs or node.inputs[0] is None:
        return None
    first = node.inputs[0]
    if node.op_type == "Cast" and "to" in node.attributes and node.attributes["to"].type == ir.AttributeType.INT:
        return first if node.attributes.get_int("to") == first.dtype else None
    if node.op_type == "CastLike":
        return (
            first
            if first.dtype is not None and node.inputs[1] is not None and node.inputs[1].dtype == first.dtype
            else None
        )
    alone = len(node.inputs) == 1 and node.op_type in _N_ARY
    chosen = node.op_type in _CHOICES and all(value is first for value in node.inputs)
    return first if alone or chosen else None


def _neutral(node: ir.Node, dims: Dimensions, opset: int) -> ir.Value | str | None:
    """The input that is returned because the other is a neutral constant; a reason if only a detail is missing."""
    neutral, reason = _NEUTRAL.get(node.op_type), None
    if neutral is None:
        return None
    for kept, other in ((0, 1), (1, 0)) if node.op_type in _COMMUTATIVE else ((0, 1),):
        value, array = node.inputs[kept], _small(node.inputs[other])
        if value is None or array is None or not (array == neutral).all():
            continue
        reason = _detail(node, value, array, dims, opset)
        if reason is None:
            return value
    return reason


def _detail(node: ir.Node, value: ir.Value, array: _Array, dims: Dimensions, opset: int) -> str | None:
    """What keeps an operator with a neutral constant from returning its other input, or None."""
    if opset < BROADCASTS_SINCE:
        return f"{node.op_type} of opset {opset} broadcasts otherwise; convert the model to opset {BROADCASTS_SINCE} or later"
    if not _fits_into(array.shape, dims.of(value)):
        return "the constant may enlarge the shape of the other input"
    if node.op_type == "Pow" and value.dtype in (None, ir.DataType.INT64, ir.DataType.UINT64):
        return "ONNX Runtime computes powers of 64-bit integers in floating point"
    if node.op_type in ("Add", "Sub") and array.dtype.kind not in "iu":
        signs = np.signbit(array) if node.op_type == "Add" else ~np.signbit(array)
        if not signs.all() and not _never_minus_zero(value):
            return f"{'adding 0.0' if node.op_type == 'Add' else 'subtracting -0.0'} turns -0.0 into 0.0"
    return None


def _absorbing(node: ir.Node, dims: Dimensions, opset: int) -> ir.Value | None:
    """The constant that an And or Or returns whatever the other input is."""
    absorbing = _ABSORBING.get(node.op_type)
    if absorbing is None or opset < BROADCASTS_SINCE:
        return None
    for value, other in zip(node.inputs, reversed(node.inputs), strict=True):
        array = _small(value)
        if array is not None and (array == absorbing).all() and _is_enlarged_by_nothing(array.shape, dims.of(other)):
            return value
    return None


def _small(value: ir.Value | None) -> _Array | None:
    """The elements of a constant of a type whose arithmetic is known; floats as float64, which keeps signs of zeros."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.nbytes > MAX_BYTES:
        return None
    if tensor.dtype in _FLOATS:
        array: _Array = np.asarray(tensor.numpy()).astype(np.float64)
        return array
    return np.asarray(tensor.numpy()) if tensor.dtype == ir.DataType.BOOL or tensor.dtype.is_integer() else None


def _fits_into(shape: tuple[int, ...], dims: Dims | None) -> bool:
    """Whether broadcasting a constant of this shape with a value leaves the shape of the value as it is."""
    if dims is None or len(shape) > len(dims):
        return not shape
    return all(n in (1, d) for n, d in zip(shape, dims[len(dims) - len(shape) :], strict=True))


def _is_enlarged_by_nothing(shape: tuple[int, ...], dims: Dims | None) -> bool:
    """Whether broadcasting a constant of this shape with a value leaves the shape of the constant as it is."""
    return (
        dims is not None
        and len(dims) <= len(shape)
        and all(d in (1, n) for d, n in zip(dims, shape[len(shape) - len(dims) :], strict=True))
    )


def _never_minus_zero(value: ir.Value) -> bool:
    """Whether no element can be -0.0, whatever the model is fed."""
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in ("Abs", "Exp"):
        return True
    if node.op_type == "Cast":
        source = node.inputs[0]
        return (
            source is not None
            and source.dtype is not None
            and (source.dtype.is_integer() or source.dtype == ir.DataType.BOOL)
        )
    if node.op_type not in ("Add", "Sub"):
        return False
    # A sum is -0.0 only if both terms are: sums of floats do not underflow, and x - x is 0.0.
    for array in (_small(node.inputs[1]), _small(node.inputs[0]) if node.op_type == "Add" else None):
        if array is not None and not ((array == 0) & (np.signbit(array) == (node.op_type == "Add"))).any():
            return True
    return False
