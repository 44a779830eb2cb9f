"""A model in facts: the document behind `irc inspect`, and its JSON.

Every field is always there:

    irc                  version of irc
    schema               1; grows when a field changes its meaning or goes away, not when one is added
    model                file name, "" for a model in memory
    size_bytes           the file and its data files; for a model in memory, what saving it would take
    graph_bytes          what is not weights: nodes, names, attributes
    metadata_bytes       what irc drops when it loads the file: exporter traces, doc strings; null for a model in memory
    weight_bytes         constants as stored
    ir_version, opsets   {"ai.onnx": 20, ...}
    producer             who wrote the file
    inputs, outputs      [{name, dtype, shape}]; a dimension is a number, a symbol or null; shape null: unknown rank
    dynamic_axes         [{name, size, assumed, inputs: [[input, axis], ...]}]: the sizes that all costs are for
    nodes                number of nodes, those in bodies of If, Loop and Scan included; functions are inlined and
                         Constant nodes are constants
    nodes_in_bodies      how many of them lie in bodies
    operators            [{operator, nodes, macs, parameters, weight_bytes, operands: {types: nodes}}], most MACs first;
                         nodes that only unpack constants have no costs of their own
    custom_operators     [{operator, nodes, runtime}]; runtime: whether it is ONNX Runtime's (com.microsoft...)
    macs                 {total, by_operands: {types: macs}, uncounted: [{node, operator, reason}]}
    parameters           number of parameters; scales, shapes and indices are not
    weights_by_dtype     [{dtype, tensors, elements, bytes}], most bytes first
    moved_bytes          bytes read and written if every node ran on its own; null if unknown
    peak_memory          {bytes, node, operator}: activations alive at once in graph order; null if unknown
    heaviest_nodes       [{node, operator, macs, parameters, weight_bytes, moved_bytes, operands, times, module}],
                         most MACs first
    tensors              [{name, dtype, shape, bytes, parameters, users, external}], most bytes first
    external_data        [{file, tensors, bytes}]
    quantization         {quantize, dequantize, dynamic}: numbers of (Dynamic)QuantizeLinear and DequantizeLinear nodes
    notes                things to know, in words
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from irc.analysis.activation_memory import peak_memory
from irc.analysis.assumed_sizes import Sizes, assume_sizes, dynamic_axes
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.analysis.model_cost import ModelCost, NodeCost, cost_of
from irc.analysis.operation_macs import RUNTIME_DOMAIN, STANDARD_DOMAINS
from irc.analysis.type_names import type_name
from irc.analysis.weights import StoredTensor, Weights
from irc.ir import size_on_disk, weight_bytes

SCHEMA = 1


def describe(
    model: ir.Model, *, path: Path | None = None, sizes: Mapping[str, int] | None = None, top: int | None = None
) -> dict[str, Any]:
    """The facts of a model as JSON-ready values; the module describes each field.

    Args:
        model: A loaded model; unchanged.
        path: Where it was loaded from, for sizes on disk.
        sizes: Sizes of dynamic dimensions by symbol or "input:axis"; the rest is assumed.
        top: At most this many nodes and tensors; None for all.

    Raises:
        UsageError: If `sizes` names no dynamic dimension of the model.
    """
    import irc

    shapes, weights = ConcreteShapes(model, assume_sizes(model, sizes)), Weights(model)
    costs = cost_of(shapes, weights)
    stored = sorted(weights.stored(), key=lambda tensor: -tensor.size_bytes)
    peak = peak_memory(shapes, weights)
    external = _external_data(model)
    clean_bytes, constants = size_on_disk(model), weight_bytes(model)
    size = clean_bytes if path is None else path.stat().st_size + _data_size(path, external)
    operators = _operators(model, costs)
    inner = sum(1 for graph in model.graph.subgraphs() if graph is not model.graph for _ in graph)
    return {
        "irc": irc.__version__,
        "schema": SCHEMA,
        "model": path.name if path is not None else "",
        "size_bytes": size,
        "graph_bytes": clean_bytes - constants,
        "metadata_bytes": max(0, size - clean_bytes) if path is not None else None,
        "weight_bytes": constants,
        "ir_version": model.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in model.graph.opset_imports.items()},
        "producer": " ".join(part for part in (model.producer_name, model.producer_version) if part),
        "inputs": [_value(value) for value in model.graph.inputs if value.name not in model.graph.initializers],
        "outputs": [_value(value) for value in model.graph.outputs],
        "dynamic_axes": _dynamic_axes(model, costs.sizes),
        "nodes": sum(1 for _ in model.graph.all_nodes()),
        "nodes_in_bodies": inner,
        "operators": operators,
        "custom_operators": _custom_operators(model),
        "macs": {
            "total": costs.macs,
            "by_operands": costs.macs_by_operands(),
            "uncounted": [{"node": n.node, "operator": n.op_type, "reason": n.unknown} for n in costs.uncounted],
        },
        "parameters": sum(tensor.parameters for tensor in stored),
        "weights_by_dtype": _by_dtype(stored),
        "moved_bytes": costs.moved_bytes,
        "peak_memory": None
        if peak is None
        else {"bytes": peak.size_bytes, "node": peak.node, "operator": peak.op_type},
        "heaviest_nodes": [_node(node) for node in sorted(costs.nodes, key=lambda n: -(n.macs or 0))[:top]],
        "tensors": [_tensor(tensor) for tensor in stored[:top]],
        "external_data": external,
        "quantization": {
            key: sum(o["nodes"] for o in operators if o["operator"].rpartition("::")[2] == op_type)
            for key, op_type in (
                ("quantize", "QuantizeLinear"),
                ("dequantize", "DequantizeLinear"),
                ("dynamic", "DynamicQuantizeLinear"),
            )
        },
        "notes": list(costs.notes),
    }


def operator_name(node: ir.Node) -> str:
    """The operator with its domain in front where it is not ONNX's: "Conv", "com.microsoft::FusedConv"."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def operator_counts(model: ir.Model) -> dict[str, int]:
    """Number of nodes per operator, bodies included, in order of first appearance."""
    counts: dict[str, int] = {}
    for node in model.graph.all_nodes():
        name = operator_name(node)
        counts[name] = counts.get(name, 0) + 1
    return counts


