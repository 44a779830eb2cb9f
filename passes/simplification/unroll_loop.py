"""Replace a Loop that never runs by its initial values, and one that runs once by its body.

    y, all = Loop(0, c, x) { ... }                                =>   y = x,       all: empty
    y, all = Loop(1, true, x) { s -> t = Neg(s); yield t, t }     =>   y = Neg(x),  all = Unsqueeze(y, 0)

A Loop also runs once whose condition is false after the first round: `i + 1 < 1`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, can_replace, module_metadata, replace_value, unique_name
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.inline_branch import move_before
from irc.passes.simplification.loop_rounds import known_rounds
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.unused import release_bodies, remove_unused

AXES_ARE_INPUTS_SINCE = 13


@dataclasses.dataclass(frozen=True)
class UnrollLoop(Pass):
    """Spares the cost of a loop, and opens its body to other passes, where there is no second round.

    A loop whose collected outputs would need more nodes than it has stays, as does one that never runs and collects
    tensors of unknown shape.
    """

    name: ClassVar[str] = "unroll-loop"
    contract: ClassVar[Contract] = Contract.EXACT
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every Loop that runs once or never, or why it must stay."""
        opset = model.graph.opset_imports.get("", 0)
        for node in [n for n in model.graph.all_nodes() if n.op_type == "Loop" and n.domain in STANDARD_DOMAINS]:
            rounds = known_rounds(node) if node.graph is not None else None
            if rounds is None:
                continue
            reason = _why_not(node, rounds)
            yield Site(node, match=(rounds, opset)) if reason is None else Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts initial values or the nodes of the body in the place of the loop."""
        loop = site.node
        rounds, opset = site.match
        assert loop is not None and isinstance(loop.graph, ir.Graph)
        body, graph = loop.attributes["body"].as_graph(), loop.graph
        carried = len(body.inputs) - 2
        released = [value for value in loop.inputs if value is not None]
        results: list[ir.Value | None]
        axes: ir.Value | None = None
        if rounds == 0:
            results = [*loop.inputs[2:], *(None for _ in loop.outputs[carried:])]
        else:
            condition = body.outputs[0]
            results = _run_once(loop, body)
            released.append(condition)
        for index, (old, new) in enumerate(zip(loop.outputs, results, strict=True)):
            if not _is_used(old):
                continue
            if new is None:
                new = _empty(graph, old, body.outputs[1 + index])
            elif index >= carried:
                if axes is None and opset >= AXES_ARE_INPUTS_SINCE:
                    axes = add_initializer(graph, "axes", np.array([0]))
                new = _collected(loop, old, new, axes)
            new.type = new.type if new.type is not None else old.type
            replace_value(old, new)
        released += [value for value in results if value is not None]
        graph.remove(loop, safe=True)
        remove_unused([*released, *release_bodies(loop)])
        return None


def _why_not(loop: ir.Node, rounds: int) -> str | None:
    """Why a Loop of so many rounds must stay, or None."""
    body = loop.attributes["body"].as_graph()
    carried = len(body.inputs) - 2
    if None in loop.inputs[2:]:
        return "it has no first value for all that it carries"
    if any(_is_foreign(value) for value in body.outputs):
        return "its body returns a value of the graph around it"
    used = [index for index, output in enumerate(loop.outputs) if _is_used(output)]
    if rounds == 0:
        for index in used:
            if index >= carried and not _is_known(body.outputs[1 + index]):
                return "it collects tensors of a shape that is not known, of which it gives none"
        firsts = [*loop.inputs[2:], *(None for _ in loop.outputs[carried:])]
        nodes = _identities(body, [(loop.outputs[index], firsts[index]) for index in used])
        saved = 1 + len(body)
    else:
        inside = dict(zip(body.inputs, (None, None, *loop.inputs[2:]), strict=True))
        results = [inside.get(value, value) for value in body.outputs[1:]]
        kept = [index for index in used if index < carried]
        collected = len(used) - len(kept)
        nodes = collected + _identities(body, [(loop.outputs[index], results[index]) for index in kept])
        saved = 1 + _is_condition_only(body)
    return None if nodes <= saved else "its outputs would need more nodes than it has"


def _identities(body: ir.Graph, results: list[tuple[ir.Value, ir.Value | None]]) -> int:
    """How many outputs of a loop need a node to keep their names if they become these values; None is a constant."""
    count = 0
    taken: set[ir.Value] = set()
    for output, value in results:
        if not output.is_graph_output():
            continue
        if value is None or value in taken:
            count += 1
            continue
        count += value.is_initializer() if value.graph is body else not can_replace(output, value)
        taken.add(value)
    return count


def _is_condition_only(body: ir.Graph) -> bool:
    """Whether a node of a body is there only to say whether there is another round."""
    condition = body.outputs[0]
    node = condition.producer()
    if node is None or list(body.outputs).count(condition) > 1:
        return False
    return not any(value.uses() or (value is not condition and value.is_graph_output()) for value in node.outputs)


def _is_used(output: ir.Value) -> bool:
    return bool(output.uses()) or output.is_graph_output()


def _is_foreign(value: ir.Value) -> bool:
    """Whether an output of a body is neither computed nor kept there."""
    return value.producer() is None and not value.is_graph_input() and not value.is_initializer()


def _is_known(element: ir.Value) -> bool:
    """Whether an empty tensor of such elements can be stored."""
    dtype, shape = element.dtype, element.shape
    if dtype is None or shape is None:
        return False
    return dtype != ir.DataType.STRING and dtype.bitwidth >= 8 and all(isinstance(d, int) for d in shape)


def _empty(graph: ir.Graph, output: ir.Value, element: ir.Value) -> ir.Value:
    """What a Loop collects that never runs."""
    assert element.shape is not None and element.dtype is not None
    dims = [0, *(int(d) for d in element.shape)]  # type: ignore[arg-type]
    tensor = ir.Tensor(np.zeros(dims, element.dtype.numpy()), dtype=element.dtype)
    return add_initializer(graph, output.name or "empty", tensor)


def _collected(loop: ir.Node, output: ir.Value, element: ir.Value, axes: ir.Value | None) -> ir.Value:
    """What a Loop collects in one round; `axes` is None where an attribute says them."""
    graph = loop.graph
    assert isinstance(graph, ir.Graph)
    inputs = [element] if axes is None else [element, axes]
    attributes = [ir.AttrInt64s("axes", [0])] if axes is None else []
    node = ir.Node("", "Unsqueeze", inputs, attributes, num_outputs=1, metadata_props=module_metadata(loop))
    result = node.outputs[0]
    result.name = unique_name(graph, output.name or "collected")
    result.type = ir.TensorType(element.dtype) if element.dtype is not None else output.type
    result.shape = ir.Shape([1, *element.shape]) if element.shape is not None else output.shape
    graph.insert_before(loop, node)
    return result


def _run_once(loop: ir.Node, body: ir.Graph) -> list[ir.Value | None]:
    """Moves the body in front of the loop, its inputs replaced by what they are in the first round.

    Returns:
        What each output of the loop is, or for collected ones the only element.
    """
    graph = loop.graph
    assert isinstance(graph, ir.Graph)
    firsts: dict[ir.Value, ir.Value | None] = dict(zip(body.inputs[2:], loop.inputs[2:], strict=True))
    results: list[ir.Value | None] = []
    results += body.outputs[1:]
    for inner, number in zip(body.inputs[:2], (np.array(0, np.int64), np.array(True)), strict=True):
        if inner.uses() or inner in results:
            rank = 0 if inner.shape is None else len(inner.shape)
            firsts[inner] = add_initializer(graph, inner.name or "first", number.reshape((1,) * rank))
    results = [firsts.get(value, value) if value is not None else None for value in results]
    for inner, first in firsts.items():
        for use in list(inner.uses()):
            use.node.replace_input_with(use.idx, first)
    move_before(loop, body)
    return results
