"""What tensorrt's coverage calls int8 is declared as int8 in the file, whatever else was rewritten there."""

import numpy as np
import onnx
import onnx_ir as ir
import pass_kit
import pytest

import irc

GRAPH = "g (float[n,32] x) => (float[n,32] y) { a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) y = Add(c, x) }"


@pytest.mark.parametrize(("passes", "products"), [("reduce-precision", 0), ("quantize", 2)])
def test_only_int8_operands_count(tmp_path, passes, products):
    onnx.save(ir.to_proto(pass_kit.parse(GRAPH, {"w0": (32, 32), "w1": (32, 32)})), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((4, 32)).astype(np.float32)} for _ in range(8)]
    report = irc.optimize(
        tmp_path / "m.onnx", data=feeds, passes=passes, target="tensorrt", output=tmp_path / "o.onnx", measure=False
    )
    assert report.coverage.count("MatMul") == (products, 2)
    if not products:
        assert report.coverage.count()[0] == 0
        assert "stored as int8" not in " ".join(report.coverage.reasons())
