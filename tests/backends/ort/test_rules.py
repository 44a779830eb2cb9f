"""ONNX Runtime's rules: what placement obeys, lint finds when it is broken by hand."""

from __future__ import annotations

import int8_kit
import onnx_ir as ir
import pass_kit
import pytest

from irc.backends.ort import OrtTarget
from irc.backends.ort.rules import RULES
from irc.target import OperatorRule


def rules_found(model: ir.Model) -> set[str]:
    return {finding.rule for finding in OrtTarget().lint(model)}


def test_removing_the_quantizer_behind_a_conv_is_found():
    model = int8_kit.quantize(int8_kit.block()).model
    conv = [n for n in model.graph if n.op_type == "Conv"][1]
    pair = conv.outputs[0].uses()[0].node
    dequantized = pair.outputs[0].uses()[0].node.outputs[0]
    dequantized.replace_all_uses_with(conv.outputs[0])
    assert "convolution-needs-quantized-output" in rules_found(model)


def test_float_bias_of_an_integer_gemm_is_found():
    model = int8_kit.quantize(int8_kit.block()).model
    gemm = next(n for n in model.graph if n.op_type == "Gemm")
    gemm.replace_input_with(2, gemm.inputs[2].producer().inputs[1])
    assert rules_found(model) == {"gemm-operands-are-integer"}


def test_weight_without_zero_points_is_found():
    model = int8_kit.quantize(int8_kit.block()).model
    gemm = next(n for n in model.graph if n.op_type == "Gemm")
    gemm.inputs[1].producer().resize_inputs(2)
    assert rules_found(model) == {"gemm-operands-are-integer"}


def test_flatten_between_pair_and_gemm_is_found():
    model = int8_kit.quantize(int8_kit.block()).model
    gemm = next(n for n in model.graph if n.op_type == "Gemm")
    quantize = gemm.inputs[0].producer().inputs[0].producer()
    gemm.replace_input_with(0, quantize.inputs[0])
    assert "operand-is-quantized-directly" in rules_found(model)


def test_float_weight_between_integers_is_found():
    graph = """g (float[2,16,8,8] x) => (float y) {
        a = Conv<pads=[1,1,1,1]>(x, w1) b = Conv(a, w2) c = Conv<pads=[1,1,1,1]>(b, w3) y = Tanh(c) }"""
    weights = {"w1": (16, 16, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 16, 3, 3)}
    model = int8_kit.quantize(pass_kit.parse(graph, weights), deny=lambda site: site == "b").model
    assert rules_found(model) == set()
    kept = next(n for n in model.graph if n.op_type == "Conv" and n.inputs[1].name == "w2")
    vector = kept.inputs[0].producer()
    scale = ir.Value(name="one", const_value=ir.tensor(vector.inputs[1].const_value.numpy()[0], name="one"))
    zero = ir.Value(name="none", const_value=ir.tensor(vector.inputs[2].const_value.numpy()[0], name="none"))
    for value in (scale, zero):
        model.graph.register_initializer(value)
    vector.replace_input_with(1, scale)
    vector.replace_input_with(2, zero)
    assert rules_found(model) == {"float-weight-stays-float"}


def test_pair_between_float_operators_is_found():
    model = int8_kit.quantize(
        pass_kit.parse("g (float[2,32] x) => (float[2,8] y) { a = Tanh(x) y = MatMul(a, w) }", {"w": (32, 8)})
    ).model
    matmul = next(n for n in model.graph if n.op_type == "MatMul")
    pair = matmul.inputs[0].producer()
    matmul.replace_input_with(0, next(n for n in model.graph if n.op_type == "Tanh").outputs[0])
    tail = ir.node("Tanh", [pair.outputs[0]])
    model.graph.insert_after(pair, tail)
    assert "pair-feeds-an-integer-kernel" in rules_found(model)


@pytest.mark.parametrize(
    ("graph", "weights", "rule"),
    [
        (
            "g (float[2,4,16] x) => (float[2,4,8] y) { y = MatMul(x, w) }",
            {"w": (2, 16, 8)},
            "matmul-weight-is-a-matrix",
        ),
        (
            "g (float[1,8,4,4] x) => (float[1,8,6,6] y) { y = ConvTranspose(x, w) }",
            {"w": (8, 8, 3, 3)},
            "transposed-convolution-is-float",
        ),
    ],
)
def test_both_readings_of_an_operator_rule_agree(graph, weights, rule):
    model = pass_kit.parse(graph, weights)
    node = next(n for n in model.graph if n.outputs[0].name == "y")
    assert OrtTarget().refuses(node).startswith(f"{rule}: ")
    by_hand = ir.from_proto(ir.to_proto(model))
    node = next(iter(by_hand.graph))
    for index in (0, 1):
        value = node.inputs[index]
        source = value
        inits = {"s": 0.1}
        scale = by_hand.graph.initializers.get("s") or _initializer(by_hand, "s", inits["s"])
        if index == 0:
            zero = _zero(by_hand)
            quantize = ir.node("QuantizeLinear", [value, scale, zero])
            source = quantize.outputs[0]
            dequantize = ir.node("DequantizeLinear", [source, scale, zero])
            by_hand.graph.insert_before(node, [quantize, dequantize])
        else:
            stored = _initializer(by_hand, "w8", value.const_value.numpy().astype("int8"))
            dequantize = ir.node("DequantizeLinear", [stored, scale])
            by_hand.graph.insert_before(node, dequantize)
        node.replace_input_with(index, dequantize.outputs[0])
    assert rule in rules_found(by_hand)


def _initializer(model: ir.Model, name: str, array: object) -> ir.Value:
    import numpy as np

    from irc.ir import add_initializer

    data = np.asarray(array)
    return add_initializer(model.graph, name, data.astype(np.float32) if data.dtype == np.float64 else data)


def _zero(model: ir.Model) -> ir.Value:
    import numpy as np

    return _initializer(model, "zero", np.uint8(128))


def test_every_rule_has_a_name_and_a_sentence():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.summary.endswith(".") for rule in RULES)
    assert any(isinstance(rule, OperatorRule) for rule in RULES)
