"""Steps that add an If, a Loop or a Scan whose bodies capture values, hold weights, and may hold bodies themselves."""

from __future__ import annotations

from collections.abc import Callable

from irc.testing.random_graph import GraphBuilder, Value
from irc.testing.random_steps import random_step


def _branch(graph: GraphBuilder) -> None:
    """An If: on the flag, on a constant, or on a comparison; its branches give a value of one shape, perhaps two."""
    pattern = graph.any_float()
    if pattern is None:
        return
    condition = graph.find(lambda v: v.dtype == "bool" and v.shape == () and v.exact)
    if condition is None or graph.chance(3):
        condition = graph.constant(graph.chance(2), "bool")
    count = graph.choices.integer(1, 2)
    branches = []
    for _ in range(2):
        body = graph.body()
        for _ in range(graph.choices.integer(0, 2)):
            random_step(body)
        outputs = [_like(body, pattern) for _ in range(count)]
        branches.append(body.proto([], outputs))
    faces = [(pattern.dtype, pattern.shape)] * count
    graph.add("If", [condition], faces, then_branch=branches[0], else_branch=branches[1])


def _loop(graph: GraphBuilder) -> None:
    """A Loop of none to three rounds with one carried value, trip count and condition optional, and perhaps a scanned output."""
    start = graph.any_float()
    if start is None:
        return
    body = graph.body()
    number = Value(body.fresh("i"), "int64", (), True)
    going = Value(body.fresh("going"), "bool", (), True)
    carried = Value(body.fresh("carried"), start.dtype, start.shape)
    body.scope += [number, going, carried]
    for _ in range(graph.choices.integer(0, 2)):
        random_step(body)
    (state,) = body.add("Tanh", [_like(body, carried)], [(start.dtype, start.shape)])
    rounds = graph.choices.integer(0, 3)
    if graph.chance(3):
        bound: Value | str = ""
        limit = body.constant(rounds)
        (again,) = body.add("Less", [number, limit], [("bool", ())], exact=True)
    else:
        bound = graph.constant(rounds)
        (again,) = body.add("Identity", [going], [("bool", ())], exact=True)
    initial: Value | str = "" if bound and graph.chance(2) else graph.constant(True, "bool")
    outputs, faces = [again, state], [(start.dtype, start.shape)]
    # How often a loop without a bound runs is not in its type, and a symbol takes no part in a scanned shape.
    if bound and graph.chance(2) and all(isinstance(size, int) for size in start.shape):
        outputs.append(_like(body, state))
        faces.append((start.dtype, (rounds, *start.shape)))
    proto = body.proto([number, going, carried], outputs)
    graph.add("Loop", [bound, initial, start], faces, body=proto)


def _scan(graph: GraphBuilder) -> None:
    """A Scan over the first axis with a carried value."""
    value = graph.find(lambda v: v.is_float and len(v.shape) > 1 and isinstance(v.shape[0], int) and v.shape[0] > 0)
    if value is None:
        return
    row = value.shape[1:]
    sizes = [size for size in row if isinstance(size, int)]
    first = graph.find(lambda v: v.dtype == value.dtype and v.shape == row) or graph.weight(sizes, dtype=value.dtype)
    body = graph.body()
    carried, element = (Value(body.fresh(hint), value.dtype, row) for hint in ("carried", "element"))
    body.scope += [carried, element]
    for _ in range(graph.choices.integer(0, 1)):
        random_step(body)
    (total,) = body.add("Add", [carried, element], [(value.dtype, row)])
    outputs = [total, _like(body, element)]
    proto = body.proto([carried, element], outputs)
    faces = [(value.dtype, row), (value.dtype, value.shape)]
    graph.add("Scan", [first, value], faces, body=proto, num_scan_inputs=1)


def _like(body: GraphBuilder, pattern: Value) -> Value:
    """A value that the body makes, of the type and shape of another, from whatever in its scope has both."""
    source = body.find(lambda v: (v.dtype, v.shape) == (pattern.dtype, pattern.shape))
    assert source is not None
    kind = body.choices.pick(("Neg", "Identity", "Add"))
    inputs = [source, pattern] if kind == "Add" else [source]
    return body.add(kind, inputs, [(pattern.dtype, pattern.shape)], hide=True)[0]


BODIES: tuple[Callable[[GraphBuilder], None], ...] = (_branch, _loop, _scan)
