"""Remove what bodies of If, Loop and Scan take and give without use.

    y, z = If(c) { p, q } { r, s }, z unused                      =>   y = If(c) { p } { r }
    y, z = Loop(n, c, x, v) { s, k -> t, u }, z unused, k not needed for t   =>   y = Loop(n, c, x) { s -> t }
    y, z = Loop(n, c, x, v) { s, k -> t, k }                      =>   y = Loop(n, c, x) { s -> t with v for k },   z = v
    y = Scan(x, a, b) { s, e, f -> t }, f unused                  =>   y = Scan(x, a) { s, e -> t }

Collected outputs go like those of If. What computed them in the bodies goes, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, bodies, can_replace, module_metadata, replace_value
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.body_needs import BodyNeeds
from irc.passes.simplification.repeated_body import RepeatedBody, repeated_body
from irc.passes.simplification.scopes import STANDARD_DOMAINS
from irc.passes.simplification.unused import release_bodies, remove_unused

_BY_SCANNED = ("scan_input_axes", "scan_input_directions")
_BY_COLLECTED = ("scan_output_axes", "scan_output_directions")


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What goes, by index.

    Attributes:
        outputs: Outputs of the node.
        carried: Carried values, both inside and outside; a subset of `outputs`.
        constant: Carried values that stay what they are at first; a subset of `carried`.
        scanned: Inputs of a Scan, and of its body.
    """

    outputs: frozenset[int] = frozenset()
    carried: frozenset[int] = frozenset()
    constant: frozenset[int] = frozenset()
    scanned: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class EliminateUnusedBodyValues(Pass):
    """Spares loops what they carry and collect for nobody, and both branches of an If what nobody reads.

    A node of which nothing is used is dead code and left to `eliminate-dead-code`. Of a Scan one scanned input stays: it
    says how often the body runs.
    """

    name: ClassVar[str] = "eliminate-unused-body-values"
    contract: ClassVar[Contract] = Contract.EXACT

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every If, Loop and Scan with something to spare, innermost ones last."""
        opset = model.graph.opset_imports.get("", 0)
        for node in [n for n in model.graph.all_nodes() if n.op_type in ("If", "Loop", "Scan")]:
            if not any(_is_used(output) for output in node.outputs):
                continue
            if node.op_type == "If" and node.domain in STANDARD_DOMAINS:
                plan = _Plan(outputs=frozenset(i for i, output in enumerate(node.outputs) if not _is_used(output)))
                if plan.outputs:
                    yield Site(node, match=(plan, None))
            elif (repeated := repeated_body(node, opset)) is not None:
                plan, reason = _plan(repeated)
                if plan != _Plan():
                    yield Site(node, match=(plan, repeated))
                elif reason is not None:
                    yield Skip(node, reason)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Puts a smaller node with the same bodies, less what goes, in the place of the node."""
        plan: _Plan
        repeated: RepeatedBody | None
        plan, repeated = site.match
        node = site.node
        assert node is not None and isinstance(node.graph, ir.Graph)
        released = [value for value in node.inputs if value is not None]
        inputs, attributes = list(node.inputs), dict(node.attributes)
        if repeated is None:
            for body in bodies(node):
                _keep(body.outputs, lambda index: index not in plan.outputs)
                released += _remove_dead(body)
        else:
            inputs, freed = _shrink(repeated, plan)
            released += freed
            _shrink_attributes(attributes, repeated, plan)
        if len(plan.outputs) < len(node.outputs):
            if node.op_type == "Loop" and len(inputs) == 2 and inputs[1] is None:
                # Files leave out missing inputs at the end, and a Loop must have two.
                inputs[1] = add_initializer(node.graph, "always", np.array(True))
            _replace(node, inputs, attributes, [i for i in range(len(node.outputs)) if i not in plan.outputs])
        else:
            node.graph.remove(node, safe=True)
            released += release_bodies(node)
        remove_unused(released)
        return None


def _plan(repeated: RepeatedBody) -> tuple[_Plan, str | None]:
    """What of a Loop or Scan goes, and why something stays that could go but for a detail."""
    node, body = repeated.node, repeated.body
    constant, reason = set(), None
    for index in range(repeated.carried):
        if _origin(repeated.result(index)) is repeated.inside(index):
            why_not = _why_carried(repeated, index)
            if why_not is None:
                constant.add(index)
            reason = reason or why_not
    needs = BodyNeeds(body)
    needs.add(body.outputs[: repeated.fixed_outputs])
    needs.add(repeated.result(index) for index in repeated.collected if _is_used(node.outputs[index]))
    variable = [index for index in range(repeated.carried) if index not in constant]
    alive = [index for index in variable if _is_used(node.outputs[index])]
    needs.add(repeated.result(index) for index in alive)
    while found := [i for i in variable if i not in alive and repeated.inside(i) in needs.inputs]:
        needs.add(repeated.result(index) for index in found)
        alive += found
    carried = constant | (set(variable) - set(alive))
    collected = {index for index in repeated.collected if not _is_used(node.outputs[index])}
    scanned = [index for index in repeated.scanned if body.inputs[index] not in needs.inputs]
    if len(scanned) == len(repeated.scanned):
        scanned = scanned[1:]
    return _Plan(frozenset(carried | collected), frozenset(carried), frozenset(constant), frozenset(scanned)), reason


