"""How far a quantized model may be from its float model: element by element, from the quantization steps.

The bound is computed from the float model alone, by running its operators on magnitudes and errors:

    y = op(x, w):   |error| <= op(|x|, e_w) + op(e_x, |w|) + op(e_x, e_w) + e_bias,   e = half a step where it is quantized

Steps come from the ranges and weights of the float model, never from the scales that a pass wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pass_kit

from irc.ir import snapshot

Array = pass_kit.Array
QUANTIZED = ("Conv", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu")
"""Operators whose result is quantized, behind Relu or Clip if that is all that reads it."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
NOT_EXPANDING = ("Relu", "Clip", "LeakyRelu", "Tanh")
"""Elementwise operators whose slope is 1 at most."""
ROUNDING = 2e-6
"""Of float sums, relative to the largest magnitude."""


class Bound:
    """Largest possible errors of the values of a float model whose operators are quantized.

    Args:
        model: The float model.
        feeds: What it was calibrated with; errors are for the first.
        limit: Largest absolute int8 weight.
        steps: What a quantized result may be off: half a step, and more where integer kernels round on their own.
        weights_only: Whether activations stay float.
    """

    def __init__(
        self, model: ir.Model, feeds: list[pass_kit.Feed], *, limit: int, steps: float = 0.5, weights_only: bool = False
    ) -> None:
        self._limit, self._steps, self._weights_only = limit, steps, weights_only
        every = snapshot(model)
        values = [v for node in every.graph for v in node.outputs]
        every.graph.outputs[:] = values
        runs = [dict(zip([v.name for v in values], pass_kit.run(every, feed), strict=True)) | feed for feed in feeds]
        constants = {
            name: np.asarray(v.const_value.numpy()) for name, v in model.graph.initializers.items() if v.const_value
        }
        self._numbers: dict[Any, Array] = constants | runs[0]
        self._ranges = {
            name: [min(0.0, *(float(r[name].min()) for r in runs)), max(0.0, *(float(r[name].max()) for r in runs))]
            for name in runs[0]
        }
        self._quantized: set[Any] = set()
        self.errors: dict[Any, Array] = {
            name: np.zeros_like(array) for name, array in self._numbers.items() if array.dtype == np.float32
        }
        for node in model.graph:
            self.errors |= {v.name: e for v, e in zip(node.outputs, self._errors(node), strict=True)}

    def _step(self, name: Any) -> float:
        low, high = self._ranges[name]
        return (high - low) / 255

    def _read(self, name: Any) -> Array:
        """The error of a value as an operator reads it."""
        if name in self._quantized or self._weights_only:
            return self.errors[name]
        return np.asarray(self.errors[name] + np.float32(self._step(name) / 2))

    def _errors(self, node: ir.Node) -> list[Array]:
        names = [value.name for value in node.inputs if value is not None]
        if node.op_type in WEIGHTED:
            return [self._behind(node, self._weighted(node, names))]
        if node.op_type == "Mul":
            a, b = (np.abs(self._numbers[name]) for name in names)
            ea, eb = (self._read(name) for name in names)
            return [self._behind(node, a * eb + ea * b + ea * eb)]
        if node.op_type in NOT_EXPANDING:
            read = self._read if node.op_type in QUANTIZED else self.errors.__getitem__
            return [self._behind(node, read(names[0]))]
        if node.op_type in QUANTIZED:
            return [self._behind(node, evaluated(node, [self._read(name) for name in names])[0])]
        if names[0] in self._quantized and node.op_type != "Pad":
            self._quantized |= {value.name for value in node.outputs}
        # A constant without an error of its own is an index or a size.
        return evaluated(node, [self.errors.get(name, self._numbers[name]) for name in names])

    def _behind(self, node: ir.Node, error: Array) -> Array:
        """The error of a result, quantized behind its operator or behind the activation that fuses with it."""
        output, source = node.outputs[0], node.inputs[0]
        fused = [use.node.op_type for use in output.uses()] in (["Relu"], ["Clip"])
        producer = source.producer() if source is not None else None
        activation = node.op_type in ("Relu", "Clip") and producer is not None and producer.op_type in QUANTIZED
        if not (activation or (node.op_type in QUANTIZED and not fused)) or self._weights_only:
            return error
        self._quantized.add(output.name)
        return np.asarray(error + np.float32(self._step(output.name) * self._steps))

    def _weighted(self, node: ir.Node, names: list[Any]) -> Array:
        x, w = np.abs(self._numbers[names[0]]), np.abs(self._numbers[names[1]])
        axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": w.ndim - 1}.get(
            node.op_type, 0 if node.attributes.get_int("transB", 0) else 1
        )
        largest = w.max(axis=tuple(i for i in range(w.ndim) if i != axis), keepdims=True)
        ew = np.broadcast_to(largest / (2 * self._limit), w.shape).astype(np.float32)
        ex = self._read(names[0])
        error = sum(evaluated(node, pair)[0] for pair in ([x, ew], [ex, w], [ex, ew]))
        if len(names) > 2 and not self._weights_only:
            bias = np.float32(self._step(names[0]) / 2) * largest.reshape(-1) / self._limit
            error = error + (bias.reshape(-1, *[1] * (error.ndim - 2)) if node.op_type == "Conv" else bias)
        return np.asarray(error)

    def broken_by(self, model: ir.Model, found: Sequence[Array]) -> float:
        """The largest error relative to its bound, over all outputs: above 1, the bound is broken."""
        worst = 0.0
        for output, array in zip(model.graph.outputs, found, strict=True):
            exact = self._numbers[output.name]
            allowed = self.errors[output.name] + ROUNDING * np.abs(exact).max()
            worst = max(worst, float((np.abs(array - exact) / allowed).max()))
        return worst


def evaluated(node: ir.Node, arrays: Sequence[Array]) -> list[Array]:
    """An operator on other arrays, its factors taken positive and its bias left out."""
    proto = ir.to_proto(node)
    proto.input[:] = [f"i{index}" for index in range(len(arrays))]
    for attribute in proto.attribute:
        if attribute.name == "alpha":
            attribute.f = abs(attribute.f)
    types = [onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for array in arrays]
    graph = onnx.helper.make_graph(
        [proto],
        "g",
        [onnx.helper.make_tensor_value_info(n, t, a.shape) for n, t, a in zip(proto.input, types, arrays, strict=True)],
        [onnx.helper.make_tensor_value_info(name, types[0], None) for name in proto.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(zip(proto.input, arrays, strict=True))))
