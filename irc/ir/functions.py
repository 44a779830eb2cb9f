"""Model-local functions are inlined once, at load, so that passes see operators and nothing else."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from irc.errors import ModelError
from irc.ir.messages import first_line
from irc.ir.origin import add_note

FunctionId = tuple[str, str, str]


def inline_functions(model: ir.Model) -> None:
    """Inlines every function that means the same under the opsets of the model, in place.

    A function written for another opset is inlined if each of its operators is the same in both. Otherwise it stays, as
    does what it calls; it is then one opaque operator to the passes, and a note in the provenance says so.

    Raises:
        ModelError: If functions call each other in a cycle, or a call does not fit its function.
    """
    if not model.functions:
        return
    kept = _callees(model, _not_inlinable(model))
    for identifier, function in model.functions.items():
        if identifier not in kept:
            for domain in function.opset_imports:
                version = model.graph.opset_imports.get(domain)
                if version is not None:
                    function.opset_imports[domain] = version
    try:
        common_passes.InlinePass(criteria=lambda function: function.identifier() not in kept)(model)
    except Exception as error:
        raise ModelError(f"the model's functions cannot be inlined: {first_line(error)}") from error
    common_passes.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]


def _not_inlinable(model: ir.Model) -> dict[FunctionId, str]:
    reasons: dict[FunctionId, str] = {}
    for identifier, function in model.functions.items():
        reason = _opset_conflict(model, function)
        if reason is not None:
            reasons[identifier] = reason
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        for node in graph.all_nodes():
            identifier = node.op_identifier()
            if identifier in model.functions and any(
                attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
                for attribute in node.attributes.values()
            ):
                reasons.setdefault(identifier, "it takes a graph as an attribute")
    for (domain, name, _), reason in reasons.items():
        add_note(model, f"function {domain}.{name} was left as it is: {reason}")
    return reasons


def _opset_conflict(model: ir.Model, function: ir.Function) -> str | None:
    """Why the function would mean something else under the model's opsets, or None."""
    mine = model.graph.opset_imports
    differing = {d: v for d, v in function.opset_imports.items() if d in mine and mine[d] != v}
    if not differing:
        return None
    for node in function.all_nodes():
        version = differing.get(node.domain)
        if version is None or node.op_identifier() in model.functions:
            continue
        if _since(node, version) != _since(node, mine[node.domain]):
            return (
                f"its {node.op_type} is of opset {version}, the model's of opset {mine[node.domain]}, and they differ; "
                "convert the function to the model's opset to let irc optimize it"
            )
    return None


def _since(node: ir.Node, version: int) -> int | None:
    try:
        return int(onnx.defs.get_schema(node.op_type, version, node.domain).since_version)
    except onnx.defs.SchemaError:
        return None


def _callees(model: ir.Model, reasons: dict[FunctionId, str]) -> set[FunctionId]:
    """The functions that stay and all they call: inlining into a function of another opset would mix the two."""
    kept = set(reasons)
    pending = list(reasons)
    while pending:
        for node in model.functions[pending.pop()].all_nodes():
            identifier = node.op_identifier()
            if identifier in model.functions and identifier not in kept:
                kept.add(identifier)
                pending.append(identifier)
    return kept
