"""The table of composite operators against ONNX Runtime itself, for every type and opset it promises."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget

TYPES = {ir.DataType.FLOAT: "float", ir.DataType.FLOAT16: "float16", ir.DataType.DOUBLE: "double"}
NODES = {
    ("Attention", ""): (23, "y = Attention<q_num_heads=2, kv_num_heads=2>(x, x, x)"),
    ("Gelu", ""): (20, "y = Gelu(x)"),
    ("Gelu", "tanh"): (20, 'y = Gelu<approximate="tanh">(x)'),
    ("Gemm", ""): (7, "y = Gemm(x, x, w)"),
    ("HardSigmoid", ""): (6, "y = HardSigmoid<alpha=0.25, beta=0.5>(x)"),
    ("HardSwish", ""): (14, "y = HardSwish(x)"),
    ("LayerNormalization", ""): (17, "y = LayerNormalization(x, w, w)"),
    ("Mish", ""): (18, "y = Mish(x)"),
    ("RMSNormalization", ""): (23, "y = RMSNormalization(x, w)"),
}


OPSETS = (7, 13, 14, 17, 18, 20, 21, 22, 23, 24)


@pytest.mark.parametrize(
    "key, opset", [(key, opset) for key, (since, _) in NODES.items() for opset in OPSETS if opset >= since]
)
def test_what_is_promised_runs(key: tuple[str, str], opset: int) -> None:
    node = NODES[key][1]
    for dtype, name in TYPES.items():
        if not OrtTarget().has_operator(key[0], opset, dtype, mode=key[1]):
            continue
        shape = (1, 4, 4) if key[0] == "Attention" else (4, 4)
        dims = ",".join(map(str, shape))
        text = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({name}[{dims}] x, {name}[4] w) => ({name}[{dims}] y) {{ {node} }}'
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(onnx.parser.parse_model(text).SerializeToString(), options)
        array = np.linspace(-2, 2, 16).reshape(shape).astype(dtype.numpy())
        (result,) = session.run(None, {"x": array, "w": array.reshape(-1)[:4]})
        assert result.dtype == array.dtype and np.isfinite(result).all()


def test_what_is_slower_or_missing_is_not_promised() -> None:
    target = OrtTarget()
    assert not target.has_operator("Swish", 24, ir.DataType.FLOAT)
    assert not target.has_operator("Gelu", 20, ir.DataType.FLOAT16, mode="tanh")
    assert not target.has_operator("HardSwish", 14, ir.DataType.DOUBLE)
    assert not target.has_operator("LayerNormalization", 17, ir.DataType.BFLOAT16)
    assert not target.has_operator("LayerNormalization", target.max_opset + 1, ir.DataType.FLOAT)
    assert target.has_operator("Relu", 14, ir.DataType.INT8)


def test_tensorrt_takes_what_every_version_reads() -> None:
    target = TensorRtTarget()
    assert target.has_operator("LayerNormalization", 17, ir.DataType.FLOAT16)
    assert not target.has_operator("LayerNormalization", 17, ir.DataType.DOUBLE)
    assert not target.has_operator("LayerNormalization", target.max_opset + 1, ir.DataType.FLOAT)
    assert not target.has_operator("Swish", 20, ir.DataType.FLOAT)
    assert target.has_operator("Relu", 20, ir.DataType.FLOAT)
