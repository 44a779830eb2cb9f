"""Reduce activations to single numbers inside the runtime, so that no activation ever leaves it.

Reductions are appended to a copy of the model and become its only outputs, joined into one tensor per type:

    r_i = Reduce_i(Flatten(value_i))    [1, 1]
    output = Concat(r_0, r_1, ...)      [number of reductions, 1]

Flatten to [1, n] moves no data and works for every rank, and a full reduction is what the runtime's CPU kernels do
fastest. A value in the body of an If, Loop or Scan is reduced in the body, each time it runs; see `outlets`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from irc.calibration.outlets import Combination, Outlets
from irc.errors import ModelError
from irc.ir import bodies, refresh_shapes, remove_dead, snapshot, unique_name

Reduction = Literal["ReduceMin", "ReduceMax", "ReduceSum", "ReduceSumSquare"]

_WIDE = {ir.DataType.FLOAT: ir.DataType.FLOAT, ir.DataType.DOUBLE: ir.DataType.DOUBLE}
_NARROW = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


class ReducedModel:
    """A copy of a model whose outputs are reductions of its values.

    Add reductions, then `finish`, run the model, and `read` the numbers in the order they were added.

    Args:
        model: Copied; weights are shared.
        values: Names of values that will be reduced.

    Attributes:
        missing: Values that cannot be reduced, with the reason.
        order: Position of every value in the order of execution.
    """

    def __init__(self, model: ir.Model, values: list[str]) -> None:
        self.model = snapshot(model)
        graph = self.model.graph
        graph.opset_imports.setdefault("", 18)
        self._values = _values(graph)
        if any(name in self._values and self._values[name].dtype is None for name in values):
            with contextlib.suppress(ModelError):
                refresh_shapes(self.model)
            self._values = _values(graph)
        self.order = {name: position for position, name in enumerate(self._values)}
        self._outlets = Outlets(self.model)
        self._flat: dict[str, ir.Value] = {}
        self._columns: dict[ir.DataType, list[ir.Value]] = {ir.DataType.FLOAT: [], ir.DataType.DOUBLE: []}
        self._slots: list[tuple[ir.DataType, int]] = []
        self._outputs: dict[ir.DataType, str] = {}
        self.missing: dict[str, str] = {}
        graph.outputs.clear()

    def value(self, name: str) -> ir.Value | None:
        """The floating-point value called `name`; None, with the reason in `missing`, if it cannot be observed."""
        value = self._values.get(name)
        if value is None:
            self.missing[name] = "the model has no such value"
        elif value.type is not None and not isinstance(value.type, ir.TensorType):
            self.missing[name] = "it is not a tensor"
        elif value.dtype is not None and value.dtype not in {ir.DataType.UNDEFINED, *_WIDE, *_NARROW}:
            self.missing[name] = f"it is {value.dtype.name.lower()}, not floating point"
        else:
            return value
        return None

    def reduce(self, op_type: Reduction, value: ir.Value) -> None:
        """Reduces a value to one number, in double precision if the value is double, else in single precision."""
        flat = self._flat.get(value.name or "")
        if flat is None:
            flat = self._flat[value.name or ""] = self._append("Flatten", [self.widened(value)], axis=0)
        dtype = _WIDE.get(value.dtype or ir.DataType.FLOAT, ir.DataType.FLOAT)
        column = self._columns[dtype]
        self._slots.append((dtype, len(column)))
        number = self._append(op_type, [flat], keepdims=1)
        number.type, number.shape = ir.TensorType(dtype), ir.Shape([1, 1])
        how: Combination = "ReduceSum" if op_type == "ReduceSumSquare" else op_type
        column.append(self._outlets.lead_out(number, how, self._again))

    def _again(self, numbers: ir.Value, how: Combination) -> ir.Value:
        return self._append(how, [self._append("Flatten", [numbers], axis=0)], keepdims=1)

    def count_nan(self, value: ir.Value) -> None:
        """Counts the elements of a value that are NaN."""
        flags = self._append("IsNaN", [self.widened(value)])
        numbers = self._append("Cast", [flags], to=ir.DataType.FLOAT.value)
        numbers.dtype = ir.DataType.FLOAT
        self.reduce("ReduceSum", numbers)

    def widened(self, value: ir.Value, to: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        """The value in a type whose reductions the CPU has: float and double as they are, others as float."""
        if value.dtype in _WIDE and (to == ir.DataType.FLOAT or value.dtype == to):
            return value
        return self._append("Cast", [value], to=to.value)

    def difference(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """The difference `a - b`, in double precision if one of them is."""
        double = ir.DataType.DOUBLE in (a.dtype, b.dtype)
        dtype = ir.DataType.DOUBLE if double else ir.DataType.FLOAT
        found = self._append("Sub", [self.widened(a, dtype), self.widened(b, dtype)])
        found.dtype = dtype
        return found

    def finish(self) -> ir.Model:
        """Makes the reductions the outputs, drops what only the old outputs needed and returns the model."""
        for dtype, column in self._columns.items():
            if column:
                output = self._append("Concat", column, axis=0)
                output.type, output.shape = ir.TensorType(dtype), ir.Shape([len(column), 1])
                self.model.graph.outputs.append(output)
                self._outputs[dtype] = output.name or ""
        remove_dead(self.model)
        return self.model

    def read(self, outputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The reduced numbers, in the order they were added, from the outputs of one run."""
        columns = {dtype: outputs[name].astype(np.float64).reshape(-1) for dtype, name in self._outputs.items()}
        return np.array([columns[dtype][position] for dtype, position in self._slots], np.float64)

    def _append(self, op_type: str, inputs: list[ir.Value], **attributes: int | list[int]) -> ir.Value:
        name = unique_name(self.model, f"irc.{op_type}")
        given = [ir.AttrInt64s(k, v) if isinstance(v, list) else ir.AttrInt64(k, v) for k, v in attributes.items()]
        node = ir.Node("", op_type, inputs, given, num_outputs=1, name=name)
        node.outputs[0].name = name
        self._outlets.innermost(inputs).append(node)
        return node.outputs[0]


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Values by name, in the order of execution; those of a body stand before what its node gives."""
    found = {value.name: value for value in (*graph.inputs, *graph.initializers.values()) if value.name}
    for node in graph:
        for body in bodies(node):
            found |= _values(body)
        found |= {value.name: value for value in node.outputs if value.name}
    return found
