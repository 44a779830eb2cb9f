"""TensorRT's declaration: what placement makes obeys it, and lint finds what the parser would refuse or run in float."""

from __future__ import annotations

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.errors import PassOptionError
from irc.ir import add_initializer
from irc.targets import parse


def rules_found(model: ir.Model, **options: object) -> set[str]:
    return {finding.rule for finding in TensorRtTarget(**options).lint(model)}


def one_conv(cin: int, cout: int, *, group: int = 1, kernel: int = 3) -> ir.Model:
    graph = f"g (float[1,{cin},8,8] x) => (float y) {{ y = Conv<group={group}>(x, w) }}"
    return pass_kit.parse(graph, {"w": (cout, cin // group, kernel, kernel)})


def test_ort_artifact_breaks_the_rules_that_the_parser_would_refuse():
    found = rules_found(int8_kit.quantize(int8_kit.block(), target=OrtTarget()).model)
    assert {"quantized-type-is-int8", "zero-point-is-zero"} <= found


def test_int8_table_is_found():
    found = rules_found(int8_kit.quantize(int8_kit.text(), target=OrtTarget()).model)
    assert "quantized-constant-feeds-dequantize" in found


def test_quantized_model_is_symmetric_scalar_and_has_a_float_bias():
    model = int8_kit.quantize(int8_kit.block(), target=TensorRtTarget()).model
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            assert node.inputs[1].const_value.numpy().shape == () and node.inputs[2].const_value.numpy() == np.int8(0)
        if node.op_type == "DequantizeLinear":
            assert len(node.inputs) == 3 and node.inputs[0].dtype in (ir.DataType.INT8, None)
        if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2:
            assert node.inputs[2].dtype == ir.DataType.FLOAT and node.inputs[2].is_initializer()


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (one_conv(16, 16, group=16), "convolution-is-wide"),
        (one_conv(3, 10), "convolution-is-wide"),
        (pass_kit.parse("g (float[1,64] x) => (float[1,8] y) { y = Gemm(x, w) }", {"w": (64, 8)}), "operand-is-a-matrix"),
        (pass_kit.parse("g (float[8,64] x) => (float[8,1] y) { y = MatMul(x, w) }", {"w": (64, 1)}), "operand-is-a-matrix"),
        (pass_kit.parse("g (float[1,8,4,4] x) => (float[1,8,6,6] y) { y = ConvTranspose(x, w) }", {"w": (8, 8, 3, 3)}), "transposed-convolution-is-float"),
    ],
)  # fmt: skip
def test_what_does_not_pay_stays_float(model, rule):
    outcome = int8_kit.quantize(model, target=TensorRtTarget())
    assert outcome.rewritten == []
    assert outcome.skipped["y"].startswith(rule)


@pytest.mark.parametrize("model", [one_conv(3, 16), one_conv(16, 16), one_conv(64, 32, group=2)])
def test_what_pays_is_quantized(model):
    assert int8_kit.quantize(model, target=TensorRtTarget()).rewritten == ["y"]


def test_lint_of_a_depthwise_conv_that_was_quantized_for_another_target():
    """The constraint and the finding are one predicate: what placement refuses, lint reports."""
    found = rules_found(int8_kit.quantize(one_conv(16, 16, group=16), target=OrtTarget()).model)
    assert "convolution-is-wide" in found


def test_vector_scale_is_found():
    model = int8_kit.quantize(one_conv(16, 16), target=TensorRtTarget()).model
    scale = add_initializer(model.graph, "vector", np.array([0.1], np.float32))
    quantize = next(n for n in model.graph if n.op_type == "QuantizeLinear")
    quantize.replace_input_with(1, scale)
    assert rules_found(model) == {"scale-is-constant"}


def test_weight_only_conv_is_found():
    model = int8_kit.quantize(one_conv(16, 16), target=TensorRtTarget()).model
    conv = next(n for n in model.graph if n.op_type == "Conv")
    conv.replace_input_with(0, model.graph.inputs[0])
    assert rules_found(model) == {"both-operands-are-quantized"}


def test_wrong_weight_axis_is_found():
    model = int8_kit.quantize(one_conv(16, 16), target=TensorRtTarget()).model
    conv = next(n for n in model.graph if n.op_type == "Conv")
    conv.inputs[1].producer().attributes["axis"] = ir.AttrInt64("axis", 1)
    assert rules_found(model) == {"weight-axis-is-output-channel"}


def test_turing_refuses_int8():
    outcome = int8_kit.quantize(one_conv(16, 16), target=TensorRtTarget(sm=(75, 89)))
    assert outcome.skipped["y"].startswith("architecture-has-int8: SM75")


def test_newer_opset_is_found():
    model = int8_kit.quantize(
        pass_kit.parse("g (float[2,32] x) => (float[2,8] y) { y = MatMul(x, w) }", {"w": (32, 8)}, opset=22)
    ).model
    assert "opset-is-known" in rules_found(model)


@pytest.mark.parametrize(("text", "expected"), [("tensorrt", ()), ("tensorrt{sm=86+89}", (86, 89))])
def test_spelling(text, expected):
    assert parse(text) == TensorRtTarget(sm=expected)


def test_impossible_architecture_is_refused():
    with pytest.raises(PassOptionError, match="sm is 7"):
        TensorRtTarget(sm=(7,))
