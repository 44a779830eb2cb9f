"""One shape for every model that enters: functions inlined, names unique, exporter traces dropped, constants as initializers."""

from __future__ import annotations

import ast
import re
from typing import Any

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from irc.errors import ModelError
from irc.ir.edit import MODULE_KEY
from irc.ir.names import track, unique_name
from irc.ir.validity import first_line

_SCOPES = "pkg.torch.onnx.name_scopes"
_ABSOLUTE_PATH = re.compile(r"(?:^|[\s\"'(=:])(?:/[^\s/\"']+){2,}|[A-Za-z]:\\[^\s\"']+")
MIN_IR_VERSION = 4


def normalize(model: ir.Model | onnx.ModelProto | Any) -> ir.Model:
    """A copy of an in-memory model in the form `load` gives.

    Args:
        model: An `onnx_ir.Model` or an `onnx.ModelProto`.

    Raises:
        ModelError: If the model uses a feature irc refuses or is not valid.
    """
    if isinstance(model, onnx.ModelProto):
        refuse_unsupported(model)
        return normalize_in_place(ir.from_proto(model))
    if not isinstance(model, ir.Model):
        raise ModelError(f"{type(model).__name__} is not a model; give a path, an onnx_ir.Model or an onnx.ModelProto")
    return normalize_in_place(model.clone())


def refuse_unsupported(proto: onnx.ModelProto) -> None:
    """Raises ModelError for what deserialization would drop in silence: sparse initializers and training information."""
    if proto.training_info:
        raise ModelError("the model holds training information, which irc does not keep; export it for inference")
    pending = [proto.graph]
    while pending:
        graph = pending.pop()
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise ModelError(f"the model has a sparse initializer ({name!r}); make it dense before irc reads it")
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    pending.append(attribute.g)
                elif attribute.type == onnx.AttributeProto.GRAPHS:
                    pending.extend(attribute.graphs)


def normalize_in_place(model: ir.Model) -> ir.Model:
    """Brings a freshly loaded model into irc's form and returns it.

    Raises:
        ModelError: If functions call each other in a cycle or the graph has a cycle.
    """
    if "" not in model.graph.opset_imports and "ai.onnx" in model.graph.opset_imports:
        model.graph.opset_imports[""] = model.graph.opset_imports.pop("ai.onnx")
    model.ir_version = max(model.ir_version or MIN_IR_VERSION, MIN_IR_VERSION)
    _inline(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        _lift_constants(graph)
    _unique_values(model)
    track(model)
    _clean_metadata(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        try:
            graph.sort()
        except ValueError as error:
            raise ModelError(f"the graph has a cycle: {first_line(error)}") from error
    return model


def _inline(model: ir.Model) -> None:
    if not model.functions:
        return
    try:
        common_passes.InlinePass()(model)
    except Exception as error:
        cause = error.__cause__ or error
        raise ModelError(f"the model's functions cannot be inlined: {first_line(cause)}") from error
    common_passes.RemoveUnusedFunctionsPass()(model)


def _lift_constants(graph: ir.Graph) -> None:
    """Constant nodes become initializers, so that every weight is found, externalised and replaced in one way."""
    for node in list(graph):
        if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
            continue
        value = node.outputs[0]
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None or value.is_graph_output() or not value.name or value.name in graph.initializers:
            continue
        fresh = ir.Value(
            name=value.name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        tensor.name = value.name
        value.replace_all_uses_with(fresh)
        graph.remove(node, safe=True)
        graph.register_initializer(fresh)


def _unique_values(model: ir.Model) -> None:
    """Names every value and node; of two values with one name, a graph input or output keeps it."""
    seen: dict[str, ir.Value] = {}
    duplicates: list[ir.Value] = []

    def claim(value: ir.Value, *, fixed: bool = False) -> None:
        name = value.name
        if not name:
            duplicates.append(value)
        elif name not in seen:
            seen[name] = value
        elif seen[name] is not value:
            if fixed:
                duplicates.append(seen[name])
                seen[name] = value
            else:
                duplicates.append(value)

    graphs = (model.graph, *model.graph.subgraphs())
    for value in (*model.graph.inputs, *model.graph.outputs):
        claim(value, fixed=True)
    for graph in graphs:
        for value in (*graph.inputs, *graph.initializers.values()):
            claim(value)
    for graph in graphs:
        for node in graph:
            for value in node.outputs:
                if value.name or value.uses() or value.is_graph_output():
                    claim(value)
    track(model)
    for value in duplicates:
        fresh = unique_name(model, value.name or "value")
        graph = value.graph
        if value.is_initializer() and isinstance(graph, ir.Graph):
            old = next(k for k, v in graph.initializers.items() if v is value)
            del graph.initializers[old]
            value.name = fresh
            graph.register_initializer(value)
        else:
            value.name = fresh
    taken: set[str] = set()
    for node in model.graph.all_nodes():
        base = node.name or next((o.name for o in node.outputs if o.name), node.op_type)
        name, suffix = base, 0
        while name in taken:
            suffix += 1
            name = f"{base}_{suffix}"
        taken.add(name)
        if node.name != name:
            node.name = name


def _clean_metadata(model: ir.Model) -> None:
    """Drops exporter traces and absolute paths; keeps the PyTorch module of each node under one key."""
    model.doc_string = _clean_text(model.doc_string)
    _keep_clean(model.metadata_props)
    for graph in (model.graph, *model.graph.subgraphs()):
        graph.doc_string = _clean_text(graph.doc_string)
        _keep_clean(graph.metadata_props)
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            _clean_value(value)
        for node in graph:
            module = node.metadata_props.get(MODULE_KEY) or _module_name(node.metadata_props.get(_SCOPES, ""))
            node.metadata_props.clear()
            if module:
                node.metadata_props[MODULE_KEY] = module
            node.doc_string = None
            for value in node.outputs:
                _clean_value(value)


def _clean_value(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None


def _keep_clean(properties: dict[str, str]) -> None:
    for key in [k for k, v in properties.items() if k.startswith("pkg.") or _ABSOLUTE_PATH.search(v)]:
        del properties[key]


def _clean_text(text: str | None) -> str | None:
    return None if text and _ABSOLUTE_PATH.search(text) else text


def _module_name(scopes: str) -> str:
    """The innermost module of torch's list of scopes, for example `encoder.layer.3.attention`."""
    try:
        parsed = ast.literal_eval(scopes) if scopes else []
    except (ValueError, SyntaxError):
        return ""
    names = [s for s in parsed[:-1] if s] if isinstance(parsed, list) else []
    return str(names[-1]) if names else ""
