"""Small models from ONNX text for the tests of the analysis room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from irc.ir import normalize


def proto(text: str, *, opset: int = 20, domains: str = "", **weights: np.ndarray) -> onnx.ModelProto:
    """A model from the text of its graph; weights become initializers."""
    imports = f'"" : {opset}' + (f", {domains}" if domains else "")
    model = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{imports}]>\n{text}")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def graph(text: str, *, opset: int = 20, domains: str = "", **weights: np.ndarray) -> ir.Model:
    """The same as irc has it after loading."""
    return normalize(proto(text, opset=opset, domains=domains, **weights))


def write(path: Path, text: str, *, opset: int = 20, domains: str = "", **weights: np.ndarray) -> Path:
    """The same as a file."""
    onnx.save(proto(text, opset=opset, domains=domains, **weights), path)
    return path


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node_of(model: ir.Model, op_type: str) -> ir.Node:
    """The only node of an operator."""
    [node] = [node for node in model.graph.all_nodes() if node.op_type == op_type]
    return node
