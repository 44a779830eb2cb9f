"""Make a model that shows a defect small: keep what fails, leave out the rest.

Outputs are left out, then nodes: the outputs of a node become inputs of the graph, of the type and shape inferred, and what
nobody uses any more goes. A body of If is tried in the place of its node. Greedy, from the end of the graph, until
nothing more can be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from irc.errors import IrcError
from irc.ir import check, remove_dead, snapshot

MAX_ROUNDS = 8


def shrink(model: ir.Model, fails: Callable[[ir.Model], bool]) -> ir.Model:
    """The smallest model found that still fails.

    Args:
        model: One that fails. Unchanged.
        fails: Whether a model shows the defect; asked about valid models only.
    """
    best = model
    for _ in range(MAX_ROUNDS):
        smaller = _round(best, fails)
        if smaller is best:
            return best
        best = smaller
    return best


def _round(model: ir.Model, fails: Callable[[ir.Model], bool]) -> ir.Model:
    best = model
    count = len(best.graph.outputs)
    for index in reversed(range(count)):
        if len(best.graph.outputs) > 1:
            best = _tried(best, lambda m, i=index: _drop_output(m, i), fails)  # type: ignore[misc]
    for index in reversed(range(len(best.graph))):
        if index < len(best.graph):
            best = _tried(best, lambda m, i=index: _cut(m, i), fails)  # type: ignore[misc]
    for index in reversed(range(sum(1 for _ in _body_outputs(best)))):
        best = _tried(best, lambda m, i=index: _shortcut(m, i), fails)  # type: ignore[misc]
    return best


def _tried(model: ir.Model, change: Callable[[ir.Model], bool], fails: Callable[[ir.Model], bool]) -> ir.Model:
    """The changed model if it is valid, smaller and fails; else the model."""
    work = snapshot(model)
    try:
        if not change(work):
            return model
        remove_dead(work)
        _drop_unused_inputs(work)
        check(work)
    except (IrcError, ValueError, KeyError):
        return model
    if _size(work) >= _size(model):
        return model
    return work if fails(work) else model


def _size(model: ir.Model) -> tuple[int, int, int]:
    nodes = sum(1 for _ in model.graph.all_nodes())
    return nodes, len(model.graph.outputs), len(model.graph.inputs)


def _drop_output(model: ir.Model, index: int) -> bool:
    if index >= len(model.graph.outputs):
        return False
    del model.graph.outputs[index]
    return True


def _cut(model: ir.Model, index: int) -> bool:
    """Turns the used outputs of a node of the main graph into inputs."""
    node = model.graph[index]
    used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    if any(value.is_graph_output() or value.dtype is None or value.shape is None for value in used):
        return False
    for value in used:
        fresh = ir.Value(name=f"{value.name}_in", type=value.type, shape=value.shape)
        model.graph.inputs.append(fresh)
        ir.convenience.replace_all_uses_with(value, fresh)
    model.graph.remove(node, safe=True)
    return True


def _body_outputs(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes in bodies with one input of the type and shape of their one output, which can take its place."""
    for node in model.graph.all_nodes():
        if node.graph is not model.graph and len(node.outputs) == 1 and _stand_in(node) is not None:
            yield node


def _stand_in(node: ir.Node) -> ir.Value | None:
    out = node.outputs[0]
    for value in node.inputs:
        if value is not None and value.dtype == out.dtype and value.shape == out.shape and value.shape is not None:
            return value
    return None


def _shortcut(model: ir.Model, index: int) -> bool:
    """Takes a node out of a body: its users use its input."""
    found = list(_body_outputs(model))
    if index >= len(found):
        return False
    node = found[index]
    value, graph = _stand_in(node), node.graph
    if value is None or node.outputs[0].is_graph_output() or graph is None:
        return False
    ir.convenience.replace_all_uses_with(node.outputs[0], value)
    graph.remove(node, safe=True)
    return True


def _drop_unused_inputs(model: ir.Model) -> None:
    for value in list(model.graph.inputs):
        if not value.uses() and not value.is_graph_output():
            model.graph.inputs.remove(value)
            model.graph.initializers.pop(value.name or "", None)
