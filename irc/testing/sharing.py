"""Variants of a model in which what a pass removed is needed elsewhere, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, normalize, snapshot, unique_name
from irc.runner import Feed

if TYPE_CHECKING:
    from irc.testing.conformance import Applied

MAX_VALUES = 6
_BODY_TYPES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A model that needs one more value than another.

    Attributes:
        what: What was changed, in words.
        model: The changed model.
        sites: The sites that the pass rewrote in the model as it was.
        must_refuse: Whether a pass that merges nodes has to leave one of these sites alone.
        overrides: What callers give in place of a weight.
    """

    what: str
    model: ir.Model
    sites: list[str]
    must_refuse: bool
    overrides: Feed | None = None


def variants(model: ir.Model, applied: Applied) -> Iterator[Variant]:
    """The variants of a model for the values that a pass removed or computes otherwise, and the weights it removed.

    Args:
        model: As it was before the pass.
        applied: What the pass made of it.
    """
    after = {value.name: _origin(value) for value in _values(applied.model)}
    removed = [value for value in _values(model) if value.name not in after]
    changed = [v for v in _values(model) if v.name in after and after[v.name] != _origin(v) and not v.is_graph_output()]
    inner = [v for v in (*removed, *changed) if v.producer() is not None and v.graph is model.graph]
    for value in inner[:MAX_VALUES]:
        name, gone = value.name or "", value.name not in after
        if value.dtype is None or value.shape is None or not isinstance(value.type, ir.TensorType):
            continue
        yield Variant(f"{name!r} is a graph output", _as_output(model, name), applied.rewritten, gone)
        yield Variant(f"{name!r} has another user", _with_user(model, name), applied.rewritten, gone)
        yield Variant(f"{name!r} is used in a body", _with_body(model, name), applied.rewritten, gone)
    weights = [v for v in removed if v.is_initializer() and not v.is_graph_input() and v.graph is model.graph]
    for value in weights[:MAX_VALUES]:
        array = constant(value)
        if array is None or array.dtype.kind != "f":
            continue
        variant = snapshot(model)
        variant.graph.inputs.append(variant.graph.initializers[value.name or ""])
        override = {value.name or "": np.asarray(array * array.dtype.type(1.5) + array.dtype.type(0.25))}
        yield Variant(f"{value.name!r} may be overridden", normalize(variant), applied.rewritten, False, override)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in dict.fromkeys((model.graph, *model.graph.subgraphs())):
        yield from graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from (value for value in node.outputs if value.name)


def _origin(value: ir.Value) -> tuple[str, ...]:
    """How a value is computed, to compare."""
    node = value.producer()
    if node is None:
        return ()
    inputs = [used.name or "" if used is not None else "" for used in node.inputs]
    plain = [f"{n}={a.value}" for n, a in node.attributes.items() if a.type not in _BODY_TYPES]
    return (node.domain, node.op_type, *inputs, *plain)


def _as_output(model: ir.Model, name: str) -> ir.Model:
    variant = snapshot(model)
    variant.graph.outputs.append(_find(variant, name))
    return variant


def _with_user(model: ir.Model, name: str) -> ir.Model:
    variant = snapshot(model)
    value = _find(variant, name)
    _publish(variant, _probe(value, unique_name(variant, f"{name}.probe")))
    return variant


def _with_body(model: ir.Model, name: str) -> ir.Model:
    variant = snapshot(model)
    value = _find(variant, name)
    condition = add_initializer(variant.graph, f"{name}.condition", np.array(True))
    bodies = []
    for branch in ("then", "else"):
        node = _probe(value, unique_name(variant, f"{name}.{branch}"))
        bodies.append(ir.Graph([], [node.outputs[0]], nodes=[node], name=branch))
    attributes = [ir.AttrGraph("then_branch", bodies[0]), ir.AttrGraph("else_branch", bodies[1])]
    inner = bodies[0].outputs[0]
    node = ir.Node("", "If", [condition], attributes, num_outputs=1, name=unique_name(variant, f"{name}.if"))
    output = node.outputs[0]
    output.name, output.shape, output.type = unique_name(variant, f"{name}.taken"), inner.shape, inner.type
    _publish(variant, node)
    return variant


def _probe(value: ir.Value, name: str) -> ir.Node:
    """A node that uses a value and is no operator that a simplification removes: a change of type."""
    to = ir.DataType.FLOAT if value.dtype == ir.DataType.DOUBLE else ir.DataType.DOUBLE
    if value.dtype == ir.DataType.STRING:
        node = ir.Node("", "Shape", [value], num_outputs=1, name=name)
        to, shape = ir.DataType.INT64, ir.Shape([len(value.shape or ())])
    else:
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", to.value)], num_outputs=1, name=name)
        shape = ir.Shape(list(value.shape or ()))
    output = node.outputs[0]
    output.name, output.shape, output.type = name, shape, ir.TensorType(to)
    return node


def _publish(model: ir.Model, node: ir.Node) -> None:
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])


def _find(model: ir.Model, name: str) -> ir.Value:
    return next(value for value in _values(model) if value.name == name)