def _why_carried(repeated: RepeatedBody, index: int) -> str | None:
    """Why a value that stays what it is at first is carried all the same, or None."""
    inside, first, output = repeated.inside(index), repeated.first(index), repeated.node.outputs[index]
    if first is None:
        return "it has no first value for all that it carries"
    if sum(value is inside for value in repeated.body.outputs) > (repeated.result(index) is inside):
        return f"{inside.name!r} never changes, but is another output of the body, too"
    result = repeated.result(index)
    stays = result is inside or bool(result.uses()) or sum(value is result for value in repeated.body.outputs) > 1
    if stays and not can_replace(output, first):
        return f"{inside.name!r} never changes, but as an output it would need an Identity of its own"
    return None


def _origin(value: ir.Value) -> ir.Value:
    """The value behind any number of Identity nodes."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.domain in STANDARD_DOMAINS:
        source = node.inputs[0]
        if source is None:
            break
        value, node = source, source.producer()
    return value


def _shrink(repeated: RepeatedBody, plan: _Plan) -> tuple[list[ir.Value | None], list[ir.Value]]:
    """Takes what goes out of a body; returns the inputs that the node keeps, and what may be unused now."""
    node, body = repeated.node, repeated.body
    for index in plan.constant:
        inside, first = repeated.inside(index), repeated.first(index)
        assert first is not None
        for use in list(inside.uses()):
            use.node.replace_input_with(use.idx, first)
        if _is_used(node.outputs[index]):
            replace_value(node.outputs[index], first)
    inputs = {repeated.fixed_inputs + index for index in plan.carried} | plan.scanned
    gone = [body.inputs[index] for index in sorted(inputs)]
    kept = [value for index, value in enumerate(node.inputs) if index not in inputs]
    _keep(body.outputs, lambda index: index - repeated.fixed_outputs not in plan.outputs)
    released = _remove_dead(body)
    assert not any(value.uses() for value in gone)
    _keep(body.inputs, lambda index: index not in inputs)
    return kept, released


def _shrink_attributes(attributes: dict[str, ir.Attr], repeated: RepeatedBody, plan: _Plan) -> None:
    """Takes what goes out of the attributes of a Scan."""
    start = repeated.fixed_inputs + repeated.carried
    if plan.scanned:
        attributes["num_scan_inputs"] = ir.AttrInt64(
            "num_scan_inputs", attributes["num_scan_inputs"].as_int() - len(plan.scanned)
        )
    for names, gone in (
        (_BY_SCANNED, {i - start for i in plan.scanned}),
        (_BY_COLLECTED, {i - repeated.carried for i in plan.outputs}),
    ):
        for name in names:
            if name in attributes:
                numbers = attributes[name].as_ints()
                attributes[name] = ir.AttrInt64s(name, [n for i, n in enumerate(numbers) if i not in gone])


def _replace(node: ir.Node, inputs: Sequence[ir.Value | None], attributes: dict[str, ir.Attr], kept: list[int]) -> None:
    """Puts a node with some of the outputs in the place of a node."""
    graph = node.graph
    assert graph is not None
    new = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        list(attributes.values()),
        num_outputs=len(kept),
        name=node.name,
        metadata_props=module_metadata(node),
    )
    graph.insert_before(node, new)
    for index, output in zip(kept, new.outputs, strict=True):
        old = node.outputs[index]
        output.name, output.type, output.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(output, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _remove_dead(body: ir.Graph) -> list[ir.Value]:
    """Removes the nodes and constants of a body that nothing uses; returns what they used."""
    released: list[ir.Value] = []
    for node in reversed(list(body)):
        if not any(_is_used(output) for output in node.outputs):
            released += [value for value in node.inputs if value is not None]
            body.remove(node, safe=True)
            released += release_bodies(node)
    for name, value in list(body.initializers.items()):
        if not _is_used(value):
            del body.initializers[name]
    return [value for value in released if value.graph is not body]


def _keep(values: MutableSequence[ir.Value], keeps: Callable[[int], bool]) -> None:
    """Takes the inputs or outputs of a body out that are not kept."""
    for index in reversed(range(len(values))):
        if not keeps(index):
            values.pop(index)


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()
