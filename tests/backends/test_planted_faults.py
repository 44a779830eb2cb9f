"""Faults as other tools make them, planted in sound int8 models: lint names each, explains it, and says what it leads to."""

from __future__ import annotations

from collections.abc import Callable

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.ir import add_initializer
from irc.target import EFFECTS, Target

GRAPH = """
g (float[1,16,8,8] x) => (float[1,16,8,8] y) {
  a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(a)
  c = Conv<pads=[1,1,1,1]>(r, w2, b2)
  y = Add(c, r)
}
"""
WEIGHTS = {"w1": (16, 16, 3, 3), "w2": (16, 16, 3, 3), "b1": (16,), "b2": (16,)}


def sound(target: Target) -> ir.Model:
    """A residual block, quantized as the target wants it."""
    model = int8_kit.quantize(pass_kit.parse(GRAPH, WEIGHTS), target=target).model
    assert target.lint(model) == []
    return model


def first(model: ir.Model, op_type: str, *, after: str = "") -> ir.Node:
    nodes = [node for node in model.graph if node.op_type == op_type]
    return next(n for n in nodes if not after or after in [v.name for v in n.inputs if v is not None])


def conv(model: ir.Model, output: str) -> ir.Node:
    return next(n for n in model.graph if n.op_type == "Conv" and n.outputs[0].name == output)


def activation_pair(model: ir.Model, node: ir.Node) -> tuple[ir.Node, ir.Node]:
    """QuantizeLinear and DequantizeLinear in front of an operator."""
    dequantize = node.inputs[0].producer()
    assert dequantize is not None and dequantize.inputs[0] is not None
    quantize = dequantize.inputs[0].producer()
    assert quantize is not None
    return quantize, dequantize


def set_input(model: ir.Model, nodes: tuple[ir.Node, ...], index: int, array: np.ndarray) -> None:
    value = add_initializer(model.graph, "planted", array)
    for node in nodes:
        node.replace_input_with(index, value)


def uint8_activations(model: ir.Model) -> None:
    pair = activation_pair(model, conv(model, "c"))
    set_input(model, pair, 2, np.array(0, np.uint8))
    pair[0].outputs[0].type = ir.TensorType(ir.DataType.UINT8)


def zero_point(model: ir.Model) -> None:
    set_input(model, activation_pair(model, conv(model, "c")), 2, np.array(3, np.int8))


def int32_bias(model: ir.Model) -> None:
    node = conv(model, "c")
    bias = add_initializer(model.graph, "bias_q", np.arange(16, dtype=np.int32))
    scale = add_initializer(model.graph, "bias_s", np.full(16, 0.01, np.float32))
    dequantize = ir.node("DequantizeLinear", [bias, scale], {"axis": 0})
    dequantize.outputs[0].name = "bias_dq"
    model.graph.insert_before(node, dequantize)
    node.replace_input_with(2, dequantize.outputs[0])


def vector_scale(model: ir.Model) -> None:
    set_input(model, activation_pair(model, conv(model, "c")), 1, np.array([0.1], np.float32))


def channel_scale(model: ir.Model) -> None:
    pair = activation_pair(model, conv(model, "c"))
    set_input(model, pair, 1, np.full(16, 0.1, np.float32))
    set_input(model, pair, 2, np.zeros(16, np.int8))


def weight_axis(model: ir.Model) -> None:
    weight = conv(model, "c").inputs[1].producer()
    assert weight is not None
    weight.attributes["axis"] = ir.AttrInt64("axis", 1)


def relu_behind_dequantize(model: ir.Model) -> None:
    node = conv(model, "c")
    relu = ir.node("Relu", [node.inputs[0]])
    relu.outputs[0].name = "late"
    model.graph.insert_before(node, relu)
    node.replace_input_with(0, relu.outputs[0])


def convolution_branch(model: ir.Model) -> None:
    node = first(model, "Add")
    index = next(i for i, v in enumerate(node.inputs) if v is not None and v.name == "c")
    scale = add_initializer(model.graph, "branch_s", np.array(0.1, np.float32))
    zero = add_initializer(model.graph, "branch_z", np.array(0, np.int8))
    quantize = ir.node("QuantizeLinear", [node.inputs[index], scale, zero])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero])
    quantize.outputs[0].name, dequantize.outputs[0].name = "branch_q", "branch_dq"
    model.graph.insert_before(node, [quantize, dequantize])
    node.replace_input_with(index, dequantize.outputs[0])


def computed_scale(model: ir.Model) -> None:
    pair = activation_pair(model, conv(model, "a"))
    largest = ir.node("ReduceMax", [model.graph.inputs[0]], {"keepdims": 0})
    largest.outputs[0].name = "largest"
    model.graph.insert_before(pair[0], largest)
    for node in pair:
        node.replace_input_with(1, largest.outputs[0])


def half_quantized(model: ir.Model) -> None:
    node = conv(model, "c")
    quantize, _ = activation_pair(model, node)
    node.replace_input_with(0, quantize.inputs[0])


def infinite_scale(model: ir.Model) -> None:
    set_input(model, activation_pair(model, conv(model, "c")), 1, np.array(np.inf, np.float32))


