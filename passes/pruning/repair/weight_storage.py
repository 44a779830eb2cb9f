"""Weights and biases as numbers, however they are stored: float constants, or integers behind DequantizeLinear.

A quantized weight is stored again with scales of its own, the largest magnitude of a channel (or of the tensor, where it had one scale)
on the largest integer it used before; its bias follows, whose scale is that of input times weight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import add_initializer, constant, constant_tensor, unique_name
from irc.passes.pruning.weight_roles import dequantized
from irc.passes.quantization import placement
from irc.passes.quantization.layer_geometry import geometry_of
from irc.passes.quantization.layer_sample import Layer
from irc.target import is_dequantized, stored_weight

Array = np.ndarray[Any, Any]
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
_NARROW = 64
"""Largest magnitude of weights that leave a bit to accumulation."""


@dataclasses.dataclass(frozen=True, eq=False)
class StoredWeight:
    """The weight of a Conv, Gemm or MatMul.

    Attributes:
        origin: Its initializer.
        transposed: Whether a Transpose stands between it and the operator.
        dequantize: The DequantizeLinear that reads it; None where it is float.
    """

    origin: ir.Value
    transposed: bool
    dequantize: ir.Node | None

    @classmethod
    def of(cls, node: ir.Node) -> StoredWeight | None:
        """The weight of an operator; None if it is not constant, or stored in a way that cannot be written again."""
        if node.domain != "" or node.op_type not in placement.WEIGHTED:
            return None
        plain = placement.weight_of(node)
        if plain is not None:
            return cls(plain.origin, plain.transposed, None) if _is_own(plain.origin, FLOATS) else None
        reader = stored_weight(node)
        origin = reader.inputs[0] if reader is not None else None
        if reader is None or origin is None or not _is_own(origin, (ir.DataType.INT8,)):
            return None
        scale = constant(reader.inputs[1])
        zero = constant(reader.inputs[2]) if len(reader.inputs) > 2 else None
        if scale is None or scale.ndim > 1 or (zero is not None and np.any(zero)):
            return None
        value = node.inputs[1]
        transposed = value is not None and value.producer() is not reader
        return cls(origin, transposed, reader)

    @property
    def values(self) -> Array:
        """The numbers, in the layout of the initializer."""
        array = constant(self.origin)
        assert array is not None
        return array if self.dequantize is None else dequantized(self.dequantize, array.astype(np.float32))

    @property
    def dtype(self) -> Any:
        """What activations are computed in."""
        array = constant(self.origin if self.dequantize is None else self.dequantize.inputs[1])
        assert array is not None
        return array.dtype

    def store(self, model: ir.Model, values: Array) -> None:
        """Writes other numbers for all that reads them; integers get a scale of their own."""
        if self.dequantize is None:
            self.origin.const_value = ir.tensor(np.ascontiguousarray(values, self.dtype), name=self.origin.name)
            return
        integers, scale = constant(self.origin), constant(self.dequantize.inputs[1])
        assert integers is not None and scale is not None
        limit = _NARROW if np.abs(integers.astype(np.int16)).max(initial=0) <= _NARROW else 127
        axis = self.dequantize.attributes.get_int("axis", 1) % max(values.ndim, 1)
        others = tuple(i for i in range(values.ndim) if i != axis) if scale.size > 1 else None
        largest = np.abs(values).max(axis=others, initial=0.0)
        steps = np.where(largest > 0, largest / limit, scale).astype(scale.dtype).reshape(scale.shape)
        spread = steps.reshape([-1 if i == axis else 1 for i in range(values.ndim)]) if steps.size > 1 else steps
        rounded = np.clip(np.rint(values / spread), -limit, limit).astype(np.int8)
        self.origin.const_value = ir.tensor(np.ascontiguousarray(rounded), name=self.origin.name)
        readers = [use.node for use in self.origin.uses() if use.node.op_type == "DequantizeLinear" and use.idx == 0]
        made = add_initializer(model.graph, f"{self.origin.name}_scale", steps)
        for reader in readers:
            _give(model, reader, 1, made)


def layer_of(node: ir.Node) -> Layer | None:
    """The layer that an operator is, its weight float or stored as integers; None if it is none."""
    weight = StoredWeight.of(node)
    source = node.inputs[0] if node.inputs else None
    if weight is None or source is None or not source.name:
        return None
    tensor = constant_tensor(weight.origin)
    assert tensor is not None
    if len(tensor.shape) < 2:
        return None  # a product with a vector has no axis of channels in its result
    geometry = geometry_of(node, tuple(tensor.shape.numpy()), transposed=weight.transposed)
    if geometry is None:
        return None
    factor = node.attributes.get_float("alpha", 1.0) if node.op_type == "Gemm" else 1.0
    return Layer(str(node.outputs[0].name), source.name, geometry, factor, node)


def bias_of(holder: ir.Node, index: int) -> Array | None:
    """The bias among an operator's inputs, as numbers; None without, or if it is not constant."""
    value = holder.inputs[index] if len(holder.inputs) > index else None
    if value is None:
        return None
    reader = value.producer()
    if reader is not None and is_dequantized(value):
        integers = constant(reader.inputs[0])
        return None if integers is None else dequantized(reader, integers.astype(np.float64))
    return constant(value)


