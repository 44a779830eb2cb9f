"""Whether two models are the same graph: names of inner values, order of nodes and dead ends of text aside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.pass_base import node_id


def structural_difference(found: ir.Model, expected: ir.Model) -> str | None:
    """What `expected` has that `found` has not, or the reverse, in words; None if they are the same graph.

    Names of inputs and outputs count, those of inner values and nodes do not. A value of `expected` that nothing
    defines stands for any constant, the same one wherever it is used.

    Args:
        found: The model at hand.
        expected: What it should be.
    """
    return _Comparison().graphs(found.graph, expected.graph, top=True)


class _Comparison:
    """The correspondence of values, grown from the outputs towards the inputs."""

    def __init__(self) -> None:
        self._partner: dict[ir.Value, ir.Value] = {}
        self._inverse: dict[ir.Value, ir.Value] = {}

    def graphs(self, found: ir.Graph, expected: ir.Graph, *, top: bool = False) -> str | None:
        for what, faces in (
            ("inputs", (found.inputs, expected.inputs)),
            ("outputs", (found.outputs, expected.outputs)),
        ):
            names = [[value.name for value in side] for side in faces]
            if len(names[0]) != len(names[1]) or (top and names[0] != names[1]):
                return f"{what} are {names[0]}, not {names[1]}"
        for given, wanted in zip(found.inputs, expected.inputs, strict=True):
            self._pair(given, wanted)
        pending: list[tuple[ir.Value | None, ir.Value | None]] = list(zip(found.outputs, expected.outputs, strict=True))
        while pending:
            a, b = pending.pop()
            if a is None or b is None:
                if a is not b:
                    return f"{_show(a)} stands where {_show(b)} is expected"
                continue
            if a in self._partner or b in self._inverse:
                if self._partner.get(a) is not b:
                    return f"{_show(a)} stands where {_show(b)} is expected"
                continue
            self._pair(a, b)
            if (difference := self._constants(a, b)) is not None:
                if difference:
                    return difference
                continue
            mine, theirs = a.producer(), b.producer()
            if mine is None or theirs is None or a.index() != b.index():
                return f"{_show(a)} stands where {_show(b)} is expected"
            if (difference := self._nodes(mine, theirs)) is not None:
                return difference
            pending += zip(_inputs(mine), _inputs(theirs), strict=True)
        counts = [sum(node.op_type != "Constant" for node in graph) for graph in (found, expected)]
        if counts[0] != counts[1]:
            dead = [f"{node.op_type} {node_id(node)!r}" for node in found if not self._reached(node)]
            return f"there are {counts[0]} nodes, not {counts[1]}" + (f"; without use: {', '.join(dead)}" * bool(dead))
        return None

    def _pair(self, a: ir.Value, b: ir.Value) -> None:
        self._partner[a], self._inverse[b] = b, a

    def _reached(self, node: ir.Node) -> bool:
        return any(value in self._partner for value in node.outputs)

    def _constants(self, a: ir.Value, b: ir.Value) -> str | None:
        """None if neither is constant, "" if they are equal, else the difference."""
        mine, theirs = constant(a), constant(b)
        if mine is None and theirs is None:
            free = b.producer() is None and not b.is_graph_input() and not b.is_initializer()
            return f"{_show(a)} stands where a constant ({b.name!r}) is expected" if free else None
        if theirs is None:
            if b.producer() is None and not b.is_graph_input() and not b.is_initializer():
                return ""
            return f"the constant {a.name!r} stands where {_show(b)} is expected"
        if mine is None:
            return f"{_show(a)} stands where the constant {b.name!r} is expected"
        if mine.dtype != theirs.dtype or mine.shape != theirs.shape:
            shapes = f"{mine.dtype}{list(mine.shape)}, not {theirs.dtype}{list(theirs.shape)}"
            return f"the constant {a.name!r} is {shapes}"
        if mine.tobytes() != theirs.tobytes():
            return f"the constant {a.name!r} has other values than {b.name!r}: {_values(mine)}, not {_values(theirs)}"
        return ""

    def _nodes(self, a: ir.Node, b: ir.Node) -> str | None:
        where = f"{a.op_type} {node_id(a)!r}"
        if (a.domain, a.op_type, a.overload) != (b.domain, b.op_type, b.overload):
            return f"{where} stands where {b.op_type} {node_id(b)!r} is expected"
        if len(_inputs(a)) != len(_inputs(b)):
            return f"{where} has {len(_inputs(a))} inputs, not {len(_inputs(b))}"
        for name in sorted({*a.attributes, *b.attributes}):
            mine, theirs = a.attributes.get(name), b.attributes.get(name)
            if mine is None or theirs is None or mine.type != theirs.type:
                return f"{where} has {name}={_attribute(mine)}, not {_attribute(theirs)}"
            bodies = list(zip(_bodies(mine), _bodies(theirs), strict=False))
            for body, wanted in bodies:
                if (difference := self.graphs(body, wanted)) is not None:
                    return f"in {name} of {where}: {difference}"
            if not bodies and _attribute(mine) != _attribute(theirs):
                return f"{where} has {name}={_attribute(mine)}, not {_attribute(theirs)}"
        return None


def _inputs(node: ir.Node) -> list[ir.Value | None]:
    """Inputs without the missing ones at the end."""
    inputs = list(node.inputs)
    while inputs and inputs[-1] is None:
        inputs.pop()
    return inputs


def _bodies(attribute: ir.Attr) -> Iterator[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        yield attribute.as_graph()
    elif attribute.type == ir.AttributeType.GRAPHS:
        yield from attribute.as_graphs()


def _attribute(attribute: ir.Attr | None) -> Any:
    if attribute is None:
        return "nothing"
    if attribute.type == ir.AttributeType.TENSOR:
        array = attribute.as_tensor().numpy()
        return str(array.dtype), array.shape, array.tolist()
    return attribute.value


def _show(value: ir.Value | None) -> str:
    if value is None:
        return "a missing input"
    node = value.producer()
    return f"{value.name!r}" + (f" ({node.op_type})" if node is not None else "")


def _values(array: np.ndarray[Any, Any]) -> str:
    return np.array2string(array, threshold=8, precision=6, separator=",").replace("\n", "")
