"""Merge a Cast of a Cast into one, or none if it comes back to the type it started from.

    Cast<to=B>(x: A) then Cast<to=C>   =>   Cast<to=C>(x),   or x if C is A

The first must keep every value of A: float16 to float32, int8 to int32, bool to anything. The second may lose what a
direct Cast from A loses in the same way:

    C holds every value of A      (float16 -> float32 -> float16,  int8 -> int64 -> int32)
    C is bool                     (0 is the only false value in all types)
    C is float32 or float64       (int32 -> int64 -> float32: one rounding either way)
    A, B and C are floats         (float32 -> float64 -> float16: one rounding either way)
    A, B and C are integers       (int32 -> int64 -> int8: the low bits either way)

A float to an integer that may be too small for it stays, since processors differ there; so do integers to float16,
which runtimes may round twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.ir import only_consumer
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.unused import remove_unused

_PRECISION = {  # bits of the significand, exponent of the largest power of 2
    ir.DataType.FLOAT16: (11, 15),
    ir.DataType.BFLOAT16: (8, 127),
    ir.DataType.FLOAT: (24, 127),
    ir.DataType.DOUBLE: (53, 1023),
}
_BITS = {  # bits of magnitude, whether there are negative numbers
    ir.DataType.BOOL: (1, False),
    ir.DataType.UINT8: (8, False),
    ir.DataType.UINT16: (16, False),
    ir.DataType.UINT32: (32, False),
    ir.DataType.UINT64: (64, False),
    ir.DataType.INT8: (7, True),
    ir.DataType.INT16: (15, True),
    ir.DataType.INT32: (31, True),
    ir.DataType.INT64: (63, True),
}


@dataclasses.dataclass(frozen=True)
class MergeCasts(Pass):
    """Converts once instead of twice, where the type in between keeps every value."""

    name: ClassVar[str] = "merge-casts"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Cast of a Cast that one Cast can replace, and those that would but for other users."""
        for node in model.graph.all_nodes():
            inner = node.inputs[0].producer() if _is_cast(node) and node.inputs[0] is not None else None
            if inner is None or not _is_cast(inner) or inner.inputs[0] is None:
                continue
            first, between, last = inner.inputs[0].dtype, _to(inner), _to(node)
            if first is None or not keeps_every_value(first, between):
                yield Skip(node, f"the Cast before it to {between.name} may lose values")
            elif not _direct_is_the_same(first, between, last):
                yield Skip(node, f"{first.name} may not be cast to {last.name} directly as through {between.name}")
            elif first != last and not only_consumer(inner.outputs[0], node):
                yield Skip(node, "the output of the Cast before it has other users")
            else:
                yield Site(node)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Casts the input of the first to the type of the second."""
        node = site.node
        assert node is not None and node.inputs[0] is not None
        between = node.inputs[0]
        inner = between.producer()
        assert inner is not None and inner.inputs[0] is not None
        if inner.inputs[0].dtype == _to(node):
            pass_through(node, inner.inputs[0])
        else:
            node.replace_input_with(0, inner.inputs[0])
            remove_unused([between])
        return None


def keeps_every_value(source: ir.DataType, target: ir.DataType) -> bool:
    """Whether each value of one type, infinities and signs of zeros included, is one of another; False if unsure."""
    if source == target:
        return True
    if source in _PRECISION and target in _PRECISION:
        (bits, largest), (target_bits, target_largest) = _PRECISION[source], _PRECISION[target]
        return bits <= target_bits and largest <= target_largest  # then the smallest is one, too
    if source not in _BITS:
        return False
    bits, signed = _BITS[source]
    if target in _PRECISION:
        return bits <= _PRECISION[target][0]
    if target not in _BITS:
        return False
    target_bits, target_signed = _BITS[target]
    return bits <= target_bits and (target_signed or not signed)


def _direct_is_the_same(first: ir.DataType, between: ir.DataType, last: ir.DataType) -> bool:
    """Whether a Cast from the first to the last type is one by way of `between`, which keeps every value."""
    numbers = (*_BITS, *_PRECISION)
    if keeps_every_value(first, last):
        return True
    if last in (ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return first in numbers  # and then so is what keeps its values
    return all(t in _PRECISION for t in (first, between, last)) or all(t in _BITS for t in (first, between, last))


def _is_cast(node: ir.Node) -> bool:
    to = node.attributes.get("to") if node.op_type == "Cast" and node.domain in ("", "ai.onnx") else None
    return to is not None and to.type == ir.AttributeType.INT


def _to(cast: ir.Node) -> ir.DataType:
    return ir.DataType(cast.attributes.get_int("to"))