def set_bias(model: ir.Model, holder: ir.Node, index: int, bias: Array, *, hint: str, dtype: Any) -> None:
    """Gives an operator another bias: equal biases of several layers may be one constant, so that it always is a new one.

    An integer bias stays one, with the scale of the operator's input times that of its weight.
    """
    while len(holder.inputs) <= index:
        holder.resize_inputs(index + 1)
    old = holder.inputs[index]
    reader = old.producer() if old is not None and is_dequantized(old) else None
    if reader is None:
        _replace(model, holder, index, np.ascontiguousarray(bias, dtype), hint=f"{hint}_bias")
        return
    source, weight = holder.inputs[0], stored_weight(holder)
    read = source.producer() if source is not None and is_dequantized(source) else None
    scales = [constant(node.inputs[1]) for node in (read, weight) if node is not None]
    if len(scales) < 2 or any(scale is None for scale in scales):
        _replace(model, holder, index, np.ascontiguousarray(bias, dtype), hint=f"{hint}_bias")
        return
    step = np.broadcast_to(np.asarray(scales[0]) * np.asarray(scales[1]), bias.shape).astype(np.float32)
    limit = np.iinfo(np.int32).max
    integers = np.clip(np.rint(bias / step.astype(np.float64)), -limit, limit).astype(np.int32)
    made = ir.node(
        "DequantizeLinear",
        [
            add_initializer(model.graph, f"{hint}_bias_quantized", integers),
            add_initializer(model.graph, f"{hint}_bias_scale", np.ascontiguousarray(step)),
        ],
        {"axis": 0},
        name="",
    )
    made.outputs[0].name = unique_name(model.graph, f"{hint}_bias")
    model.graph.insert_before(holder, made)
    holder.replace_input_with(index, made.outputs[0])
    if not reader.outputs[0].uses() and reader.graph is model.graph:
        constants = list(reader.inputs)
        model.graph.remove(reader, safe=True)
        for value in constants:
            _forget(model, value)


def set_common_bias(
    model: ir.Model, holders: Sequence[tuple[ir.Node, int]], bias: Array, *, hint: str, dtype: Any
) -> None:
    """Gives operators that had one bias another one together; see `set_bias`.

    Integers are a constant for each, since their scales may differ.
    """
    (first, place), *others = holders
    set_bias(model, first, place, bias, hint=hint, dtype=dtype)
    for holder, index in others:
        old, made = holder.inputs[index] if len(holder.inputs) > index else None, first.inputs[place]
        if made is None or not made.is_initializer() or (old is not None and is_dequantized(old)):
            set_bias(model, holder, index, bias, hint=str(holder.outputs[0].name), dtype=dtype)
            continue
        if old is None:
            holder.resize_inputs(index + 1)
        _give(model, holder, index, made)


def _replace(model: ir.Model, node: ir.Node, index: int, array: Array, *, hint: str) -> None:
    _give(model, node, index, add_initializer(model.graph, hint, array))


def _give(model: ir.Model, node: ir.Node, index: int, value: ir.Value) -> None:
    old = node.inputs[index]
    node.replace_input_with(index, value)
    _forget(model, old)


def _forget(model: ir.Model, value: ir.Value | None) -> None:
    if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
        return
    if value.name is not None and value.name in model.graph.initializers:
        del model.graph.initializers[value.name]


def _is_own(value: ir.Value, types: tuple[ir.DataType, ...]) -> bool:
    """Whether a constant is an initializer of a type, which nobody outside may set or read."""
    tensor = constant_tensor(value)
    return (
        tensor is not None
        and tensor.dtype in types
        and value.is_initializer()
        and not value.is_graph_output()
        and not value.is_graph_input()
    )
