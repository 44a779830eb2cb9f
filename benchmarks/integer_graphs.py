"""The float graph of a pattern, its int8 forms, and sessions of them, for `ort_integer_kernels.py`."""

from __future__ import annotations

import collections
import dataclasses
import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from integer_patterns import CONSTANTS, Array, Pattern


@dataclasses.dataclass(frozen=True)
class Signs:
    """How the integers are spelled.

    Attributes:
        activation: "uint8" or "int8".
        weight: Likewise.
        channels: Whether weights have a scale per channel.
        arm: Whether the runtime fuses int8 activations as it does on ARM64.
    """

    activation: str = "uint8"
    weight: str = "int8"
    channels: bool = True
    arm: bool = False

    @property
    def converted(self) -> bool:
        """Whether the runtime turns int8 into uint8, which it does between QuantizeLinear and DequantizeLinear only."""
        return self.activation == "int8" and not self.arm

    def __str__(self) -> str:
        return f"{self.activation}{' (ARM)' if self.arm else ''} x {self.weight} {'per channel' if self.channels else 'per tensor'}"


class Graphs:
    """The float graph of a pattern at one size and its int8 forms, all on the same numbers."""

    def __init__(self, pattern: Pattern, sizes: dict[str, int], signs: Signs) -> None:
        _, inputs, constants, body, self.behind = pattern
        self._signs = signs
        self._body = body.replace("group=C", f"group={sizes['C']}")
        self._rng = np.random.default_rng(0)
        self.feed: dict[str, Array] = {}
        for text in inputs.split():
            name, _, dims = text.partition(":")
            parts = dims.removeprefix("bool,").split(",")
            array = self._rng.standard_normal([eval(part, {}, sizes) for part in parts]).astype(np.float32)
            self.feed[name] = array > 0 if dims.startswith("bool") else array
        match = re.search(r"\b(y(?:, \w+)*) = ", body)
        assert match is not None
        self._ends = match[1].split(", ")
        self._floats, self._integers, self._before = dict(CONSTANTS), dict(CONSTANTS), ""
        biases = {}
        for text in constants.split():
            name, _, rest = text.partition(":")
            dims, _, kind = rest.partition("@")
            shape = [eval(part, {}, sizes) for part in dims.split(",")]
            array = (self._rng.standard_normal(shape) / max(1.0, np.prod(shape[1:])) ** 0.5).astype(np.float32)
            self._floats[name] = array
            if kind == "i32":
                biases[name] = array
            elif kind:
                self._weight(name, array, kind)
            else:
                self._integers[name] = array
        self._calibrate()
        for name, array in biases.items():
            self._bias(name, array)

    def _weight(self, name: str, array: Array, kind: str) -> None:
        activation = kind == "u8"
        unsigned = (self._signs.activation if activation else self._signs.weight) == "uint8"
        axis = None if activation or kind == "none" or not self._signs.channels else int(kind)
        largest = np.abs(array).max(axis=None if axis is None else tuple(i for i in range(array.ndim) if i != axis))
        scale = np.asarray(np.maximum(largest / 127, 1e-9), np.float32)
        zero = 128 if unsigned else 0
        dtype = np.uint8 if unsigned else np.int8
        shape = [1] * array.ndim
        if axis is not None:
            shape[axis] = -1
        self._integers[f"{name}_q"] = (np.rint(array / scale.reshape(shape)) + zero).astype(dtype)
        self._integers[f"{name}_s"], self._integers[f"{name}_z"] = scale, np.full(scale.shape, zero, dtype)
        attribute = "" if axis is None else f"<axis={axis}>"
        self._before += f"{name} = DequantizeLinear{attribute}({name}_q, {name}_s, {name}_z) "

    def _bias(self, name: str, array: Array) -> None:
        scale = (self._integers["x_s"] * self._integers["w_s"]).astype(np.float32)
        self._integers[f"{name}_q"] = np.rint(array / scale).astype(np.int32)
        self._integers[f"{name}_s"], self._integers[f"{name}_z"] = scale, np.zeros(scale.shape, np.int32)
        self._before += f"{name} = DequantizeLinear{'<axis=0>' if scale.ndim else ''}({name}_q, {name}_s, {name}_z) "

    def _calibrate(self) -> None:
        paired = re.findall(r"Pair\((\w+)\)", self._body)
        session = open_session(self.float_model([*self._ends, *paired]), fusion=False)[0]
        arrays = dict(zip([*self._ends, *paired], session.run(None, self.feed), strict=True)) | self.feed
        for name, array in arrays.items():
            source = self.feed["x"] if self.behind == "same" and name in self._ends else array
            low, high = min(float(source.min()), 0.0), max(float(source.max()), 0.0)
            scale = (high - low) / 255 or 1.0
            zero = round(-low / scale) - (128 if self._signs.activation == "int8" else 0)
            self._integers[f"{name}_s"] = np.float32(scale)
            self._integers[f"{name}_z"] = np.dtype(self._signs.activation).type(zero)

    def float_model(self, outputs: list[str] | None = None) -> onnx.ModelProto:
        """The pattern as it is."""
        nodes = re.sub(r"(Pair|Same)\((\w+)(, \w+)?\)", r"Identity(\2)", self._body)
        return self._model(
            {name: "bool" if a.dtype == bool else "float" for name, a in self.feed.items()},
            nodes,
            outputs or self._ends,
            self._floats,
        )

    def integer_model(self, *, alone: bool = False) -> onnx.ModelProto:
        """The int8 form between integers, or between float values."""
        inputs, before, behind, outputs = {}, self._before, "", self._ends
        for name, array in self.feed.items():
            if array.dtype == bool:
                inputs[name] = "bool"
                continue
            if alone:
                before += f"{name}_q = QuantizeLinear({name}_f, {name}_s, {name}_z) "
            inputs[f"{name}_f" if alone else f"{name}_q"] = "float" if alone else self._signs.activation
            before += f"{name} = DequantizeLinear({name}_q, {name}_s, {name}_z) "
        if self.behind != "float":
            outputs = [f"{name}_f" if alone else f"{name}_q" for name in self._ends]
            for name in self._ends:
                behind += f" {name}_q = QuantizeLinear({name}, {name}_s, {name}_z)"
                behind += f" {name}_f = DequantizeLinear({name}_q, {name}_s, {name}_z)" if alone else ""
        pair = r"\2_q = QuantizeLinear(\2, \2_s, \2_z) \1 = DequantizeLinear(\2_q, \2_s, \2_z)"
        nodes = re.sub(r"(\w+) = Pair\((\w+)\)", pair, self._body)
        nodes = re.sub(r"(\w+) = Same\((\w+), (\w+)\)", pair.replace("\\2_s, \\2_z", "\\3_s, \\3_z"), nodes)
        return self._model(inputs, before + nodes + behind, outputs, self._integers)

    def integer_feed(self, *, alone: bool = False) -> dict[str, Array]:
        """The inputs of an int8 form."""
        found = {}
        for name, array in self.feed.items():
            if array.dtype == bool:
                found[name] = array
            elif alone:
                found[f"{name}_f"] = array
            else:
                limits = np.iinfo(self._signs.activation)
                quantized = np.rint(array / self._integers[f"{name}_s"]) + self._integers[f"{name}_z"]
                found[f"{name}_q"] = np.clip(quantized, limits.min, limits.max).astype(self._signs.activation)
        return found

    def _model(
        self, inputs: dict[str, str], nodes: str, outputs: list[str], constants: dict[str, Array]
    ) -> onnx.ModelProto:
        shapes = {name: ",".join(map(str, self.feed[name.split("_")[0]].shape)) for name in inputs}
        given = ", ".join(f"{kind}[{shapes[name]}] {name}" for name, kind in inputs.items())
        ends = ", ".join(f"{self._signs.activation if name.endswith('_q') else 'float'} {name}" for name in outputs)
        model = onnx.parser.parse_model(
            f'<ir_version: 9, opset_import: ["" : 20]> g ({given}) => ({ends}) {{ {nodes} }}'
        )
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        used = {name for node in model.graph.node for name in node.input}
        for name in used & set(constants):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(constants[name]), name))
        return model


def open_session(
    model: onnx.ModelProto, *, fusion: bool = True, arm: bool = False, threads: int = 1
) -> tuple[ort.InferenceSession, collections.Counter[str]]:
    """A session and the operators of its optimized graph."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, threads
    options.add_session_config_entry("session.disable_quant_qdq", "0" if fusion else "1")
    if arm:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    return session, collections.Counter(node.op_type for node in graph.node)
