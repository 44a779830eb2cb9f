"""Merge a Pad of a Pad with the same value into one.

Pad(Pad(x, [1, 1], 0), [2, 0], 0)   =>   Pad(x, [3, 1], 0)         the same with mode edge
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, only_consumer, replace_node
from irc.pass_base import Context, Contract, Pass, Site, Skip, node_id
from irc.passes.simplification.node_size import bytes_in_one, integer_bytes, stored_bytes
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.unused import remove_unused

_PADS_ARE_INPUTS_SINCE = 11
_FIRST = 2
"""In opset 1 the attribute has another name."""
_MODES = ("constant", "edge")


@dataclasses.dataclass(frozen=True)
class MergePads(Pass):
    """Copies a tensor into a larger one once instead of twice.

    Both must add, not crop, along the same axes, and constant padding must be of the same value, bit by bit.
    """

    name: ClassVar[str] = "merge-pads"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Pad of a Pad, or why it must stay."""
        opset = model.graph.opset_imports.get("", 0)
        for node in model.graph.all_nodes():
            inner = node.inputs[0].producer() if _is_pad(node, opset) and node.inputs[0] is not None else None
            if inner is None or not _is_pad(inner, opset):
                continue
            pads = _merged(inner, node, opset)
            yield Skip(node, pads) if isinstance(pads, str) else Site(node, match=(pads, opset))

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Pads the input of the first by both."""
        node, (pads, opset) = site.node, site.match
        assert node is not None and isinstance(node.graph, ir.Graph) and node.inputs[0] is not None
        inner = node.inputs[0].producer()
        assert inner is not None
        others = [*node.inputs, *inner.inputs[1:]]
        if opset < _PADS_ARE_INPUTS_SINCE:
            replace_node(node, "Pad", [inner.inputs[0]], {**node.attributes, "pads": pads})
        else:
            value = add_initializer(node.graph, f"{node_id(node)}.pads", np.array(pads, np.int64))
            replace_node(node, "Pad", [inner.inputs[0], value, *node.inputs[2:]], dict(node.attributes))
        remove_unused(others)
        return None


def _is_pad(node: ir.Node, opset: int) -> bool:
    return (
        node.op_type == "Pad"
        and node.domain in STANDARD_DOMAINS
        and opset >= _FIRST
        and bool(node.inputs)
        and node.inputs[0] is not None
    )


def _merged(inner: ir.Node, outer: ir.Node, opset: int) -> list[int] | str:
    """The pads of both, or why they cannot be one."""
    modes = [node.attributes.get_string("mode", "constant") for node in (inner, outer)]
    if modes[0] != modes[1] or modes[0] not in _MODES:
        return f"a Pad of mode {modes[1]} after one of mode {modes[0]}"
    first, second = _pads(inner, opset), _pads(outer, opset)
    if first is None or second is None:
        return "its pads, or those before it, are not constant"
    if len(first) != len(second) or _axes(inner) != _axes(outer):
        return "the Pad before it pads other axes"
    if min((*first, *second), default=0) < 0:
        return "one of them crops: some pads are negative"
    if modes[0] == "constant" and not _same_value(inner, outer, opset):
        return "the Pad before it may pad with another value"
    if not only_consumer(inner.outputs[0], outer):
        return "the output of the Pad before it has other users"
    pads = [a + b for a, b in zip(first, second, strict=True)]
    name = f"{node_id(outer)}.pads"
    stored = stored_bytes(name, 1, integer_bytes(pads)) if opset >= _PADS_ARE_INPUTS_SINCE else 0
    if stored > bytes_in_one(inner, outer) - _kept(outer):
        return "the pads to store are larger than what they replace"
    return pads


def _kept(outer: ir.Node) -> int:
    """Bytes of the constants that one Pad needs as well as two: the value and the axes."""
    total = 0
    for value in outer.inputs[2:]:
        array = constant(value)
        if value is not None and array is not None:
            total += array.nbytes + 2 * len(value.name or "") + 12
    return total


def _pads(node: ir.Node, opset: int) -> list[int] | None:
    if opset < _PADS_ARE_INPUTS_SINCE:
        return list(node.attributes.get_ints("pads", ()))
    array = constant(node.inputs[1])
    return None if array is None else [int(i) for i in array.reshape(-1)]


def _axes(node: ir.Node) -> object:
    """What names the axes of a Pad, to compare: None for all in order, a list, or the value that is not constant."""
    value = node.inputs[3] if len(node.inputs) > 3 else None
    array = constant(value)
    return value if array is None else [int(i) for i in array.reshape(-1)]


def _same_value(inner: ir.Node, outer: ir.Node, opset: int) -> bool:
    if opset < _PADS_ARE_INPUTS_SINCE:
        values = [np.float32(node.attributes.get_float("value", 0.0)) for node in (inner, outer)]
        return values[0].tobytes() == values[1].tobytes()
    first, second = (node.inputs[2] if len(node.inputs) > 2 else None for node in (inner, outer))
    if first is second:
        return True
    return _bits(first) is not None and _bits(first) == _bits(second)


def _bits(value: ir.Value | None) -> bytes | None:
    """The bits of a padding value; b"" for zero, which is what there is without one."""
    if value is None:
        return b""
    array = constant(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiub":
        return None
    found = array.tobytes()
    return found if any(found) else b""
