"""One form for every model that enters: functions inlined, names unique, traces dropped, constants as initializers."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import onnx
import onnx_ir as ir

from irc.errors import ModelError
from irc.ir.copying import snapshot
from irc.ir.data_files import check_entries
from irc.ir.exporter_metadata import clean_metadata
from irc.ir.functions import inline_functions
from irc.ir.messages import first_line, some_of
from irc.ir.names import track, unique_name
from irc.ir.origin import Provenance, add_note, provenance, record
from irc.ir.single_assignment import repair_names
from irc.ir.stripped import graphs_of
from irc.ir.tensors import settle_tensors, tensor_shape
from irc.ir.validity import check

MIN_IR_VERSION = 4
"""The first version in which an initializer need not be a graph input."""

# onnx_ir warns about damaged models on the root logger; irc refuses them with one line of its own.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())


def normalize(model: ir.Model | onnx.ModelProto | Any) -> ir.Model:
    """A copy of an in-memory model in the form `load` gives.

    Args:
        model: An `onnx_ir.Model` or an `onnx.ModelProto`; unchanged.

    Raises:
        ModelError: If the model uses a feature irc refuses or is not valid.
    """
    if isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        if any(t.data_location == onnx.TensorProto.EXTERNAL for g in graphs_of(copy.graph) for t in g.initializer):
            raise ModelError(
                "the weights of this ModelProto are in a file whose folder it does not name; give the path instead"
            )
        result = read_proto(copy)
    elif isinstance(model, ir.Model):
        result = snapshot(model)
        external = any(isinstance(v.const_value, ir.ExternalTensor) for v in model.graph.initializers.values())
        record(result, dataclasses.replace(provenance(result), external=provenance(result).external or external))
    else:
        raise ModelError(f"{type(model).__name__} is not a model; give a path, an onnx_ir.Model or an onnx.ModelProto")
    normalize_in_place(result)
    check(result)
    return result


def read_proto(proto: onnx.ModelProto) -> ir.Model:
    """A protobuf as objects, repeated names repaired; what deserialization would drop in silence is refused.

    Args:
        proto: Changed by the repair.

    Raises:
        ModelError: If the model uses a feature irc refuses or is damaged.
    """
    refuse_unsupported(proto)
    check_entries(proto)
    repaired = repair_names(proto)
    for graph in graphs_of(proto.graph):
        graph.name = graph.name or "graph"
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.HasField("dim_value") and dim.dim_value < 0:
                    dim.ClearField("dim_value")
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        raise ModelError(f"the model is damaged: {first_line(error)}; export or copy it again") from error
    record(model, Provenance())
    if repaired:
        add_note(model, f"{len(repaired)} repeated names were made unique: {some_of(repaired)}")
    return model


def refuse_unsupported(proto: onnx.ModelProto) -> None:
    """Raises ModelError for what deserialization would drop in silence: sparse tensors and training information."""
    if proto.training_info:
        raise ModelError("the model holds training information, which irc does not keep; export it for inference")
    for graph in graphs_of(proto.graph):
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise ModelError(f"the model has a sparse initializer ({name!r}); make it dense before irc reads it")
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type in (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS):
                    raise ModelError(
                        f"node {node.name!r} ({node.op_type}) holds a sparse tensor; make it dense before irc reads it"
                    )


def normalize_in_place(model: ir.Model) -> None:
    """Brings a freshly read model into irc's form.

    Raises:
        ModelError: If functions cannot be inlined, a tensor is damaged, or the graph has a cycle.
    """
    imports = model.graph.opset_imports
    if "ai.onnx" in imports:
        version = imports.pop("ai.onnx")
        imports.setdefault("", version)
    if (model.ir_version or 0) < MIN_IR_VERSION:
        _free_initializers(model)
        model.ir_version = MIN_IR_VERSION
    if provenance(model).typed is None:
        typed = frozenset(
            value.name
            for node in model.graph.all_nodes()
            for value in node.outputs
            if value.name and value.type is not None
        )
        unshaped = frozenset(
            value.name
            for body in model.graph.subgraphs()
            for value in (*body.inputs, *body.outputs)
            if value.name and value.shape is None
        )
        record(model, dataclasses.replace(provenance(model), typed=typed, unshaped=unshaped))
    settle_tensors(model)
    inline_functions(model)
    for graph in _graphs(model):
        _lift_constants(graph)
    _name_everything(model)
    clean_metadata(model)
    try:
        model.graph.sort()
    except ValueError as error:
        raise ModelError(f"the graph has a cycle: {first_line(error)}") from error
    track(model)


def _graphs(model: ir.Model) -> list[ir.Graph]:
    return list(dict.fromkeys((model.graph, *model.graph.subgraphs())))


def _free_initializers(model: ir.Model) -> None:
    """Before IR version 4 every initializer had to be listed as an input without being one; runtimes read it so."""
    inputs = model.graph.inputs
    kept = [value for value in inputs if not value.is_initializer()]
    if len(kept) != len(inputs):
        inputs.clear()
        inputs.extend(kept)


def _lift_constants(graph: ir.Graph) -> None:
    """Constant nodes become initializers, so that every weight is found, externalised and replaced in one way."""
    for node in list(graph):
        if node.op_type != "Constant" or node.domain != "":
            continue
        value = node.outputs[0]
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None or value.is_graph_output() or not value.name or value.name in graph.initializers:
            continue
        fresh = ir.Value(
            name=value.name, shape=tensor_shape(tensor), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        value.replace_all_uses_with(fresh)
        graph.remove(node, safe=True)
        graph.register_initializer(fresh)


def _name_everything(model: ir.Model) -> None:
    """Names every value and node once; of two values with one name, a graph input or output keeps it."""
    seen: dict[str, ir.Value] = {}
    unnamed: dict[int, ir.Value] = {}

    def claim(value: ir.Value) -> None:
        holder = seen.setdefault(value.name, value) if value.name else None
        if holder is not value:
            unnamed[id(value)] = value

    for value in (*model.graph.inputs, *model.graph.outputs):
        claim(value)
        if id(value) in unnamed:
            raise ModelError(f"two graph inputs or outputs are called {value.name!r}; give each a name of its own")
    graphs = _graphs(model)
    for graph in graphs:
        for value in (*graph.inputs, *graph.initializers.values()):
            claim(value)
        for node in graph:
            for value in node.outputs:
                if value.name or value.uses() or value.is_graph_output():
                    claim(value)
    track(model)
    for value in unnamed.values():
        value.name = unique_name(model, value.name or "value")
    taken: set[str] = set()
    invented: set[str] = set()
    counts: dict[str, int] = {}
    for node in model.graph.all_nodes():
        base = node.name or next((o.name for o in node.outputs if o.name), None) or node.op_type
        name = base
        while name in taken:
            counts[base] = counts.get(base, 0) + 1
            name = f"{base}_{counts[base]}"
        taken.add(name)
        if not node.name:
            invented.add(name)
        if node.name != name:
            node.name = name
    origin = provenance(model)
    record(model, dataclasses.replace(origin, named=origin.named | invented))
