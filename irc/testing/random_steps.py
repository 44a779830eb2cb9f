"""The steps of a random graph: each adds a few nodes to what is there, or nothing when no value fits.

They are the shapes that simplifications look for, right and nearly right: no-ops, chains, repetitions, foldable
weights; layers in `irc.testing.random_layers`, moved and reshaped values in `irc.testing.random_movement`, bodies in
`irc.testing.random_bodies`; and, nearly every other time, whole patterns of `irc.testing.random_chains`,
`irc.testing.random_affine` and `irc.testing.random_fusions`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irc.testing.random_affine import AFFINE
from irc.testing.random_chains import CHAINS
from irc.testing.random_fusions import FUSIONS
from irc.testing.random_graph import FLOATS, TYPES, GraphBuilder, Shape, Step, Value
from irc.testing.random_layers import LAYERS
from irc.testing.random_movement import MOVEMENT

PATTERNS = (*CHAINS, *AFFINE, *FUSIONS)
"""What a pass looks for, written out, or something much like it."""
SMOOTH = ("Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Softplus", "LeakyRelu", "Elu", "HardSigmoid", "Erf")
EVERY_FLOAT = 5
"""ONNX Runtime has the first so many in double precision as well."""


def random_step(graph: GraphBuilder) -> None:
    """Adds the nodes of one step."""
    from irc.testing.random_bodies import BODIES

    bodies = (*BODIES, *BODIES) if graph.limits.bodies and graph.depth < graph.limits.depth else ()
    graph.choices.pick((*STEPS, *bodies, *PATTERNS))(graph)


def _unary(graph: GraphBuilder) -> None:
    if (value := graph.any_float()) is not None:
        op_type = graph.choices.pick(SMOOTH if value.dtype == "float32" else SMOOTH[:EVERY_FLOAT])
        graph.add(op_type, [value], [(value.dtype, value.shape)], exact=op_type in ("Neg", "Abs", "Relu"))


def _chain(graph: GraphBuilder) -> None:
    """Relu and Clip in a row, the bounds of Clip optional."""
    if (value := graph.any_float()) is None:
        return
    for _ in range(graph.choices.integer(1, 3)):
        face = (value.dtype, value.shape)
        if graph.chance(2):
            (value,) = graph.add("Relu", [value], [face], exact=True)
            continue
        low = graph.constant(graph.choices.pick((0.0, -1.0)), value.dtype) if graph.chance(2) else ""
        high = graph.constant(graph.choices.pick((1.0, 6.0)), value.dtype) if graph.chance(2) else ""
        inputs = [value, low, high] if high else [value, low] if low else [value]
        (value,) = graph.add("Clip", inputs, [face], exact=True)


def _arithmetic(graph: GraphBuilder) -> None:
    """Two values, or a value and a weight: a scalar, one per channel, zeros and ones."""
    value = graph.find(lambda v: v.dtype in (*FLOATS, "int64", "int32"))
    if value is None:
        return
    op_type, dtype, shape = (
        graph.choices.pick(("Add", "Mul", "Sub", "Max", "Min", "Div", "Pow")),
        value.dtype,
        value.shape,
    )
    other = graph.find(lambda v: v.dtype == dtype and v.shape == shape)
    if op_type in ("Div", "Pow") or other is None or graph.chance(2):
        if not value.is_float:
            number = graph.choices.pick((1, 2, 0)) if op_type not in ("Div", "Pow") else graph.choices.pick((1, 2))
            other = graph.constant(number, value.dtype)
        elif op_type == "Pow":
            value = graph.add("Abs", [value], [(value.dtype, value.shape)], exact=True)[0]
            other = graph.constant(graph.choices.pick((1.0, 2.0, 0.5)), value.dtype)
        else:
            sizes = graph.choices.pick(_broadcastable(value.shape))
            kind = graph.choices.pick(("ones", "positive")) if op_type == "Div" else None
            other = graph.weight(sizes, dtype=value.dtype, kind=kind)
    inputs = [value, other] if op_type in ("Div", "Pow") or graph.chance(2) else [other, value]
    graph.add(op_type, inputs, [(value.dtype, value.shape)], exact=not value.is_float or op_type in ("Max", "Min"))


def _broadcastable(shape: Shape) -> list[tuple[int, ...]]:
    sizes: list[tuple[int, ...]] = [()]
    if shape and isinstance(shape[-1], int):
        sizes += [(1,), (shape[-1],)]
    if len(shape) > 1 and isinstance(shape[1], int):
        sizes += [(1, shape[1], *(1 for _ in shape[2:])), (shape[1], *(1 for _ in shape[2:]))]
    return sizes


def _again(graph: GraphBuilder) -> None:
    """The last node once more: a common subexpression."""
    same = [(n, v) for n in graph.nodes[-5:] for v in graph.scope if list(n.output) == [v.name] and not _has_body(n)]
    if not same:
        return
    node, value = graph.choices.pick(same)
    copy = type(node)()
    copy.CopyFrom(node)
    copy.output[0], copy.name = graph.fresh("again"), ""
    graph.nodes.append(copy)
    graph.scope.append(Value(copy.output[0], value.dtype, value.shape, value.exact))


def _has_body(node: Any) -> bool:
    return any(attribute.HasField("g") for attribute in node.attribute)


def _cast(graph: GraphBuilder) -> None:
    """To a wider type and perhaps back; to an integer only what no rounding has touched."""
    value = graph.find(lambda v: v.dtype != "float64" and (v.is_float or v.exact))
    if value is None:
        return
    to = graph.choices.pick(("float64", "float32", "int64") if value.exact else ("float64", "float32"))
    if (value.dtype == "float32" and to == "float32") or (value.dtype == "int64" and to == "float32"):
        to = "float64"
    (wide,) = graph.add("Cast", [value], [(to, value.shape)], exact=True, to=TYPES[to])
    if to == "float64" or graph.chance(2):
        back = value.dtype if value.is_float or graph.chance(2) else graph.dtype
        graph.add("Cast", [wide], [(back, value.shape)], exact=True, to=TYPES[back])


def _where(graph: GraphBuilder) -> None:
    """A choice by a comparison of what no rounding has touched, or by the flag."""
    value = graph.find(lambda v: v.dtype in (*FLOATS, "int64", "int32"))
    basis = graph.find(lambda v: v.exact and v.dtype in (*FLOATS, "int64", "int32"))
    if value is None or basis is None:
        return
    condition = graph.find(lambda v: v.dtype == "bool" and v.shape in ((), value.shape))
    if condition is None or (basis.shape == value.shape and graph.chance(2)):
        if basis.shape != value.shape:
            return
        limit = graph.constant(0, basis.dtype)
        (condition,) = graph.add("Greater", [basis, limit], [("bool", basis.shape)], exact=True)
    other = graph.find(lambda v: v.dtype == value.dtype and v.shape == value.shape) or value
    graph.add("Where", [condition, value, other], [(value.dtype, value.shape)], exact=True)


def _weights_only(graph: GraphBuilder) -> None:
    """Something that can be computed now: on weights, or a filled tensor."""
    if graph.chance(3):
        shape = graph.choices.pick(((4,), (2, 4)))
        fill = np.asarray([2.0], "float32")
        from onnx import numpy_helper

        graph.add(
            "ConstantOfShape",
            [graph.constant(shape)],
            [("float32", shape)],
            exact=True,
            value=numpy_helper.from_array(fill, "fill"),
        )
        return
    one, other = graph.weight((4,)), graph.weight((4,))
    graph.add(graph.choices.pick(("Add", "Mul", "Sub")), [one, other], [(graph.dtype, (4,))])


def _unknown(graph: GraphBuilder) -> None:
    """An operator of a domain that nobody knows, its second input and second output missing."""
    value = graph.any_float()
    if value is not None and graph.limits.unknown_operators:
        face = (value.dtype, value.shape)
        graph.add("Mystery", [value, "", value], [face, None, face], domain="unknown", strength=0.5)


STEPS: tuple[Step, ...] = (
    _unary,
    *MOVEMENT,
    _arithmetic,
    _arithmetic,
    *LAYERS,
    _chain,
    _again,
    _cast,
    _where,
    _weights_only,
    _unknown,
)
