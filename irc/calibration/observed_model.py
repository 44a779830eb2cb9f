"""A copy of a model that computes statistics of its values beside them, inside the runtime.

    codes   = Cast<float16>(Flatten(value) * 2^exponent)     [1, n], or [C, n / C] with channels
    extremes, sums: Reduce over everything but the channels  [C]
    gram    = Gemm(X, X, transA=1), X being positions by channels  [C, C]

Codes and grams stay in the runtime process (`kept`); numbers and vectors are read after every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.calibration.nan_origins import needing_a_check
from irc.calibration.reductions import ReducedModel, Reduction
from irc.calibration.statistics import Observable
from irc.ir import add_initializer, unique_name

Array = np.ndarray[Any, Any]


class ObservedModel(ReducedModel):
    """Adds observables one by one; `finish`, run, `read` and `vector` then give their numbers.

    Args:
        model: Copied; weights are shared.
        observables: What will be observed.
        exponents: Scales of codes by value name; 0 where not given.

    Attributes:
        kept: Outputs that stay in the runtime process, by observable.
        exponents: Scales of the kept outputs that are codes, by output.
    """

    def __init__(self, model: ir.Model, observables: Sequence[Observable], exponents: Mapping[str, int]) -> None:
        super().__init__(model, list(dict.fromkeys(o.value_name for o in observables)))
        self._scales = exponents
        self._vectors: dict[tuple[Observable, str], str] = {}
        self._extra: list[ir.Value] = []
        self.kept: dict[Observable, str] = {}
        self.exponents: dict[str, int] = {}
        self.observables: list[Observable] = []
        self._slot: dict[tuple[Observable, str], int] = {}
        values = {o: self.value(o.value_name) for o in observables if o.kind == "min-max"}
        self._checked = needing_a_check(
            sorted({v for v in values.values() if v is not None}, key=lambda v: self.order.get(v.name or "", -1))
        )
        for observable in sorted(observables, key=lambda o: self.order.get(o.value_name, -1)):
            value = self.value(observable.value_name)
            if value is not None and self._fits(observable, value):
                self.observables.append(observable)
                self._add(observable, value)

    def number(self, observable: Observable, what: str, numbers: Array, outputs: Mapping[str, Array]) -> Array:
        """What a run gave for an observable: a number, or a vector by channel.

        Args:
            observable: The observable.
            what: "ReduceMin", "ReduceMax", "ReduceSum", "ReduceSumSquare" or "Size".
            numbers: What `read` returned.
            outputs: All outputs of the run.
        """
        if (observable, what) in self._vectors:
            return outputs[self._vectors[observable, what]].astype(np.float64).reshape(-1)
        return np.asarray(numbers[self._slot[observable, what]])

    def is_summed(self, observable: Observable) -> bool:
        """Whether a NaN in the value shows in its "ReduceSum"; other values are finite if what is summed is."""
        return (observable, "ReduceSum") in self._slot

    def finish(self) -> ir.Model:
        """Makes everything that was added the outputs, and returns the model."""
        self.model.graph.outputs.extend(self._extra)
        return super().finish()

    def _fits(self, observable: Observable, value: ir.Value) -> bool:
        if observable.axis is None and observable.kind == "min-max":
            return True
        if value.graph is not self.model.graph:
            self.missing[observable.value_name] = "it is inside the body of an If, Loop or Scan"
        elif observable.axis is not None and value.shape is None:
            self.missing[observable.value_name] = "its rank is not known"
        elif observable.axis is not None and not -len(value.shape or ()) <= observable.axis < len(value.shape or ()):
            self.missing[observable.value_name] = f"it has no axis {observable.axis}"
        else:
            return True
        return False

    def _add(self, observable: Observable, value: ir.Value) -> None:
        kind, axis = observable.kind, observable.axis
        if kind == "min-max":
            self._reduced(observable, value, ("ReduceMin", "ReduceMax"), axis)
            if value in self._checked:
                self._reduced(observable, value, ("ReduceSum",), None)
        if kind == "moments":
            self._reduced(observable, value, ("ReduceSum", "ReduceSumSquare"), axis)
        if kind in ("moments", "gram"):
            self._count(observable, value)
        if kind == "distribution":
            exponent = self._scales.get(observable.value_name, 0)
            name = self._keep(observable, self._codes(value, axis, exponent), ir.DataType.FLOAT16)
            self.exponents[name] = exponent
        elif kind == "gram":
            self._keep(observable, self._gram(value, axis), _wide(value))

    def _reduced(
        self, observable: Observable, value: ir.Value, reductions: Sequence[Reduction], axis: int | None
    ) -> None:
        for op_type in reductions:
            if axis is None:
                self._slot[observable, op_type] = len(self._slots)
                self.reduce(op_type, value)
                continue
            flat = self._append("Flatten", [self._first(self.widened(value), value, axis)], axis=1)
            inputs, attributes = self._axes(op_type)
            found = self._append(op_type, [flat, *inputs], **attributes)
            found.type = ir.TensorType(_wide(value))
            self._vectors[observable, op_type] = found.name or ""
            self._extra.append(found)

    def _axes(self, op_type: str) -> tuple[list[ir.Value], dict[str, Any]]:
        """Axis 1 as the opset has it: an input from opset 13 (sums) or 18 (the others) on, an attribute before."""
        since = 13 if op_type == "ReduceSum" else 18
        if self.model.graph.opset_imports[""] >= since:
            return [add_initializer(self.model.graph, "irc.axes", np.array([1], np.int64))], {"keepdims": 0}
        return [], {"axes": [1], "keepdims": 0}

    def _count(self, observable: Observable, value: ir.Value) -> None:
        """The number of elements; of positions, for a gram."""
        size = self._append("Size", [self.widened(value)])
        number = self._append("Cast", [size], to=ir.DataType.DOUBLE.value)
        number.dtype = ir.DataType.DOUBLE
        self._slot[observable, "Size"] = len(self._slots)
        self.reduce("ReduceSum", number)

    def _codes(self, value: ir.Value, axis: int | None, exponent: int) -> ir.Value:
        wide = value if value.dtype == ir.DataType.FLOAT16 and not exponent else self.widened(value)
        if axis is None:
            rows = self._append("Flatten", [wide], axis=0)
        else:
            rows = self._append("Flatten", [self._first(wide, value, axis)], axis=1)
        if exponent:
            dtype = np.float64 if value.dtype == ir.DataType.DOUBLE else np.float32
            factor = add_initializer(self.model.graph, "irc.scale", np.asarray(2.0**exponent, dtype))
            rows = self._append("Mul", [rows, factor])
        elif value.dtype == ir.DataType.FLOAT16:
            return rows
        return self._append("Cast", [rows], to=ir.DataType.FLOAT16.value)

    def _gram(self, value: ir.Value, axis: int | None) -> ir.Value:
        assert axis is not None and value.shape is not None
        source, last = self.widened(value), len(value.shape) - 1
        if axis % (last + 1) == last:
            rows = self._append("Flatten", [source], axis=last)
            return self._append("Gemm", [rows, rows], transA=1)
        rows = self._append("Flatten", [self._first(source, value, axis)], axis=1)
        return self._append("Gemm", [rows, rows], transB=1)

    def _first(self, source: ir.Value, value: ir.Value, axis: int) -> ir.Value:
        """A value with its channels as the first axis."""
        assert value.shape is not None
        rank = len(value.shape)
        axis %= rank
        if axis == 0:
            return source
        return self._append("Transpose", [source], perm=[axis, *(i for i in range(rank) if i != axis)])

    def _keep(self, observable: Observable, value: ir.Value, dtype: ir.DataType) -> str:
        # The same name at every scale, since the process goes on counting under it.
        value.name = unique_name(self.model, f"irc.kept.{len(self.kept)}")
        value.type = ir.TensorType(dtype)
        self._extra.append(value)
        self.kept[observable] = value.name
        return value.name


def _wide(value: ir.Value) -> ir.DataType:
    """The type of numbers reduced from a value."""
    return ir.DataType.DOUBLE if value.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
