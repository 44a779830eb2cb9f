"""Shapes that tell the truth after surgery: forget what may be stale, infer anew, or fail loudly."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from irc.errors import ModelError
from irc.ir.bodies import bodies
from irc.ir.messages import first_line
from irc.ir.stripped import graphs_of, stripped_proto, without_opaque_nodes
from irc.ir.tensors import tensor_shape

Dim = int | str | None


def refresh_shapes(model: ir.Model, *, strict: bool = True) -> None:
    """Infers the type and shape of every value anew, in place.

    Initializers take them from their tensors; inputs and outputs of the main graph keep theirs, symbols included.
    Dimensions that are not known but known to be equal get the same symbol, of onnx's making; files are without. Where
    inference cannot tell a dimension, what was known stays if it is a symbol, or if no input of the node changed its
    shape; otherwise the dimension becomes unknown. Operators that onnx does not know keep what the exporter said.

    Args:
        model: Names unique, as `load` leaves them. Unchanged if an error is raised.
        strict: Raise when inference contradicts the graph; otherwise leave what it cannot tell unknown.

    Raises:
        ModelError: If `strict` and inference finds a contradiction; the message has its first line.
    """
    proto = stripped_proto(model)
    opaque = set(without_opaque_nodes(proto, element_type=None))
    # What follows from an operator of unknown type has none either, which strict inference takes for a contradiction.
    untyped = {info.name for info in proto.graph.input if not info.HasField("type")}
    strict = strict and not any(
        untyped.intersection(node.input) for graph in graphs_of(proto.graph) for node in graph.node
    )
    _forget(proto)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=strict, strict_mode=strict, data_prop=True)
    except Exception as error:
        if strict:
            raise ModelError(f"shape inference contradicts the graph: {first_line(error)}") from error
        inferred = proto
    public = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    symbols = {
        d
        for value in (*model.graph.inputs, *model.graph.outputs)
        for d in shape_dims(value.shape) or ()
        if isinstance(d, str)
    }
    found: dict[str, onnx.TypeProto] = {}
    for graph in graphs_of(inferred.graph):
        for info in (*graph.value_info, *graph.input, *graph.output):
            if info.HasField("type"):
                found[info.name] = info.type
    _Refresh(found, symbols, public, opaque).graph(model.graph, inputs_changed=False)


def _forget(proto: onnx.ModelProto) -> None:
    """Drops every shape inference is to find; element types of body inputs and outputs stay, the checker wants them.

    Defaults of inputs go too: inference would take them for constants, and callers may override them.
    """
    inputs = {info.name for info in proto.graph.input}
    for index in reversed(range(len(proto.graph.initializer))):
        if proto.graph.initializer[index].name in inputs:
            del proto.graph.initializer[index]
    for graph in graphs_of(proto.graph):
        del graph.value_info[:]
        if graph is not proto.graph:
            for info in (*graph.input, *graph.output):
                if info.type.HasField("tensor_type"):
                    info.type.tensor_type.ClearField("shape")


class _Refresh:
    """One walk that writes what was inferred and keeps what is still true."""

    def __init__(self, found: dict[str, onnx.TypeProto], symbols: set[str], public: set[int], opaque: set[str]) -> None:
        self._found, self._symbols, self._public, self._opaque = found, symbols, public, opaque
        self._changed: set[int] = set()

    def graph(self, graph: ir.Graph, *, inputs_changed: bool) -> None:
        for value in graph.initializers.values():
            if value.const_value is not None:
                before = shape_dims(value.shape)
                value.type, value.shape = ir.TensorType(value.const_value.dtype), tensor_shape(value.const_value)
                if before is not None and before != shape_dims(value.shape):
                    self._changed.add(id(value))
        for value in graph.inputs:
            self._update(value, trusted=not inputs_changed)
        for node in graph:
            changed = any(value is not None and id(value) in self._changed for value in node.inputs)
            for body in bodies(node):
                self.graph(body, inputs_changed=changed)
                changed = changed or any(id(value) in self._changed for value in body.outputs)
            for value in node.outputs:
                if value.name not in self._opaque:
                    self._update(value, trusted=not changed)
                elif id(value) not in self._public:
                    value.shape = _merged(self._declared(value), None, trusted=True)

    def _update(self, value: ir.Value, *, trusted: bool) -> None:
        inferred = self._found.get(value.name or "")
        if id(value) in self._public:
            if value.is_graph_output() and inferred is not None:
                value.type = value.type or ir.serde.deserialize_type_proto_for_type(inferred)
                if inferred.HasField("tensor_type"):  # the elements of a sequence keep what was declared
                    value.shape = value.shape or self._known(inferred)
            return
        old = self._declared(value)
        new = None
        if inferred is not None:
            value.type = ir.serde.deserialize_type_proto_for_type(inferred) or value.type
            shape = ir.serde.deserialize_type_proto_for_shape(inferred)
            new = shape_dims(shape)
            if inferred.HasField("tensor_type") or shape is None:
                value.shape = _merged(old, new, trusted=trusted)
            else:
                value.shape = shape
        else:
            value.shape = _merged(old, None, trusted=trusted)
        now = shape_dims(value.shape)
        if old is not None and (
            now is None or any(isinstance(a, int) and a != b for a, b in zip(old, now, strict=False))
        ):
            self._changed.add(id(value))
        if old is not None and now is not None and len(old) != len(now):
            self._changed.add(id(value))

    def _known(self, inferred: onnx.TypeProto) -> ir.Shape | None:
        """The inferred shape without the symbols onnx made up for dimensions it does not know."""
        dims = shape_dims(ir.serde.deserialize_type_proto_for_shape(inferred))
        return None if dims is None else ir.Shape([None if self._is_invented(d) else d for d in dims])

    def _declared(self, value: ir.Value) -> tuple[Dim, ...] | None:
        """The dims of a value before, without symbols that an earlier inference made up: they mean nothing in this one."""
        dims = shape_dims(value.shape)
        return None if dims is None else tuple(None if self._is_invented(d) else d for d in dims)

    def _is_invented(self, dim: Dim) -> bool:
        return is_invented(dim) and dim not in self._symbols


def is_invented(dim: object) -> bool:
    """Whether a dimension is a symbol that onnx made up: equal ones are equal, and the name means nothing to anybody."""
    return isinstance(dim, str) and dim.startswith("unk__")


def _merged(old: tuple[Dim, ...] | None, new: tuple[Dim, ...] | None, *, trusted: bool) -> ir.Shape | None:
    """The new dims, gaps filled from the old ones: symbols if the rank is the same, numbers only if `trusted`."""
    if new is None:
        return ir.Shape(old) if trusted and old is not None else None
    if old is None or len(old) != len(new):
        return ir.Shape(new)
    return ir.Shape(
        [
            a if a is not None and (b is None or is_invented(b)) and (trusted or isinstance(a, str)) else b
            for a, b in zip(old, new, strict=True)
        ]
    )


def shape_dims(shape: ir.Shape | None) -> tuple[Dim, ...] | None:
    """The dimensions as numbers and names, None where one is unknown; None without a shape."""
    return None if shape is None else tuple(d if isinstance(d, int) else d.value for d in shape)
