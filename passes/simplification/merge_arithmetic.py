"""Merge additions of constants in a row into one, and multiplications by constants.

(x + a) - b   =>   x + (a - b)            a - (x + b)   =>   (a - b) - x
(x * a) / b   =>   x * (a / b)            (x / a) / b   =>   x / (a * b)

Of integers, additions and multiplications only, which wrap around the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant_tensor, only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.simplification.node_size import bytes_in_one, stored_bytes
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.unused import remove_unused

MAX_BYTES = 1 << 20
"""Constants above this size (1 MiB) are weights, which other passes fold without reading them."""
_BROADCASTS_SINCE = 7
"""Before, an attribute said whether and how the second input is broadcast."""
_EXPONENT_BITS = {
    ir.DataType.FLOAT: 8,
    ir.DataType.DOUBLE: 11,
    ir.DataType.FLOAT16: 5,
    ir.DataType.BFLOAT16: 8,
}
_ADDITIVE, _MULTIPLICATIVE = ("Add", "Sub"), ("Mul", "Div")

_Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class _Term:
    """An operator between a value and a constant.

    Attributes:
        value: The value.
        array: The constant, floats as float64.
        forward: Whether the value counts as it is: x + c, x - c, x * c and x / c; not c - x.
    """

    value: ir.Value
    array: _Array
    forward: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class _Merged:
    """What replaces two.

    Attributes:
        op_type: Its operator.
        array: Its constant.
        forward: Whether the constant is the second input.
    """

    op_type: str
    array: _Array
    forward: bool = True


@dataclasses.dataclass(frozen=True)
class MergeArithmetic(Pass):
    """Adds or multiplies once instead of twice.

    Left alone is what would compute something else where numbers are large or small: constants that cancel, and products
    outside the middle half of the exponents of the type.
    """

    name: ClassVar[str] = "merge-arithmetic"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the second of every two with constants, or why not."""
        if model.graph.opset_imports.get("", 0) < _BROADCASTS_SINCE:
            return
        for node in model.graph.all_nodes():
            outer = _term(node)
            inner = outer.value.producer() if outer is not None else None
            if outer is None or inner is None or not _same_kind(inner, node):
                continue
            first = _term(inner)
            if first is None:
                continue
            merged = _merged(inner, first, node, outer)
            yield Skip(node, merged) if isinstance(merged, str) else Site(node, match=(merged, first.value))

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts one operator in the place of both."""
        node, (merged, value) = site.node, site.match
        assert node is not None and isinstance(node.graph, ir.Graph)
        others = list(node.inputs)
        new = add_initializer(node.graph, f"{node_id(node)}.constant", merged.array)
        replace_node(node, merged.op_type, [value, new] if merged.forward else [new, value])
        remove_unused(others)
        return None


def _same_kind(inner: ir.Node, outer: ir.Node) -> bool:
    return any(inner.op_type in kind and outer.op_type in kind for kind in (_ADDITIVE, _MULTIPLICATIVE))


def _term(node: ir.Node) -> _Term | None:
    """The value and the constant of an operator, None if there are not one of each."""
    if node.op_type not in (*_ADDITIVE, *_MULTIPLICATIVE) or node.domain not in STANDARD_DOMAINS:
        return None
    first, second = node.inputs
    if first is None or second is None or first.dtype is None or first.dtype != second.dtype:
        return None
    if node.op_type == "Div" and first.dtype not in _EXPONENT_BITS:
        return None
    if (array := _small(second)) is not None and constant_tensor(first) is None:
        return _Term(first, array)
    # c / x is no multiple of x.
    if node.op_type != "Div" and (array := _small(first)) is not None and constant_tensor(second) is None:
        return _Term(second, array, forward=node.op_type != "Sub")
    return None


def _small(value: ir.Value | None) -> _Array | None:
    """The elements of a constant that is no weight; floats as float64."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.nbytes > MAX_BYTES:
        return None
    if tensor.dtype in _EXPONENT_BITS:
        return np.asarray(tensor.numpy()).astype(np.float64)
    return np.asarray(tensor.numpy()) if tensor.dtype.is_integer() and tensor.dtype.bitwidth >= 8 else None


def _merged(inner: ir.Node, first: _Term, outer: ir.Node, second: _Term) -> _Merged | str:
    """One operator for two, or why there is none."""
    dtype = second.value.dtype
    assert dtype is not None
    a, b = first.array, second.array
    with np.errstate(all="ignore"):
        if outer.op_type in _ADDITIVE:
            found = _sum(inner, first, outer, second)
            # 1e8 that comes and goes takes the low digits of x with it: not the same as x.
            if dtype in _EXPONENT_BITS:
                size, larger = np.abs(found.array), np.maximum(np.abs(a), np.abs(b))
                if (size < larger / 2).any():
                    return "the constants cancel each other, and with them the rounding between"
                if ((size < larger) & (larger > _large(dtype))).any():
                    return f"the sum in between may be more than {dtype.name} holds"
        else:
            found = _product(inner, a, outer, b)
            if dtype in _EXPONENT_BITS and not all(_moderate(array, dtype) for array in (a, b, found.array)):
                return f"the constants, or what both make, are too large or small for {dtype.name}"
        array = found.array.astype(dtype.numpy())
    if not np.isfinite(array.astype(np.float64)).all():
        return f"the constants make more than {dtype.name} holds"
    if not only_consumer(inner.outputs[0], outer):
        return f"the output of the {inner.op_type} before it has other users"
    if stored_bytes(f"{node_id(outer)}.constant", array.size, array.itemsize) > bytes_in_one(inner, outer):
        return "the constant to store is larger than what it replaces"
    return dataclasses.replace(found, array=array)


def _sum(inner: ir.Node, first: _Term, outer: ir.Node, second: _Term) -> _Merged:
    """A value and a constant, as a sum or a difference, for two of them in a row."""
    a = -first.array if inner.op_type == "Sub" and first.forward else first.array
    b = -second.array if outer.op_type == "Sub" and second.forward else second.array
    total = a + b if second.forward else b - a
    forward = first.forward == second.forward
    return _Merged("Add" if forward else "Sub", np.asarray(total), forward)


def _product(inner: ir.Node, a: _Array, outer: ir.Node, b: _Array) -> _Merged:
    """A multiple of a value, or a part of it, for two of them in a row."""
    if inner.op_type == outer.op_type:
        return _Merged(outer.op_type, np.asarray(a * b))
    return _Merged("Mul", np.asarray(a / b if outer.op_type == "Div" else b / a))


def _moderate(array: _Array, dtype: ir.DataType) -> bool:
    """Whether all elements are 0 or in the middle half of the exponents, so that products in between do not overflow."""
    limit = _large(dtype)
    size = np.abs(array)
    return bool(((size == 0) | ((size >= 1 / limit) & (size <= limit))).all())


def _large(dtype: ir.DataType) -> float:
    """The end of the middle half of the exponents."""
    return float(2.0 ** (2 ** (_EXPONENT_BITS[dtype] - 2)))
