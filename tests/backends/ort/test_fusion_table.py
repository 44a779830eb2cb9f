"""The table in irc.backends.ort.target, row by row, against ONNX Runtime's own optimized graph."""

from __future__ import annotations

import int8_kit
import numpy as np
import onnx
import pytest

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'
X4, X3, X2 = "float[1,16,8,8] x", "float[1,4,16] x", "float[4,16] x"
QX = "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)"
CW = "w = DequantizeLinear<axis=0>(cw, cs)"
MW = "w = DequantizeLinear<axis=1>(mw, ms, mz)"


def pair(name: str, zero: str = "z", scale: str = "s") -> str:
    return f"{name}q = QuantizeLinear({name}, {scale}, {zero}) {name}d = DequantizeLinear({name}q, {scale}, {zero})"


CASES = [
    ("conv, relu, q", X4, f"{QX} {CW} c = Conv<pads=[1,1,1,1]>(xd, w, cb) r = Relu(c) {pair('r', 'z0')} y = Identity(rd)", {"QLinearConv"}, {"Conv", "Relu"}),
    ("conv, clip, q", X4, f"{QX} {CW} c = Conv<pads=[1,1,1,1]>(xd, w, cb) r = Clip(c, lo, hi) {pair('r', 'z0', 's6')} y = Identity(rd)", {"QLinearConv"}, {"Conv", "Clip"}),
    ("conv, clip, wider q", X4, f"{QX} {CW} c = Conv(xd, w, cb) r = Clip(c, lo, hi) {pair('r', 'z0', 's7')} y = Identity(rd)", {"FusedConv"}, {"QLinearConv"}),
    ("conv, relu, q with a zero point", X4, f"{QX} {CW} c = Conv(xd, w, cb) r = Relu(c) {pair('r')} y = Identity(rd)", {"FusedConv"}, {"QLinearConv"}),
    ("conv without q", X4, f"{QX} {CW} y = Conv(xd, w, cb)", {"Conv"}, {"QLinearConv"}),
    ("conv, q, another reader", X4, f"{QX} {CW} c = Conv(xd, w, cb) {pair('c')} y = Add(cd, c)", {"Conv"}, {"QLinearConv"}),
    ("conv, leaky relu, q", X4, f"{QX} {CW} c = Conv(xd, w, cb) r = LeakyRelu(c) {pair('r')} y = Identity(rd)", {"FusedConv"}, {"QLinearConv"}),
    ("conv, q, leaky relu, q", X4, f"{QX} {CW} c = Conv(xd, w, cb) {pair('c')} r = LeakyRelu(cd) {pair('r')} y = Identity(rd)", {"QLinearConv", "QLinearLeakyRelu"}, {"Conv"}),
    ("transposed conv", X4, f"{QX} w = DequantizeLinear<axis=1>(cw, cs) c = ConvTranspose(xd, w) {pair('c')} y = Identity(cd)", {"ConvTranspose"}, {"QLinearConv"}),
    ("gemm, int32 bias", X2, f"{QX} {MW} b = DequantizeLinear<axis=0>(gb, gs, gz) y = Gemm(xd, w, b)", {"QGemm"}, {"Gemm"}),
    ("gemm, no bias", X2, f"{QX} {MW} y = Gemm<alpha=0.5>(xd, w)", {"QGemm"}, {"Gemm"}),
    ("gemm, float bias", X2, f"{QX} {MW} y = Gemm(xd, w, fb)", {"Gemm"}, {"QGemm"}),
    ("gemm, no weight zero points", X2, f"{QX} w = DequantizeLinear<axis=1>(mw, ms) y = Gemm(xd, w)", {"Gemm"}, {"QGemm"}),
    ("flatten, gemm", X2, f"{QX} {MW} r = Flatten(xd) y = Gemm(r, w)", {"MatMulNBits"}, {"QGemm"}),
    ("reshape, gemm", X3, f"{QX} {MW} r = Reshape(xd, flat) y = Gemm(r, w)", {"QGemm"}, {"MatMulNBits"}),
    ("matmul", X3, f"{QX} w = DequantizeLinear<axis=1>(mw, ms) y = MatMul(xd, w)", {"MatMulIntegerToFloat"}, {"MatMul"}),
    ("matmul, weight on the left", X3, f"{QX} w = DequantizeLinear<axis=0>(lw, ls) y = MatMul(w, xd)", {"MatMul"}, {"MatMulIntegerToFloat"}),
    ("matmul, transposed weight", X3, f"{QX} d = DequantizeLinear<axis=0>(tw, ms, mz) w = Transpose<perm=[1,0]>(d) y = MatMul(xd, w)", {"MatMulIntegerToFloat"}, {"MatMul"}),
    ("matmul, transposed weight, no zero points", X3, f"{QX} d = DequantizeLinear<axis=0>(tw, ms) w = Transpose<perm=[1,0]>(d) y = MatMul(xd, w)", {"FusedMatMul"}, {"MatMulIntegerToFloat"}),
    ("add, relu, q", X4, f"{QX} v = Neg(x) {pair('v')} a = Add(xd, vd) r = Relu(a) {pair('r', 'z0')} y = Identity(rd)", {"QLinearAdd"}, {"Add", "Relu"}),
    ("add without q", X4, f"{QX} v = Neg(x) {pair('v')} y = Add(xd, vd)", {"Add"}, {"QLinearAdd"}),
    ("mul", X4, f"{QX} v = Neg(x) {pair('v')} a = Mul(xd, vd) {pair('a')} y = Identity(ad)", {"QLinearMul"}, {"Mul"}),
    ("concat", X4, f"{QX} v = Neg(x) {pair('v')} a = Concat<axis=1>(xd, vd) {pair('a')} y = Identity(ad)", {"QLinearConcat"}, {"Concat"}),
    ("average pool", X4, f"{QX} a = AveragePool<kernel_shape=[2,2]>(xd) {pair('a')} y = Identity(ad)", {"QLinearAveragePool"}, {"AveragePool"}),
    ("global average pool", X4, f"{QX} a = GlobalAveragePool(xd) {pair('a')} y = Identity(ad)", {"QLinearGlobalAveragePool"}, {"GlobalAveragePool"}),
    ("sigmoid", X4, f"{QX} a = Sigmoid(xd) {pair('a')} y = Identity(ad)", {"QLinearSigmoid"}, {"Sigmoid"}),
    ("max pool", X4, f"{QX} a = MaxPool<kernel_shape=[2,2]>(xd) {pair('a')} y = Identity(ad)", {"MaxPool"}, {"NhwcMaxPool2"}),
    ("reduce mean", X4, f"{QX} a = ReduceMean(xd, axes) {pair('a')} y = Identity(ad)", {"ReduceMean"}, {"QLinearReduceMean"}),
    ("gelu", X4, f"{QX} a = Gelu(xd) {pair('a')} y = Identity(ad)", {"Gelu"}, {"QLinearGelu"}),
    ("hard swish", X4, f"{QX} a = HardSwish(xd) {pair('a')} y = Identity(ad)", {"HardSigmoid"}, {"QLinearMul"}),
    ("split", X4, f"{QX} a, b = Split<axis=1, num_outputs=2>(xd) w = DequantizeLinear<axis=0>(hw, cs) c = Conv(a, w) {pair('c')} y = Identity(cd)", {"Split", "Conv"}, {"QLinearConv"}),
    ("slice", X4, f"{QX} a = Slice(xd, start, stop, axis2) {CW} c = Conv(a, w) {pair('c')} y = Identity(cd)", {"QLinearConv"}, {"Conv"}),
    ("gather", "int64[1,5] x", "g = Gather(tw, x) y = DequantizeLinear<axis=-1>(g, ts)", {"Gather", "DequantizeLinear"}, {"Cast"}),
]  # fmt: skip