def _value(value: ir.Value) -> dict[str, Any]:
    shape = None
    if value.shape is not None:
        shape = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    return {"name": value.name, "dtype": _value_type(value), "shape": shape}


def _value_type(value: ir.Value) -> str:
    kind = {ir.SequenceType: "sequence of ", ir.OptionalType: "optional "}.get(type(value.type), "")  # type: ignore[arg-type]
    return f"{kind}{type_name(value.dtype)}"


def _dynamic_axes(model: ir.Model, sizes: Sizes) -> list[dict[str, Any]]:
    axes = dynamic_axes(model)
    values = {value.name: value for value in model.graph.inputs}
    found = []
    for name, places in axes.items():
        first, axis = places[0]
        dims = sizes.dims(values[first]) or ()
        found.append(
            {
                "name": name,
                "size": dims[axis],
                "assumed": name not in sizes.given,
                "inputs": [list(place) for place in places],
            }
        )
    return found


def _operators(model: ir.Model, costs: ModelCost) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {
        name: {"operator": name, "nodes": count, "macs": 0, "parameters": 0, "weight_bytes": 0, "operands": {}}
        for name, count in operator_counts(model).items()
    }
    for node in costs.nodes:
        row = rows[node.op_type]
        row["macs"] += node.macs or 0
        row["parameters"] += node.parameters
        row["weight_bytes"] += node.weight_bytes
        if node.operands:
            row["operands"][node.operands] = row["operands"].get(node.operands, 0) + 1
    return sorted(rows.values(), key=lambda row: (-row["macs"], -row["weight_bytes"], -row["nodes"]))


def _custom_operators(model: ir.Model) -> list[dict[str, Any]]:
    return [
        {"operator": name, "nodes": count, "runtime": name.startswith(RUNTIME_DOMAIN)}
        for name, count in operator_counts(model).items()
        if name.rpartition("::")[0] not in STANDARD_DOMAINS
    ]


def _by_dtype(stored: Iterable[StoredTensor]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for tensor in stored:
        row = rows.setdefault(tensor.dtype, {"dtype": tensor.dtype, "tensors": 0, "elements": 0, "bytes": 0})
        row["tensors"] += 1
        row["elements"] += tensor.elements
        row["bytes"] += tensor.size_bytes
    return sorted(rows.values(), key=lambda row: -row["bytes"])


def _node(node: NodeCost) -> dict[str, Any]:
    return {
        "node": node.node,
        "operator": node.op_type,
        "macs": node.macs,
        "parameters": node.parameters,
        "weight_bytes": node.weight_bytes,
        "moved_bytes": node.moved_bytes,
        "operands": node.operands,
        "times": node.times,
        "module": node.module,
    }


def _tensor(tensor: StoredTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "bytes": tensor.size_bytes,
        "parameters": tensor.parameters,
        "users": list(tensor.users),
        "external": tensor.external,
    }


def _external_data(model: ir.Model) -> list[dict[str, Any]]:
    files: dict[str, dict[str, Any]] = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                file = str(tensor.location)
                row = files.setdefault(file, {"file": file, "tensors": 0, "bytes": 0})
                row["tensors"] += 1
                row["bytes"] += tensor.nbytes
    return list(files.values())


def _data_size(path: Path, external: list[dict[str, Any]]) -> int:
    return sum((path.resolve().parent / row["file"]).stat().st_size for row in external)
