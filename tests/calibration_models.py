"""Small models in ONNX text, and running them, for the tests of the calibration room."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort


def parse(text: str, *, opset: int = 18, **weights: Any) -> ir.Model:
    """A model from text; weights are arrays, or shapes filled with seeded normal numbers."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    generator = np.random.default_rng(7)
    for name, weight in weights.items():
        array = weight if isinstance(weight, np.ndarray) else generator.standard_normal(weight).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def run_unoptimized(model: ir.Model, feed: dict[str, Any]) -> dict[str, Any]:
    """All outputs, by stock ONNX Runtime without optimizations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))
