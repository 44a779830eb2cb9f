"""Graphs the tests of irc.ir share, and an oracle that shares no code with irc: ONNX Runtime without optimizations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper


def model_proto(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str]],
    outputs: dict[str, Sequence[int | str] | None],
    initializers: dict[str, Any] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    domains: dict[str, int] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A float model; initializers are arrays or TensorProtos."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [
            w if isinstance(w, TensorProto) else onnx.numpy_helper.from_array(np.asarray(w), n)
            for n, w in (initializers or {}).items()
        ],
    )
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(d, v) for d, v in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=list(functions))


def linear_proto() -> onnx.ModelProto:
    """y = Relu(x @ w + b), w of 8 KiB."""
    rng = np.random.default_rng(0)
    return model_proto(
        [
            helper.make_node("MatMul", ["x", "w"], ["p"], name="mm"),
            helper.make_node("Add", ["p", "b"], ["s"], name="add"),
            helper.make_node("Relu", ["s"], ["y"], name="relu"),
        ],
        {"x": ["N", 64]},
        {"y": ["N", 32]},
        {"w": rng.normal(size=(64, 32)).astype(np.float32), "b": rng.normal(size=32).astype(np.float32)},
    )


def branch_proto() -> onnx.ModelProto:
    """y = cond ? x * w + t : t with t = Relu(x); both branches capture values of the main graph, one has a weight."""
    w = onnx.numpy_helper.from_array(np.full((4, 300), 2, np.float32), "body_w")
    then = helper.make_graph(
        [helper.make_node("Mul", ["x", "body_w"], ["m"]), helper.make_node("Add", ["m", "t"], ["then_y"])],
        "then",
        [],
        [helper.make_tensor_value_info("then_y", TensorProto.FLOAT, [4, 300])],
        [w],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["t"], ["else_y"])],
        "else",
        [],
        [helper.make_tensor_value_info("else_y", TensorProto.FLOAT, [4, 300])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["t"], name="relu"),
            helper.make_node("If", ["cond"], ["y"], name="if", then_branch=then, else_branch=other),
        ],
        "g",
        [
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 300]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 300])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branch(proto: onnx.ModelProto, name: str) -> onnx.GraphProto:
    """The body "then_branch" or "else_branch" of the If in `branch_proto()`."""
    return next(a.g for node in proto.graph.node if node.op_type == "If" for a in node.attribute if a.name == name)


def external_tensor(name: str, shape: Sequence[int], location: str, **fields: int) -> TensorProto:
    """A float tensor in a data file; fields are offset and length."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=list(shape), data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **fields}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write_external(folder: Path, *, location: str = "w.bin", rows: int = 64, **fields: int) -> Path:
    """y = x @ w with w (rows, 32) in a data file of zeros and ones; returns the path of the model."""
    weight = (np.arange(rows * 32) % 2).astype(np.float32).reshape(rows, 32)
    (folder / "w.bin").write_bytes(weight.tobytes())
    tensor = external_tensor("w", [rows, 32], location, **{"offset": 0, "length": weight.nbytes, **fields})
    proto = model_proto(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", rows]}, {"y": ["N", 32]}, {"w": tensor}
    )
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def run_reference(model: onnx.ModelProto | Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What stock ONNX Runtime computes with every optimization off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(None, feed)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
