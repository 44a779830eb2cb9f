"""Models for the tests of the runtime process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper


def from_text(text: str, **weights: np.ndarray) -> ir.Model:
    """A model from ONNX text; `weights` become initializers of the main graph."""
    proto = onnx.parser.parse_model(text)
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def affine(scale: float = 2.0) -> ir.Model:
    """y = scale * x + 1 for a vector of any length; h is the product."""
    return from_text(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        affine (float[n] x) => (float[n] y) <float one = {{1.0}}, float scale = {{{scale}}}> {{
            h = Mul(x, scale)
            y = Add(h, one)
        }}"""
    )


def dense(width: int = 64, *, depth: int = 4, seed: int = 0, relative_error: float = 0.0) -> ir.Model:
    """A chain of MatMul + Relu with random weights, optionally perturbed by a relative error."""
    random = np.random.default_rng(seed)
    nodes, initializers, value = [], [], "x"
    for i in range(depth):
        weight = (random.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32)
        weight = weight * np.float32(1 + relative_error)
        initializers.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"m{i}"], name=f"matmul{i}"))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"r{i}"], name=f"relu{i}"))
        value = f"r{i}"
    nodes.append(helper.make_node("Identity", [value], ["y"]))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        initializers,
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def endless() -> ir.Model:
    """A loop of as many turns as its input says: 2**60 of them never end."""
    return from_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        endless (int64 turns, float[n] x) => (float[n] y) {
            yes = Constant <value = bool {1}> ()
            y = Loop (turns, yes, x) <body = step (int64 i, bool go_in, float[n] a) => (bool go, float[n] b) {
                go = Identity (go_in)
                c = Sin (a)
                b = Cos (c)
            }>
        }"""
    )


def save(model: ir.Model, path: Path) -> Path:
    """Writes a model with inline weights."""
    ir.save(model, path)
    return path
