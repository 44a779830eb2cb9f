"""A quantized MatMul stays integer although a sum follows it, which ONNX Runtime likes to take for the bias of a Gemm."""

from __future__ import annotations

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.ir import check, snapshot
from irc.passes.quantization.gemm import keep_sum_apart
from irc.passes.quantization.workspace import Workspace
from irc.target import Target

CASES = {
    "matrix, row": ("6,32", "y = Add(m, b)", (16,), "QGemm"),
    "matrix, row on the left": ("6,32", "y = Add(b, m)", (16,), "QGemm"),
    "matrix, 1 x N": ("6,32", "y = Add(m, b)", (1, 16), "QGemm"),
    "matrix, column": ("6,32", "y = Add(m, b)", (6, 1), "QGemm"),
    "matrix, matrix": ("6,32", "y = Add(m, b)", (6, 16), "QGemm"),
    "matrix, residual": ("6,32", "r = Slice(x, start, stop, axis) y = Add(m, r)", None, "QGemm"),
    "symbolic matrix, row": ("N,32", "y = Add(m, b)", (16,), "QGemm"),
    "batch, row": ("2,6,32", "y = Add(m, b)", (16,), "MatMulIntegerToFloat"),
    "batch, row on the left": ("2,6,32", "y = Add(b, m)", (16,), "MatMulIntegerToFloat"),
    "two batches, row": ("2,3,4,32", "y = Add(m, b)", (16,), "MatMulIntegerToFloat"),
}


def build(shape: str, body: str, bias: tuple[int, ...] | None) -> ir.Model:
    weights: dict[str, object] = {"w": (32, 16)} | ({} if bias is None else {"b": bias})
    if "Slice" in body:
        weights |= {"start": np.array([0]), "stop": np.array([16]), "axis": np.array([-1])}
    ends = shape.removesuffix("32") + "16"
    return pass_kit.parse(f"g (float[{shape}] x) => (float[{ends}] y) {{ m = MatMul(x, w) {body} }}", weights)


def apart(model: ir.Model, target: Target) -> ir.Model:
    copy = snapshot(model)
    work = Workspace(copy.graph, target.quantization)
    for node in list(copy.graph):
        keep_sum_apart(node, work)
    check(copy)
    return copy


@pytest.mark.parametrize("name", CASES)
def test_product_is_integer_and_the_rule_agrees(name, tmp_path):
    shape, body, bias, kernel = CASES[name]
    model = build(shape, body, bias)
    treated = apart(model, OrtTarget())
    for before, after in zip(
        pass_kit.run(model, pass_kit.feeds(model)), pass_kit.run(treated, pass_kit.feeds(model)), strict=True
    ):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    integer = int8_kit.quantize(treated).model
    assert int8_kit.runtime_operators(integer, tmp_path)[kernel] == 1
    assert OrtTarget().lint(integer) == []


@pytest.mark.parametrize("name", CASES)
def test_rule_finds_what_the_runtime_takes_for_a_bias(name, tmp_path):
    shape, body, bias, _ = CASES[name]
    by_hand = quantized_by_hand(build(shape, body, bias))
    assert int8_kit.runtime_operators(by_hand, tmp_path)["Gemm"] == 1, "the trap is gone: the runtime learnt it"
    assert [finding.rule for finding in OrtTarget().lint(by_hand)] == ["sum-stays-apart"]


@pytest.mark.parametrize(
    ("shape", "body", "bias"),
    [
        ("N,6,32", "y = Add(m, b)", (16,)),
        ("2,6,32", "y = Add(m, b)", (1, 16)),
        ("6,32", "y = Add(m, b)", (1, 1)),
        ("6,32", "y = Sub(m, b)", (16,)),
        ("6,32", "s = Add(m, b) y = Mul(s, m)", (16,)),
    ],
)
def test_rule_is_silent_where_the_product_is_integer(shape, body, bias, tmp_path):
    by_hand = quantized_by_hand(build(shape, body, bias))
    assert int8_kit.runtime_operators(by_hand, tmp_path)["MatMulIntegerToFloat"] == 1
    assert OrtTarget().lint(by_hand) == []


@pytest.mark.parametrize("zeros", [True, False])
def test_sum_that_is_quantized_may_become_a_bias_if_the_weight_has_zero_points(zeros, tmp_path):
    graph = "g (float[1,6,32] x) => (float[1,6,16] y) { m = MatMul(x, w) a = Add(m, b) s = Sigmoid(a) y = Tanh(s) }"
    model = quantized_by_hand(pass_kit.parse(graph, {"w": (32, 16), "b": (16,)}), behind="a", zeros=zeros)
    assert int8_kit.runtime_operators(model, tmp_path)["QGemm"] == zeros
    found = {finding.rule for finding in OrtTarget().lint(model)}
    assert ("sum-stays-apart" in found) is not zeros


def test_only_where_the_target_asks():
    model = build("6,32", "y = Add(m, b)", (16,))
    assert int8_kit.operators(apart(model, TensorRtTarget())) == int8_kit.operators(model)


def quantized_by_hand(model: ir.Model, behind: str = "", zeros: bool = False) -> ir.Model:
    """The product with a pair before its input and its weight in int8, nothing else changed."""
    copy = snapshot(model)
    work = Workspace(copy.graph, OrtTarget().quantization)
    scale, zero = work.constant(np.float32(0.05)), work.constant(np.uint8(128))

    def pair(value: ir.Value) -> list[ir.Node]:
        quantize = ir.node("QuantizeLinear", [value, scale, zero])
        nodes = [quantize, ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero])]
        for node in nodes:
            node.outputs[0].name = work.name("p")
        return nodes

    product = next(node for node in copy.graph if node.op_type == "MatMul")
    assert product.inputs[0] is not None and product.inputs[1] is not None
    nodes = pair(product.inputs[0])
    copy.graph.insert_before(product, nodes)
    product.replace_input_with(0, nodes[1].outputs[0])
    weight = work.dequantized(product.inputs[1], 1, copy.graph, transposed=False, zero_point=zeros)
    product.replace_input_with(1, weight)
    for node in list(copy.graph):
        if node.outputs[0].name == behind:
            readers = list(node.outputs[0].uses())
            nodes = pair(node.outputs[0])
            copy.graph.insert_after(node, nodes)
            for use in readers:
                use.node.replace_input_with(use.idx, nodes[1].outputs[0])
    check(copy)
    return copy
