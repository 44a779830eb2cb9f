"""Exporters leave stack traces and absolute paths in models; only the module each node belongs to is of use later."""

from __future__ import annotations

import ast
import re
from collections.abc import MutableMapping

import onnx_ir as ir

MODULE_KEY = "irc.module"
"""Metadata key of a node: path of the PyTorch module it came from, for example `encoder.layer.3.attention`."""
_SCOPES = "pkg.torch.onnx.name_scopes"
_RULES = "pkg.onnxscript.rewriter.rule_name"
_ABSOLUTE_PATH = re.compile(r"(?:^|[\s\"'(=:])(?:/[^\s/\"']+){2,}|(?:^|[\s\"'(=:])[A-Za-z]:\\[^\s\"']+")


def clean_metadata(model: ir.Model) -> None:
    """Drops exporter metadata and texts with absolute paths, in place; keeps each node's module under `irc.module`.

    Metadata of the model and its graphs that users write (licences, class names) stays.
    """
    model.doc_string = _clean_text(model.doc_string)
    _drop_traces(model.metadata_props)
    graphs = [model.graph, *model.graph.subgraphs()]
    for function in model.functions.values():
        function.doc_string = _clean_text(function.doc_string)
        _drop_traces(function.metadata_props)
        graphs += [function.graph, *function.graph.subgraphs()]
    for graph in dict.fromkeys(graphs):
        graph.doc_string = _clean_text(graph.doc_string)
        if graph.name and _ABSOLUTE_PATH.search(graph.name):
            graph.name = "main_graph"
        _drop_traces(graph.metadata_props)
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            _clean_value(value)
        for node in graph:
            module = (
                node.metadata_props.get(MODULE_KEY)
                or _module_of_weight(node)
                or module_path(node.metadata_props.get(_SCOPES, ""))
            )
            node.metadata_props.clear()
            if module:
                node.metadata_props[MODULE_KEY] = module
            node.doc_string = None
            for value in node.outputs:
                _clean_value(value)


def _module_of_weight(node: ir.Node) -> str:
    """The module of an operator that the exporter has folded a normalization into: it says that of the normalization."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if "FuseBatchNormInto" not in node.metadata_props.get(_RULES, "") or weight is None or weight.name is None:
        return ""
    return weight.name.removesuffix(".weight") if weight.name.endswith(".weight") else ""


def _clean_value(value: ir.Value) -> None:
    value.metadata_props.clear()
    value.doc_string = None
    if value.const_value is not None:
        value.const_value.metadata_props.clear()
        if value.const_value.doc_string:
            value.const_value.doc_string = None


def _drop_traces(properties: MutableMapping[str, str]) -> None:
    for key in [k for k, v in properties.items() if k.startswith("pkg.") or _ABSOLUTE_PATH.search(v)]:
        del properties[key]


def _clean_text(text: str | None) -> str | None:
    return None if text and _ABSOLUTE_PATH.search(text) else text


def module_path(scopes: str) -> str:
    """The innermost module in torch's list of scopes, whose last entry is the operation itself; empty if none."""
    try:
        parsed = ast.literal_eval(scopes) if scopes else []
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    names = [s for s in parsed[:-1] if isinstance(s, str) and s] if isinstance(parsed, list) else []
    return names[-1] if names else ""


def module_metadata(node: ir.Node) -> dict[str, str]:
    """The metadata a node built in the place of `node` inherits: the module it belongs to."""
    return {MODULE_KEY: node.metadata_props[MODULE_KEY]} if MODULE_KEY in node.metadata_props else {}
