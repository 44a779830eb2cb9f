"""The table in irc.backends.ort.target, row by row, against ONNX Runtime's own optimized graph."""

from __future__ import annotations

from pathlib import Path

import int8_kit
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irc.backends.ort import OrtTarget

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'
X4, X3, X2 = "float[1,16,8,8] x", "float[1,4,16] x", "float[4,16] x"
QX = "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)"
QV = "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear<axis=1>(xq, sv, zv)"
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
    ("split, pairs", X4, f"{QX} a, b = Split<axis=1, num_outputs=2>(xd) {pair('a')} {pair('b')} e = Concat<axis=1>(ad, bd) {pair('e')} y = Identity(ed)", {"Split"}, set()),
    ("split, one pair", X4, f"{QX} a, b = Split<axis=1, num_outputs=2>(xd) {pair('a')} y = Concat<axis=1>(ad, b)", {"Split"}, {"Moved"}),
    ("gather", X4, f"{QX} a = Gather<axis=1>(xd, ids) {pair('a')} y = Identity(ad)", {"Gather"}, set()),
    ("depth to space", X4, f"{QX} a = DepthToSpace<blocksize=2>(xd) {pair('a')} y = Identity(ad)", {"DepthToSpace"}, set()),
    ("resize, nearest", X4, f'{QX} a = Resize<mode="nearest">(xd, , twice) {pair("a")} y = Identity(ad)', {"Resize"}, set()),
    ("resize, linear", X4, f'{QX} a = Resize<mode="linear">(xd, , twice) {pair("a")} y = Identity(ad)', {"Resize"}, {"Moved"}),
    ("expand", X4, f"{QX} a = Expand(xd, front) {pair('a')} y = Identity(ad)", {"Expand"}, set()),
    ("transpose", X4, f"{QX} a = Transpose<perm=[0,2,3,1]>(xd) {pair('a')} y = Identity(ad)", {"Transpose"}, set()),
    ("slice, other scale", X4, f"{QX} a = Slice(xd, start, stop, axis2) {pair('a', 'z', 's6')} y = Identity(ad)", {"Slice"}, {"Moved"}),
    ("pad", X4, f"{QX} a = Pad(xd, edges) {pair('a')} y = Identity(ad)", {"Pad"}, {"Moved"}),
    ("pad, conv, q", X4, f"{QX} {CW} a = Pad(xd, edges) c = Conv(a, w) {pair('c')} y = Identity(cd)", {"QLinearConv"}, {"Pad"}),
    ("space to depth", X4, f"{QX} a = SpaceToDepth<blocksize=2>(xd) {pair('a')} y = Identity(ad)", {"SpaceToDepth"}, {"Moved"}),
    ("softmax", X3, f"{QX} a = Softmax(xd) {pair('a')} y = Identity(ad)", {"QLinearSoftmax"}, {"Softmax"}),
    ("where", X4, f"{QX} v = Neg(x) {pair('v')} c = Less(x, v) a = Where(c, xd, vd) {pair('a')} y = Identity(ad)", {"QLinearWhere"}, {"Where"}),
    ("leaky relu", X4, f"{QX} a = LeakyRelu(xd) {pair('a')} y = Identity(ad)", {"QLinearLeakyRelu"}, {"LeakyRelu"}),
    ("add of a float constant", X4, f"{QX} a = Add(xd, six) {pair('a')} y = Identity(ad)", {"Add"}, {"QLinearAdd"}),
    ("sub", X4, f"{QX} v = Neg(x) {pair('v')} a = Sub(xd, vd) {pair('a')} y = Identity(ad)", {"Sub"}, {"QLinearSub"}),
    ("product of activations", X3, f"{QX} t = Transpose<perm=[0,2,1]>(x) {pair('t')} y = MatMul(xd, td)", {"MatMulIntegerToFloat"}, {"MatMul"}),
    ("product of activations, q", X3, f"{QX} t = Transpose<perm=[0,2,1]>(x) {pair('t')} m = MatMul(xd, td) {pair('m')} y = Identity(md)", {"QLinearMatMul"}, {"MatMul"}),
    ("matmul, row", X2, f"{QX} {MW} m = MatMul(xd, w) y = Add(m, fb)", {"Gemm"}, {"MatMulIntegerToFloat", "QGemm"}),
    ("matmul, row, known shape", X3, f"{QX} {MW} m = MatMul(xd, w) y = Add(m, fb)", {"Gemm", "Reshape"}, {"MatMulIntegerToFloat", "QGemm"}),
    ("matmul, row, unknown batch", "float[N,4,16] x", f"{QX} {MW} m = MatMul(xd, w) y = Add(m, fb)", {"MatMulIntegerToFloat"}, {"Gemm"}),
    ("matmul, row, q", X2, f"{QX} {MW} m = MatMul(xd, w) a = Add(m, fb) {pair('a')} y = Identity(ad)", {"QGemm"}, {"Gemm"}),
    ("gemm, then a sum", X2, f"{QX} {MW} m = Gemm(xd, w) y = Add(m, fb)", {"QGemm", "Add"}, {"Gemm"}),
    ("gemm, q", X2, f"{QX} {MW} b = DequantizeLinear<axis=0>(gb, gs, gz) m = Gemm(xd, w, b) {pair('m')} y = Identity(md)", {"QGemm"}, {"Gemm"}),
    ("conv of a float weight", X4, f"{QX} c = Conv(xd, fw, cb) {pair('c')} y = Identity(cd)", {"QLinearConv"}, {"Conv"}),
    ("conv of a float weight, scales of the input as a vector", X4, f"{QV} c = Conv(xd, fw, cb) {pair('c')} y = Identity(cd)", {"Conv"}, {"QLinearConv"}),
    ("conv of a float weight, float output", X4, f"{QX} y = Conv(xd, fw, cb)", {"Conv"}, {"QLinearConv"}),
    ("conv, max pool, conv", X4, f"{QX} {CW} c = Conv(xd, w, cb) {pair('c')} m = MaxPool<kernel_shape=[2,2]>(cd) {pair('m')} e = Conv(md, w, cb) {pair('e')} y = Identity(ed)", {"QLinearConv", "NhwcMaxPool"}, {"MaxPool", "Conv"}),
    ("slice", X4, f"{QX} a = Slice(xd, start, stop, axis2) {CW} c = Conv(a, w) {pair('c')} y = Identity(cd)", {"QLinearConv"}, {"Conv"}),
    ("table", "int64[1,5] x", "g = Gather(tw, x) y = DequantizeLinear<axis=-1>(g, ts)", {"Gather", "DequantizeLinear"}, {"Cast"}),
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
        "fw": rng.normal(size=(16, 16, 3, 3)).astype(np.float32), "sv": np.full(16, 0.05, np.float32), "zv": np.full(16, 128, np.uint8),
        "six": np.float32(6), "ids": np.array([3, 1]), "twice": np.array([1, 1, 2, 2], np.float32), "front": np.array([2, 1, 1, 1, 1]),
        "edges": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "axes": np.array([2, 3]), "start": np.array([0]), "stop": np.array([4]), "axis2": np.array([2]), "ts": np.full(16, 0.01, np.float32),
    }  # fmt: skip