def initializers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def int8(*shape: int) -> np.ndarray:
        return rng.integers(-127, 128, shape).astype(np.int8)

    return {
        "s": np.float32(0.05), "z": np.uint8(128), "z0": np.uint8(0), "s6": np.float32(4 / 255), "s7": np.float32(6.1 / 255),
        "lo": np.float32(0), "hi": np.float32(6), "cw": int8(16, 16, 3, 3), "hw": int8(16, 8, 3, 3), "cs": np.full(16, 0.01, np.float32),
        "cb": rng.normal(size=16).astype(np.float32), "mw": int8(16, 8), "tw": int8(8, 16), "ms": np.full(8, 0.01, np.float32),
        "mz": np.zeros(8, np.int8), "gb": np.arange(8, dtype=np.int32), "gs": np.full(8, 0.0005, np.float32), "gz": np.zeros(8, np.int32),
        "fb": np.ones(8, np.float32), "flat": np.array([-1, 16]), "lw": int8(6, 4), "ls": np.full(6, 0.01, np.float32),
        "axes": np.array([2, 3]), "start": np.array([0]), "stop": np.array([4]), "axis2": np.array([2]), "ts": np.full(16, 0.01, np.float32),
    }  # fmt: skip


@pytest.mark.parametrize(("given", "body", "expected", "absent"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_row(given, body, expected, absent, tmp_path):
    proto = onnx.parser.parse_model(
        f"{HEADER} g ({given}) => (float[?] y) {{ {body} }}".replace("float[?] y", "float y")
    )
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    used = {name for node in proto.graph.node for name in node.input}
    for name, array in initializers().items():
        if name in used:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    found = set(int8_kit.runtime_operators(proto, tmp_path))
    assert expected <= found, found
    assert not absent & found, found
