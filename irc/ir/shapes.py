"""Shapes that tell the truth after surgery: forget what may be stale, infer anew, or fail loudly."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from irc.errors import ModelError
from irc.ir.stripped import stripped_proto
from irc.ir.validity import first_line


def refresh_shapes(model: ir.Model, *, strict: bool = True) -> None:
    """Infers the type and shape of every value anew, in place.

    Initializers take them from their tensors; graph inputs keep theirs, as do graph outputs, whose symbols are part of the
    interface. Values behind operators that onnx does not know stay unknown.

    Args:
        model: Changed in place.
        strict: Raise when inference contradicts the graph; otherwise leave such values unknown.

    Raises:
        ModelError: If `strict` and inference finds a contradiction; the message has its first line.
    """
    graphs = (model.graph, *model.graph.subgraphs())
    known_before: dict[int, tuple[ir.Value, ir.TypeProtocol | None, ir.Shape | None]] = {}
    for graph in graphs:
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.type = ir.TensorType(value.const_value.dtype)
                value.shape = ir.Shape(value.const_value.shape)
        for node in graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    known_before[id(value)] = (value, value.type, value.shape)
                    value.shape = None
                    if node.domain in ("", "ai.onnx"):
                        value.type = None
    try:
        inferred = onnx.shape_inference.infer_shapes(
            stripped_proto(model, above=8192), check_type=strict, strict_mode=False, data_prop=True
        )
    except Exception as error:
        for value, type_, shape in known_before.values():
            value.type, value.shape = type_, shape
        if strict:
            raise ModelError(f"shape inference contradicts the graph: {first_line(error)}") from error
        return
    fresh = ir.from_proto(inferred)
    _copy(model.graph, fresh.graph)
    for value, type_, shape in known_before.values():
        producer = value.producer()
        if value.type is None and type_ is not None:
            value.type = type_
        if value.shape is None and shape is not None and _opaque(producer):
            value.shape = shape


def _opaque(node: ir.Node | None) -> bool:
    """Whether onnx cannot infer behind this node, so that what the exporter said is the best there is."""
    if node is None:
        return False
    return node.domain not in ("", "ai.onnx") or any(
        value is not None and value.shape is None and value.const_value is None for value in node.inputs
    )


def _copy(graph: ir.Graph, fresh: ir.Graph) -> None:
    """Types and shapes from a structurally equal graph; symbols invented by inference are dropped."""
    for node, other in zip(graph, fresh, strict=True):
        for value, inferred in zip(node.outputs, other.outputs, strict=True):
            if value.type is None or not value.is_graph_output():
                value.type = inferred.type if inferred.type is not None else value.type
            if value.shape is None and inferred.shape is not None:
                value.shape = _without_invented(inferred.shape)
            elif value.is_graph_output() and inferred.shape is not None and value.shape is not None:
                _require_compatible(value, inferred.shape)
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.GRAPH:
                _copy(attribute.as_graph(), other.attributes[name].as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body, fresh_body in zip(attribute.as_graphs(), other.attributes[name].as_graphs(), strict=True):
                    _copy(body, fresh_body)


def _without_invented(shape: ir.Shape) -> ir.Shape:
    return ir.Shape(
        [
            d if isinstance(d, int) or (d.value is not None and not str(d.value).startswith("unk__")) else None
            for d in shape
        ]
    )


def _require_compatible(value: ir.Value, inferred: ir.Shape) -> None:
    declared = value.shape
    assert declared is not None
    clash = len(declared) != len(inferred) or any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(declared, inferred, strict=False)
    )
    if clash:
        raise ModelError(
            f"graph output {value.name!r} is declared as {list(map(str, declared))} but computes {list(map(str, inferred))}"
        )
