"""Every shape of a model as numbers, for assumed sizes of its dynamic dimensions.

One walk in graph order, node by node: onnx infers a node's outputs from the shapes of its inputs and the values of
those that are known, and the integer arithmetic on shapes (`Shape`, `Gather`, `Concat`, `Range`, ...) is carried out,
so that what follows a computed Reshape or Expand is known as well. Where onnx cannot tell, what the exporter wrote
counts. Bodies of If, Loop and Scan are walked with the shapes they capture.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from irc.analysis.assumed_sizes import Sizes
from irc.analysis.runtime_shapes import STANDARD_TWINS, further_dims, runtime_dims, runtime_dtype
from irc.analysis.uninferred_shapes import uninferred_dims
from irc.ir import constant

Dims = tuple[int | None, ...]
KNOWN_ELEMENTS = 4096
"""Values up to this many elements are computed, larger ones are only shaped."""
_RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "Dropout",
}


class ConcreteShapes:
    """The shapes of all values of a model for given sizes.

    Args:
        model: Unchanged.
        sizes: Sizes of its dynamic dimensions.

    Attributes:
        model: The model.
        sizes: The sizes.
    """

    def __init__(self, model: ir.Model, sizes: Sizes) -> None:
        self.model, self.sizes = model, sizes  # values are known by identity, so the model must live
        self._opsets = dict(model.graph.opset_imports)
        self._opset_ids = [onnx.helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        self._ir_version = max(model.ir_version or 0, 4)
        self._dims: dict[int, Dims | None] = {}
        self._types: dict[int, ir.DataType | None] = {}
        self._data: dict[int, np.ndarray[Any, Any]] = {}
        self._trips: dict[int, int] = {}
        for value in model.graph.inputs:
            self._dims[id(value)] = sizes.dims(value)
        self._walk(model.graph)

    def dims(self, value: ir.Value | None) -> Dims | None:
        """The shape of a value, None inside for unknown sizes; None for an unknown rank or an omitted input."""
        if value is None:
            return None
        if id(value) not in self._dims:
            self._dims[id(value)] = self._declared(value)
        return self._dims[id(value)]

    def static(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The shape of a value if all of it is known."""
        dims = self.dims(value)
        return None if dims is None or None in dims else tuple(d for d in dims if d is not None)

    def elements(self, value: ir.Value | None) -> int | None:
        """The number of elements of a value, or None if it is unknown."""
        shape = self.static(value)
        return None if shape is None else math.prod(shape)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The element type of a value, inferred where the model does not say it."""
        return value.dtype if value.dtype is not None else self._types.get(id(value))

    def known(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """The elements of a small value that do not depend on the inputs' elements."""
        if value is None:
            return None
        if id(value) in self._data:
            return self._data[id(value)]
        if value.const_value is not None and value.const_value.size <= KNOWN_ELEMENTS:
            found = constant(value)
            if found is not None and found.dtype.kind in "iubf":
                # A view would keep a data file mapped, and a mapped file cannot be written anew.
                self._data[id(value)] = found = np.array(found)
                return found
        return None

    def trips(self, node: ir.Node) -> int | None:
        """How often the body of a Loop or Scan runs, or None if that depends on data."""
        return self._trips.get(id(node))

    # -- the walk -----------------------------------------------------------------------------------------------------

    def _walk(self, graph: ir.Graph) -> None:
        for node in graph:
            if node.domain not in ("", "ai.onnx"):
                self._foreign(node)
                continue
            bodies = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
            if bodies:
                self._control_flow(node, bodies)
            elif not self._compute(node):
                self._infer(node)

    def _declared(self, value: ir.Value) -> Dims | None:
        if value.const_value is not None:
            return tuple(int(d) for d in value.const_value.shape)  # type: ignore[arg-type]
        return self.sizes.dims(value)

    def _settle(self, value: ir.Value, dims: Dims | None, dtype: ir.DataType | None = None) -> None:
        """Records an inferred shape, completed by what the exporter wrote."""
        declared = self._declared(value)
        if dims is None or (declared is not None and len(declared) != len(dims)):
            dims = declared if dims is None else dims
        elif declared is not None:
            dims = tuple(d if d is not None else e for d, e in zip(dims, declared, strict=True))
        self._dims[id(value)] = dims
        self._types[id(value)] = dtype

    def _compute(self, node: ir.Node) -> bool:
        """Carries out a node on known small values; False if it cannot be."""
        if len(node.outputs) != 1 or node.op_type in _RANDOM:
            return False
        output = node.outputs[0]
        if node.op_type in ("Shape", "Size"):
            shape = self.static(node.inputs[0])
            if shape is None:
                return False
            start = node.attributes.get_int("start", 0)
            end = node.attributes.get_int("end", len(shape))
            result = np.array(shape[start:end] if node.op_type == "Shape" else math.prod(shape), np.int64)
        else:
            operands = {v.name or "": self.known(v) for v in node.inputs if v is not None}
            if not operands or any(data is None for data in operands.values()):
                return False
            if not self._small(node):
                return False
            try:
                proto = ir.serde.serialize_node(node)
                evaluator = ReferenceEvaluator(
                    proto, opsets={d: v for d, v in self._opsets.items() if d in ("", "ai.onnx")}
                )
                with np.errstate(all="ignore"):  # logarithms of 0 are what a model may ask for
                    result = np.asarray(next(iter(evaluator.run(None, operands))))
            except Exception:  # whatever the reference cannot do is inferred instead
                return False
        if result.dtype.kind not in "iubf" or result.size > KNOWN_ELEMENTS:
            return False
        self._data[id(output)] = result
        self._settle(output, result.shape, ir.DataType.from_numpy(result.dtype))
        return True

    def _small(self, node: ir.Node) -> bool:
        """Whether the result of a node with small known inputs is small too."""
        if node.op_type not in (
            "ConstantOfShape",
            "Expand",
            "Tile",
            "Range",
            "Resize",
            "Pad",
            "OneHot",
            "MatMul",
            "Gather",
        ):
            return True
        self._infer(node)
        elements = self.elements(node.outputs[0])
        return elements is not None and elements <= KNOWN_ELEMENTS

    def _foreign(self, node: ir.Node) -> None:
        """A node of another domain: ONNX Runtime's operators that are understood, the exporter's word for the rest."""
        data = 2 if node.op_type == "QLinearConcat" else 0
        first = node.inputs[data] if len(node.inputs) > data else None
        dtype = self.dtype(first) if first is not None else None
        for index, value in enumerate(node.outputs):
            dims = None
            if node.domain == "com.microsoft":
                inputs = [self.dims(v) for v in node.inputs]
                dims = further_dims(node, inputs, index) if index else runtime_dims(node, inputs)
            self._settle(value, dims, runtime_dtype(node, dtype) if dims is not None else None)
        if node.domain == "com.microsoft" and node.op_type in STANDARD_TWINS:
            self._infer(node, as_operator=STANDARD_TWINS[node.op_type])

    def _infer(self, node: ir.Node, *, as_operator: str = "") -> None:
        try:
            schema = onnx.defs.get_schema(as_operator or node.op_type, self._opsets.get("", 1), "")
            types, data = self._operands(node)
            proto = ir.serde.serialize_node(node)
            if as_operator:
                _standardize(proto, schema)
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, proto, types, data, opset_imports=self._opset_ids, ir_version=self._ir_version
            )
        except Exception:  # no schema, an unknown input, or a contradiction: the exporter's word remains
            inferred = {}
        inputs = [self.dims(v) for v in node.inputs]
        for index, value in enumerate(node.outputs):
            found = inferred.get(value.name or "")
            dims = uninferred_dims(node, index, inputs)
            if found is None or not found.HasField("tensor_type"):
                self._settle(value, dims)
                continue
            tensor = found.tensor_type
            if tensor.HasField("shape"):
                dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
            self._settle(value, dims, ir.DataType(tensor.elem_type) if tensor.elem_type else None)

    def _operands(self, node: ir.Node) -> tuple[dict[str, onnx.TypeProto], dict[str, onnx.TensorProto]]:
        types, data = {}, {}
        for value in node.inputs:
            if value is None or not value.name:
                continue
            dtype = self.dtype(value)
            if dtype is None and value.const_value is not None:
                dtype = value.const_value.dtype
            if isinstance(value.type, ir.SequenceType | ir.OptionalType):
                types[value.name] = ir.serde.serialize_type(value.type)
            elif dtype is not None:
                dims = self.dims(value)
                types[value.name] = onnx.helper.make_tensor_type_proto(int(dtype), dims)
            known = self.known(value)
            if known is not None:
                data[value.name] = onnx.numpy_helper.from_array(known)
        return types, data

    # -- control flow -------------------------------------------------------------------------------------------------

    def _control_flow(self, node: ir.Node, bodies: list[ir.Graph]) -> None:
        if node.op_type == "Loop":
            self._enter_loop(node, bodies[0])
        elif node.op_type == "Scan" and self._opsets.get("", 0) >= 9:
            self._enter_scan(node, bodies[0])
        for body in bodies:
            self._walk(body)
        if node.op_type == "If":
            for i, output in enumerate(node.outputs):
                found = {self.dims(body.outputs[i]) for body in bodies}
                self._settle(output, found.pop() if len(found) == 1 else None, self.dtype(bodies[0].outputs[i]))
        elif node.op_type == "Loop" or (node.op_type == "Scan" and self._opsets.get("", 0) >= 9):
            self._leave(node, bodies[0])
        else:
            for output in node.outputs:
                self._settle(output, None)

    def _enter_loop(self, node: ir.Node, body: ir.Graph) -> None:
        """Loop(M, cond, carried...) with body(iteration, cond, carried...)."""
        count = self.known(node.inputs[0])
        if count is not None:
            self._trips[id(node)] = int(count)
        for value in body.inputs[:2]:
            self._settle(value, ())
        for value, outer in zip(body.inputs[2:], node.inputs[2:], strict=False):
            self._settle(value, self.dims(outer), self.dtype(outer) if outer is not None else None)

    def _enter_scan(self, node: ir.Node, body: ir.Graph) -> None:
        """Scan(state..., scanned...) with body(state..., slices...)."""
        scanned = node.attributes.get_int("num_scan_inputs", 1)
        axes = node.attributes.get_ints("scan_input_axes", [0] * scanned)
        states = len(node.inputs) - scanned
        for i, (value, outer) in enumerate(zip(body.inputs, node.inputs, strict=False)):
            dims = self.dims(outer)
            if i >= states and dims:
                axis = axes[i - states] % len(dims)
                length = dims[axis]
                if length is not None:
                    self._trips[id(node)] = length
                dims = dims[:axis] + dims[axis + 1 :]
            self._settle(value, dims, self.dtype(outer) if outer is not None else None)

    def _leave(self, node: ir.Node, body: ir.Graph) -> None:
        results = body.outputs[1:] if node.op_type == "Loop" else body.outputs
        scanned = node.attributes.get_int("num_scan_inputs", 1)
        carried = len(node.inputs) - (2 if node.op_type == "Loop" else scanned)
        axes = node.attributes.get_ints("scan_output_axes", [0] * max(0, len(node.outputs) - carried))
        for i, (output, inner) in enumerate(zip(node.outputs, results, strict=False)):
            dims = self.dims(inner)
            if i >= carried and dims is not None:
                axis = axes[i - carried] % (len(dims) + 1)
                dims = (*dims[:axis], self.trips(node), *dims[axis:])
            self._settle(output, dims, self.dtype(inner))


def _standardize(proto: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    """Makes a node of a fused operator one of the standard operator it extends."""
    proto.op_type, proto.domain = schema.name, ""
    kept = [attribute for attribute in proto.attribute if attribute.name in schema.attributes]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    del proto.input[len(schema.inputs) :]