def integer_operator(model: ir.Model) -> None:
    node = conv(model, "a")
    source = model.graph.inputs[0]
    dynamic = ir.Node("", "DynamicQuantizeLinear", [source], num_outputs=3)
    for index, output in enumerate(dynamic.outputs):
        output.name = f"dynamic{index}"
    model.graph.insert_before(node, dynamic)


def cast_behind_dequantize(model: ir.Model) -> None:
    node = conv(model, "c")
    cast = ir.node("Cast", [node.inputs[0]], {"to": 1})
    cast.outputs[0].name = "cast"
    model.graph.insert_before(node, cast)
    node.replace_input_with(0, cast.outputs[0])


@pytest.mark.parametrize(
    ("plant", "rule", "effect", "said"),
    [
        (uint8_activations, "quantized-type-is-int8", "wrong", "UINT8, which is read as INT8"),
        (zero_point, "zero-point-is-zero", "refused", "quantize symmetrically"),
        (int32_bias, "quantized-type-is-int8", "refused", "INT32 bias"),
        (vector_scale, "scale-is-constant", "float", "of shape [1]; make it a scalar"),
        (channel_scale, "scale-is-constant", "float", "per channel, which only weights may have"),
        (weight_axis, "weight-axis-is-output-channel", "float", "axis 1; int8 kernels take them along axis 0"),
        (
            relu_behind_dequantize,
            "operand-is-quantized-directly",
            "float",
            "Relu stands between DequantizeLinear and Conv",
        ),
        (cast_behind_dequantize, "operand-is-quantized-directly", "float", "Cast stands between"),
        (convolution_branch, "convolution-branch-of-add-stays-float", "slower", "quantize the skip branch instead"),
        (computed_scale, "scale-is-constant", "refused", "the scale is computed, which crashes the parser"),
        (infinite_scale, "scale-is-constant", "refused", "not positive and finite"),
        (half_quantized, "both-operands-are-quantized", "float", "an int8 weight and a float input"),
        (integer_operator, "operator-is-imported", "refused", "the parser has no DynamicQuantizeLinear"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_tensorrt(plant: Callable[[ir.Model], None], rule: str, effect: str, said: str) -> None:
    model = sound(TensorRtTarget())
    plant(model)
    findings = [f for f in TensorRtTarget().lint(model) if f.rule == rule]
    assert findings and {f.effect for f in findings} == {effect}
    assert all(said in f.message for f in findings), findings
    assert {f.rule for f in TensorRtTarget().lint(model)} == {rule}


def test_inputs_that_engines_do_not_have() -> None:
    model = pass_kit.parse("g (uint16[4] x) => (float[4] y) { y = Cast<to=1>(x) }", {})
    (finding,) = TensorRtTarget().lint(model)
    assert (finding.rule, finding.node, finding.effect) == ("input-type-is-known", "x", "refused")


def test_concat_of_different_scales() -> None:
    graph = """g (float[1,16,8,8] x, float[1,16,8,8] z) => (float[1,16,8,8] y) {
      xq = QuantizeLinear(x, s1, p) xd = DequantizeLinear(xq, s1, p)
      zq = QuantizeLinear(z, s2, p) zd = DequantizeLinear(zq, s2, p)
      c = Concat<axis=1>(xd, zd)
      y = Conv<pads=[1,1,1,1]>(c, w) }"""
    zero = np.array(0, np.int8)
    scales = {"s1": np.array(0.1, np.float32), "s2": np.array(0.2, np.float32), "p": zero}
    model = pass_kit.parse(graph, {"w": (16, 32, 3, 3), **scales})
    assert [f.rule for f in TensorRtTarget().lint(model)] == ["concat-shares-scale"]
    same = pass_kit.parse(graph, {"w": (16, 32, 3, 3), **scales, "s2": np.array(0.1, np.float32)})
    assert TensorRtTarget().lint(same) == []


@pytest.mark.parametrize("plant", [half_quantized, relu_behind_dequantize], ids=lambda value: value.__name__)
def test_what_was_planted_for_one_target_is_judged_by_the_rules_of_the_other(plant: Callable[[ir.Model], None]) -> None:
    model = sound(OrtTarget())
    plant(model)
    assert all(finding.rule in {rule.name for rule in OrtTarget().rules} for finding in OrtTarget().lint(model))


def test_pairs_that_nothing_integer_reads_on_ort() -> None:
    graph = """g (float[4,8] x) => (float[4,8] y) {
      t = Tanh(x) q = QuantizeLinear(t, s, p) d = DequantizeLinear(q, s, p) y = Erf(d) }"""
    model = pass_kit.parse(graph, {"s": np.array(0.1, np.float32), "p": np.array(128, np.uint8)})
    (finding,) = OrtTarget().lint(model)
    assert (finding.rule, finding.effect) == ("pair-feeds-an-integer-kernel", "slower")
    assert "only feeds Erf in float; remove it" in finding.message


@pytest.mark.parametrize("target", [OrtTarget(), TensorRtTarget()], ids=str)
def test_every_rule_says_what_breaking_it_leads_to(target: Target) -> None:
    assert all(rule.effect in EFFECTS and rule.summary.endswith(".") for rule in target.rules)
