"""Take over what another tool made of a model: the public face, weights, modules and shapes stay those of the model.

Other tools take protobuf and give protobuf. On the way out large weights become inputs, so that they are neither copied
nor serialized; on the way back they are initializers again, and the same tensors as before.
"""

from __future__ import annotations

import dataclasses

import onnx
import onnx_ir as ir

from irc.errors import ModelError
from irc.ir import interface, module_metadata, normalize, provenance, refresh_shapes
from irc.ir.names import track
from irc.ir.origin import record
from irc.ir.stripped import weights_detached
from irc.passes.simplification.tensor_content import content_key


@dataclasses.dataclass(frozen=True)
class Handout:
    """A model as protobuf, to be given to another tool.

    Attributes:
        proto: Its large weights, and those that callers may override, are inputs.
        weights: The tensors left out, by name.
    """

    proto: onnx.ModelProto
    weights: dict[str, ir.TensorProtocol]


def handed_out(model: ir.Model, *, limit: int) -> Handout:
    """A model as protobuf with at most `limit` bytes of weights of its main graph; the largest are left out.

    Args:
        model: Unchanged.
        limit: Bytes.
    """
    threshold = _threshold(model, limit)

    def detach(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> bool:
        return graph is model.graph and (value.is_graph_input() or tensor.nbytes > threshold)

    with weights_detached(model, detach=detach) as detached:
        proto: onnx.ModelProto = ir.to_proto(model)
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in detached]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    inputs = {value.name for value in proto.graph.input}
    for name, tensor in detached.items():
        if name not in inputs:
            dims = [int(d) for d in tensor.shape]  # type: ignore[arg-type]
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.dtype.value, dims))
    return Handout(proto, detached)


def _threshold(model: ir.Model, limit: int) -> int:
    """The size in bytes above which weights are left out, so that the others are `limit` bytes at most."""
    total = threshold = 0
    for size in sorted(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None):
        total += size
        if total > limit:
            # Of several weights of one size all or none are kept.
            return min(threshold, size - 1)
        threshold = size
    return threshold


def taken_back(model: ir.Model, handout: Handout, result: onnx.ModelProto) -> ir.Model | str:
    """What the tool made of a model in irc's form, or why it cannot take the place of the model.

    Args:
        model: What was handed out; unchanged.
        handout: The form in which it was.
        result: What came back.
    """
    try:
        found = normalize(result)
    except ModelError as error:
        return f"it is not valid: {error}"
    domains = {node.domain for node in model.graph.all_nodes()}
    foreign = sorted({node.domain for node in found.graph.all_nodes()} - domains - {"", "ai.onnx"})
    if foreign:
        return f"it uses operators of {foreign[0]}, which the model does not need"
    if found.graph.opset_imports.get("") != model.graph.opset_imports.get(""):
        return f"its opset is {found.graph.opset_imports.get('')}, not {model.graph.opset_imports.get('')}"
    inputs = {value.name: value for value in found.graph.inputs}
    public = [value.name for value in model.graph.inputs]
    if missing := [name for name in public if name not in inputs]:
        return f"it has no input {missing[0]!r}"
    if added := [name for name in inputs if name not in public and name not in handout.weights]:
        return f"it has another input {added[0]!r}"
    if [value.name for value in found.graph.outputs] != [value.name for value in model.graph.outputs]:
        return "it has other outputs"
    _restore_weights(model, found, handout.weights, inputs)
    found.graph.inputs.clear()
    found.graph.inputs.extend(inputs[name] for name in public)
    difference = _restore_faces(model, found)
    if difference is not None:
        return difference
    _restore_words(model, found)
    track(found)
    refresh_shapes(found, strict=False)
    return found


def _restore_weights(
    model: ir.Model, found: ir.Model, weights: dict[str, ir.TensorProtocol], inputs: dict[str | None, ir.Value]
) -> None:
    """Weights that were inputs are initializers again; those that came back unchanged are the model's own tensors."""
    found.graph.inputs.clear()
    for name, value in list(found.graph.initializers.items()):
        mine = model.graph.initializers.get(name)
        old, new = mine.const_value if mine is not None else None, value.const_value
        if old is not None and new is not None and old.nbytes == new.nbytes and content_key(old) == content_key(new):
            value.const_value = old
    for name, tensor in weights.items():
        if name not in inputs:
            continue
        value = inputs[name]
        own = model.graph.initializers[name]
        if value.uses() or value.is_graph_output() or own.is_graph_input():
            value.const_value = tensor
            value.type, value.shape = ir.TensorType(tensor.dtype), _copied(own.shape)
            found.graph.register_initializer(value)


def _restore_faces(model: ir.Model, found: ir.Model) -> str | None:
    """Inputs and outputs are declared as in the model; another element type is a difference."""
    for mine, theirs in zip(
        (*model.graph.inputs, *model.graph.outputs), (*found.graph.inputs, *found.graph.outputs), strict=True
    ):
        if mine.dtype != theirs.dtype:
            return f"{mine.name!r} is {theirs.dtype}, not {mine.dtype}"
        theirs.shape = _copied(mine.shape)
    return interface(model).difference(interface(found))


def _restore_words(model: ir.Model, found: ir.Model) -> None:
    """Texts, metadata, and the modules that nodes belong to."""
    found.ir_version = model.ir_version
    found.doc_string, found.graph.doc_string, found.graph.name = (
        model.doc_string,
        model.graph.doc_string,
        model.graph.name,
    )
    for mine, theirs in (
        (model.metadata_props, found.metadata_props),
        (model.graph.metadata_props, found.graph.metadata_props),
    ):
        theirs.clear()
        theirs.update(mine)
    origin = provenance(model)
    record(found, dataclasses.replace(origin, named=origin.named | provenance(found).named))
    modules = {o.name: module_metadata(node) for node in model.graph.all_nodes() for o in node.outputs if o.name}
    for node in found.graph.all_nodes():
        for output in node.outputs:
            if module := modules.get(output.name or ""):
                node.metadata_props.update(module)
                break


def replace_contents(model: ir.Model, found: ir.Model) -> None:
    """Makes a model hold the graph of another, which must not be used any more."""
    model.graph = found.graph
    model.functions.clear()
    model.functions.update(found.functions)
    record(model, provenance(found))
    track(model)


def _copied(shape: ir.Shape | None) -> ir.Shape | None:
    return None if shape is None else ir.Shape(list(shape))
