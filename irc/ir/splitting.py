"""A model split for execution: a small protobuf and its large weights, so that no weight is serialized.

How the weights cross to the process that runs the model is the business of `irc.runner.portable`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from irc.errors import ModelError
from irc.ir.stripped import weights_detached
from irc.ir.tensors import LARGE_BYTES


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A model without its large weights, and these.

    Attributes:
        proto: Serialized ModelProto whose large initializers are external placeholders.
        weights: The tensors left out, by the name of their initializer.
    """

    proto: bytes
    weights: dict[str, ir.TensorProtocol]


_NUMPY_TYPES = {
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.INT8,
    ir.DataType.INT16,
    ir.DataType.INT32,
    ir.DataType.INT64,
    ir.DataType.UINT8,
    ir.DataType.UINT16,
    ir.DataType.UINT32,
    ir.DataType.UINT64,
    ir.DataType.BOOL,
}


def skeleton(model: ir.Model, *, extra_outputs: Sequence[str] = ()) -> Skeleton:
    """Splits a model into a small protobuf and its weights; the model is unchanged.

    Weights of 1 KiB and more in the main graph are split off; those in bodies and of types numpy lacks stay inside.
    Nothing is read or copied: the weights are the model's own tensors.

    Args:
        model: Any model, valid or not.
        extra_outputs: Names of values of the main graph that become outputs as well.

    Raises:
        ModelError: If an extra output is not a value of the main graph.
    """

    def split(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> bool:
        large = tensor.nbytes >= LARGE_BYTES and tensor.dtype in _NUMPY_TYPES
        return large and graph is model.graph and not value.is_graph_input()

    with weights_detached(model, detach=split) as detached:
        proto: onnx.ModelProto = ir.to_proto(model)
    weights = _without_unused(model, proto, detached, extra_outputs)
    if extra_outputs:
        _expose(model, proto, extra_outputs)
    return Skeleton(proto.SerializeToString(deterministic=True), weights)


def _without_unused(
    model: ir.Model, proto: onnx.ModelProto, detached: Mapping[str, ir.TensorProtocol], extra_outputs: Sequence[str]
) -> dict[str, ir.TensorProtocol]:
    """The detached weights that something reads; the placeholders of the others go.

    ONNX Runtime drops what nothing reads while it loads, and then refuses to be given a value for it.
    """
    initializers = model.graph.initializers
    kept = {
        name: tensor
        for name, tensor in detached.items()
        if initializers[name].uses() or initializers[name].is_graph_output() or name in extra_outputs
    }
    if len(kept) < len(detached):
        left = [tensor for tensor in proto.graph.initializer if tensor.name in kept or tensor.name not in detached]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(left)
    return kept


def _expose(model: ir.Model, proto: onnx.ModelProto, names: Sequence[str]) -> None:
    graph = model.graph
    known = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    known |= {value.name for node in graph for value in node.outputs}
    present = {value.name for value in model.graph.outputs}
    for name in names:
        if name in present:
            continue
        if name not in known:
            raise ModelError(f"{name!r} cannot be observed: the main graph has no such value")
        present.add(name)
        # Without a type: the runtime infers it, and what the graph says may be stale in the middle of an edit.
        proto.graph.output.add(name=name)
