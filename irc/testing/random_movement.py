"""Steps that move, cut, join and reshape values, or only seem to."""

from __future__ import annotations

import math
from typing import Any

from irc.testing.random_graph import FLOATS, TYPES, GraphBuilder, Step, Value, sized


def _no_op(graph: GraphBuilder) -> None:
    value = graph.find(lambda v: True)
    if value is None:
        return
    face = (value.dtype, value.shape)
    kind = graph.choices.pick(("Identity", "Dropout", "Cast", "Transpose", "Concat", "Expand", "Reshape", "Pad"))
    if kind == "Dropout" and value.is_float:
        ratio = [graph.constant(0.5, "float32")] if graph.chance(2) else []
        graph.add("Dropout", [value, *ratio], [face, ("bool", value.shape)] if graph.chance(2) else [face], exact=True)
    elif kind == "Cast":
        graph.add("Cast", [value], [face], exact=True, to=TYPES[value.dtype])
    elif kind == "Transpose" and value.shape:
        graph.add("Transpose", [value], [face], exact=True, perm=list(range(len(value.shape))))
    elif kind == "Concat" and value.shape:
        graph.add("Concat", [value], [face], exact=True, axis=0)
    elif kind == "Expand" and value.dtype in (*FLOATS, "int64", "int32", "bool"):
        graph.add("Expand", [value, graph.constant([1] * len(value.shape))], [face], exact=True)
    elif kind == "Reshape" and value.shape and sized(value.shape):
        graph.add("Reshape", [value, graph.constant([0, *value.shape[1:]])], [face], exact=True)
    elif kind == "Pad" and value.is_float and value.shape:
        graph.add("Pad", [value, graph.constant([0] * (2 * len(value.shape)))], [face], exact=True)
    else:
        graph.add("Identity", [value], [face], exact=True)


def _movement(graph: GraphBuilder) -> None:
    """Transposes, also two in a row that cancel."""
    value = graph.find(lambda v: 2 <= len(v.shape) <= 4)
    if value is None:
        return
    for _ in range(graph.choices.integer(1, 2)):
        perm = list(range(len(value.shape)))
        i, j = graph.choices.integer(0, len(perm) - 1), graph.choices.integer(0, len(perm) - 1)
        perm[i], perm[j] = perm[j], perm[i]
        shape = tuple(value.shape[axis] for axis in perm)
        (value,) = graph.add("Transpose", [value], [(value.dtype, shape)], exact=True, perm=perm)


def _reshape(graph: GraphBuilder) -> None:
    """To a matrix: by a constant, by Flatten, or by arithmetic on the shape."""
    value = graph.find(lambda v: len(v.shape) >= 2 and sized(v.shape) and v.dtype != "bool")
    if value is None:
        return
    rest = math.prod(size for size in value.shape[1:] if isinstance(size, int))
    if rest == 0:
        return
    face = (value.dtype, (value.shape[0], rest))
    kind = graph.choices.pick(("constant", "arithmetic", "flatten"))
    if kind == "flatten":
        graph.add("Flatten", [value], [face], exact=True, axis=1)
        return
    if kind == "constant":
        target: Value = graph.constant(graph.choices.pick(([0, rest], [0, -1], [-1, rest])))
    else:
        (shape,) = graph.add("Shape", [value], [("int64", (len(value.shape),))], exact=True)
        (batch,) = graph.add("Gather", [shape, graph.constant(0)], [("int64", ())], exact=True)
        (batch,) = graph.add("Unsqueeze", [batch, graph.constant([0])], [("int64", (1,))], exact=True)
        (target,) = graph.add("Concat", [batch, graph.constant([-1])], [("int64", (2,))], exact=True, axis=0)
    graph.add("Reshape", [value, target], [face], exact=True)


def _squeeze(graph: GraphBuilder) -> None:
    """Unsqueeze, perhaps undone by Squeeze."""
    value = graph.find(lambda v: len(v.shape) <= 3)
    if value is None:
        return
    axis = graph.choices.integer(0, len(value.shape))
    shape = (*value.shape[:axis], 1, *value.shape[axis:])
    (wide,) = graph.add("Unsqueeze", [value, graph.constant([axis])], [(value.dtype, shape)], exact=True)
    if graph.chance(2):
        graph.add("Squeeze", [wide, graph.constant([axis])], [(value.dtype, value.shape)], exact=True)


def _slice(graph: GraphBuilder) -> None:
    """Along the last axis; axes and steps are optional; it may take everything."""
    value = graph.find(lambda v: len(v.shape) > 0 and isinstance(v.shape[-1], int) and v.shape[-1] > 1)
    if value is None:
        return
    size = value.shape[-1]
    assert isinstance(size, int)
    start = graph.choices.integer(0, 1)
    end = graph.choices.pick((size, 2**62, size - 1))
    step = graph.choices.pick((1, 2)) if value.dtype != "bool" else 1
    length = len(range(size)[start:end:step])
    if length == 0:
        return
    axes = [graph.constant([-1])] if len(value.shape) > 1 or graph.chance(2) else []
    steps = [graph.constant([step])] if axes and (step != 1 or graph.chance(2)) else []
    if not steps and step != 1:
        return
    face = (value.dtype, (*value.shape[:-1], length))
    graph.add("Slice", [value, graph.constant([start]), graph.constant([end]), *axes, *steps], [face], exact=True)


def _split(graph: GraphBuilder) -> None:
    """In two, of which one may go unused or be missing, and perhaps joined again."""
    value = graph.find(lambda v: len(v.shape) > 0 and isinstance(v.shape[-1], int) and v.shape[-1] in (2, 4, 6))
    if value is None or value.dtype == "bool":
        return
    size = value.shape[-1]
    assert isinstance(size, int)
    face = (value.dtype, (*value.shape[:-1], size // 2))
    sizes = [graph.constant([size // 2] * 2)] if graph.opset < 18 or graph.chance(2) else []
    count: dict[str, Any] = {} if sizes else {"num_outputs": 2}
    parts = graph.add("Split", [value, *sizes], [face, face], exact=True, axis=-1, **count)
    if graph.chance(2):
        order = parts if graph.chance(2) else parts[::-1]
        graph.add("Concat", order, [(value.dtype, value.shape)], exact=True, axis=-1)


def _gather(graph: GraphBuilder) -> None:
    value = graph.find(lambda v: len(v.shape) > 0 and isinstance(v.shape[-1], int) and v.shape[-1] > 0)
    if value is None:
        return
    index = graph.choices.pick(([0], [-1], [0, 0]))
    face = (value.dtype, (*value.shape[:-1], len(index)))
    graph.add("Gather", [value, graph.constant(index)], [face], exact=True, axis=-1)


def _sequence(graph: GraphBuilder) -> None:
    """A sequence of two values and its concatenation: what is in it is no tensor."""
    value = graph.find(lambda v: v.is_float and len(v.shape) > 0 and isinstance(v.shape[-1], int))
    if value is None:
        return
    other = graph.find(lambda v: v.dtype == value.dtype and v.shape == value.shape) or value
    size = value.shape[-1]
    assert isinstance(size, int)
    (sequence,) = graph.add("SequenceConstruct", [value, other], [(value.dtype, ())], hide=True)
    graph.add("ConcatFromSequence", [sequence], [(value.dtype, (*value.shape[:-1], 2 * size))], exact=True, axis=-1)


MOVEMENT: tuple[Step, ...] = (
    _no_op,
    _no_op,
    _movement,
    _reshape,
    _squeeze,
    _slice,
    _split,
    _gather,
    _sequence,
)