def build(given: str, body: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f"{HEADER} g ({given}) => (float y) {{ {body} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    used = {name for node in proto.graph.node for name in node.input}
    for name, array in initializers().items():
        if name in used:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return proto


def kernels(proto: onnx.ModelProto, folder: Path) -> set[str]:
    """What the runtime makes of a row; "Moved" if it dequantizes nothing but what leaves the graph."""
    found = int8_kit.runtime_operators(proto, folder)
    return set(found) | ({"Moved"} if found["DequantizeLinear"] <= 1 and found["QuantizeLinear"] <= 1 else set())


MOVED = {
    "split, pairs", "gather", "depth to space", "resize, nearest", "expand", "transpose", "slice", "max pool",
    "conv, max pool, conv",
}  # fmt: skip


@pytest.mark.parametrize(("name", "given", "body", "expected", "absent"), CASES, ids=[c[0] for c in CASES])
def test_row(name, given, body, expected, absent, tmp_path):
    found = kernels(build(given, body), tmp_path)
    assert expected | ({"Moved"} if name in MOVED else set()) <= found, found
    assert not absent & found, found


NEEDS_OUTPUT, PAIR = "convolution-needs-quantized-output", "pair-feeds-an-integer-kernel"
FINDINGS = {
    "conv, clip, wider q": {NEEDS_OUTPUT},
    "conv, relu, q with a zero point": {NEEDS_OUTPUT},
    "conv without q": {NEEDS_OUTPUT},
    "conv, q, another reader": {NEEDS_OUTPUT},
    "conv, leaky relu, q": {NEEDS_OUTPUT},
    "transposed conv": {"transposed-convolution-is-float", PAIR},
    "gemm, float bias": {"gemm-operands-are-integer"},
    "gemm, no weight zero points": {"gemm-operands-are-integer"},
    "flatten, gemm": {"operand-is-quantized-directly"},
    "matmul, transposed weight, no zero points": {"transposed-weight-has-zero-points"},
    "matmul, row": {"sum-stays-apart"},
    "matmul, row, known shape": {"sum-stays-apart"},
    "slice, other scale": {"moved-integers-keep-their-scale"},
    "conv of a float weight": {"float-weight-stays-float"},
    "reduce mean": {PAIR},
    "gelu": {PAIR},
    "hard swish": {PAIR},
    "space to depth": {PAIR},
    "sub": {PAIR},
}


@pytest.mark.parametrize(("name", "given", "body"), [c[:3] for c in CASES], ids=[c[0] for c in CASES])
def test_lint_finds_the_rows_that_stay_float_for_their_spelling(name, given, body):
    model = ir.from_proto(build(given, body))
    assert {finding.rule for finding in OrtTarget().lint(model)} == FINDINGS.get(name, set())


@pytest.mark.parametrize("name", ["conv, relu, q", "matmul", "product of activations, q", "gemm, no bias", "sigmoid"])
def test_signed_activations_are_fused_as_on_arm64(name, tmp_path):
    _, given, body, expected, _ = next(case for case in CASES if case[0] == name)
    proto = build(given, body)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.UINT8:
            lower = onnx.numpy_helper.to_array(tensor).astype(np.int16) - 128
            tensor.CopyFrom(onnx.numpy_helper.from_array(lower.astype(np.int8), tensor.name))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "arm.onnx")
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    on_arm = {node.op_type for node in onnx.load(str(tmp_path / "arm.onnx")).graph.node}
    assert expected <= on_arm and "QuantizeLinear" in on_arm
