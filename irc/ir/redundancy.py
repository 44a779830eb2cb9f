"""What a file need not say: names that irc gave to nodes, and types that every reader infers.

Without it an optimized small model would be larger than the original.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from irc.ir.origin import provenance
from irc.ir.stripped import graphs_of, is_opaque


def drop_redundant(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Clears invented node names and inferred types in a serialized model, in place.

    Types of inner values stay if the file the model was read from declared them, or if an operator that onnx does not
    know computes them; those of weights are in their tensors.

    Args:
        proto: `model` as protobuf.
        model: Tells what was there when it was read; nothing is dropped of a model that irc did not read.
    """
    origin = provenance(model)
    if origin.typed is None:
        return
    versions = {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import}
    functions = {(function.domain, function.name) for function in proto.functions}
    for graph in graphs_of(proto.graph):
        weights = {tensor.name for tensor in graph.initializer}
        declared = set(origin.typed)
        for node in graph.node:
            if node.name in origin.named:
                node.ClearField("name")
            if is_opaque(node, versions, functions):
                declared.update(node.output)
        kept = [
            info
            for info in graph.value_info
            if (info.name in declared and info.name not in weights) or info.doc_string or info.metadata_props
        ]
        if len(kept) != len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(kept)
