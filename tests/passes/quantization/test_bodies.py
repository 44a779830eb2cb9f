"""int8 in the bodies of If, Loop and Scan: calibrated there, integer there, shared with the graph around them."""

from __future__ import annotations

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest

from irc.backends.tensorrt import TensorRtTarget
from irc.calibration import FeedList, Sample
from irc.ir import bodies
from irc.passes.quantization.local_error import local_errors
from irc.passes.quantization.quantize_dynamic import QuantizeDynamic
from irc.passes.quantization.quantize_weights import QuantizeWeights
from irc.runner import Runner

LIMIT = 5e-3
BRANCHES = """g (bool c, float[2,32] x) => (float[2,8] y) {
  h = Tanh(x)
  y = If(c) <then_branch = a () => (float[2,8] t) { t = MatMul(h, w) },
             else_branch = b () => (float[2,8] e) { e = MatMul(h, v) }>
}"""
BRANCH_WEIGHTS = {"w": (32, 8), "v": (32, 8)}
LOOP = """g (int64 n, bool c, float[2,32] x) => (float[2,32] y, float[k,2,32] ys) {
  y, ys = Loop(n, c, x) <body = b (int64 i, bool go, float[2,32] s) => (bool more, float[2,32] next, float[2,32] each) {
    more = Identity(go) p = MatMul(s, w) next = Tanh(p) each = Gemm(next, v, d) }>
}"""
LOOP_WEIGHTS = {"w": (32, 32), "v": (32, 32), "d": (32,)}
SCAN = """g (float[2,32] x, float[4,2,32] xs) => (float[2,32] y, float[4,2,32] ys) {
  y, ys = Scan<num_scan_inputs=1, body = b (float[2,32] s, float[2,32] z) => (float[2,32] next, float[2,32] each) {
    a = Add(s, z) p = MatMul(a, w) next = Tanh(p) each = MatMul(z, v) }>(x, xs)
}"""
CONVOLUTIONS = """g (bool c, float[1,16,8,8] x) => (float[1,16,8,8] y) {
  c0 = Conv<pads=[1,1,1,1]>(x, w)
  r0 = Relu(c0)
  y = If(c) <then_branch = a () => (float[1,16,8,8] t) {
               c1 = Conv<pads=[1,1,1,1]>(r0, w) r1 = Relu(c1) t1 = Add(r1, r0) c2 = Conv<pads=[1,1,1,1]>(t1, v)
               t = Add(c2, t1) },
             else_branch = b () => (float[1,16,8,8] e) { e = Conv<pads=[1,1,1,1]>(r0, v) }>
}"""
NESTED = """g (int64 n, bool c, float[2,32] x) => (float[2,32] y) {
  y = Loop(n, c, x) <body = b (int64 i, bool go, float[2,32] s) => (bool more, float[2,32] next) {
    more = Identity(go) one = Constant<value = int64 {1}>() first = Less(i, one) m = MatMul(x, w)
    next = If(first) <then_branch = t () => (float[2,32] p) { p0 = MatMul(s, w) p = Tanh(p0) },
                      else_branch = e () => (float[2,32] r) { r0 = MatMul(x, w) r1 = Add(r0, m) r = Tanh(r1) }> }>
}"""


def feeds(model, **fixed):
    """Four feeds; conditions and counts as given, or both conditions in turn."""
    found = []
    for seed in range(4):
        feed = pass_kit.feeds(model, seed=seed)
        feed |= {name: np.array(seed % 2 == 0) for name in ("c",) if name in feed}
        found.append(feed | {name: np.asarray(value) for name, value in fixed.items()})
    return found


def quantized(model, samples, **options):
    """The outcome, applied twice to see that the second time nothing is left."""
    outcome = int8_kit.quantize(model, feeds=samples, **options)
    again = int8_kit.quantize(outcome.model, feeds=samples, **{k: v for k, v in options.items() if k != "deny"})
    if "deny" not in options:
        assert again.rewritten == []
    for feed in samples:
        assert int8_kit.noise(model, outcome.model, feed) < LIMIT
    return outcome


def body_of(model, *path):
    """A body, by (node type, attribute name) from the main graph inwards."""
    graph = model.graph
    for op_type, attribute in path:
        node = next(n for n in graph if n.op_type == op_type)
        graph = node.attributes[attribute].as_graph()
    return graph


def test_both_branches_of_an_if_are_integer_and_share_the_quantizer_of_what_they_read(tmp_path):
    model = pass_kit.parse(BRANCHES, BRANCH_WEIGHTS)
    outcome = quantized(model, feeds(model))
    assert outcome.rewritten == ["t", "e"] and outcome.skipped == {}
    assert [n.op_type for n in outcome.model.graph] == ["Tanh", "QuantizeLinear", "If"]
    found = int8_kit.runtime_operators(outcome.model, tmp_path)
    assert found["MatMulIntegerToFloat"] == 2 and found["QuantizeLinear"] == 1 and "DequantizeLinear" not in found


def test_branch_that_no_sample_ran_says_so_and_is_stored_by_weights():
    model = pass_kit.parse(BRANCHES, BRANCH_WEIGHTS)
    own = pass_kit.parse(BRANCHES.replace("{ e = MatMul(h, v) }", "{ q = Neg(h) e = MatMul(q, v) }"), BRANCH_WEIGHTS)
    outcome = int8_kit.quantize(own, feeds=feeds(model, c=True))
    assert outcome.rewritten == ["t"]
    assert outcome.skipped == {"e": "'q' has no calibrated range: no sample ran the body it is in"}
    stored = int8_kit.quantize(outcome.model, pass_=QuantizeWeights(min_elements=64, rest=True))
    assert stored.rewritten == ["e"] and int8_kit.noise(own, stored.model, feeds(model, c=False)[0]) < 1e-3


@pytest.mark.parametrize("rounds", [1, 3])
def test_loop_is_integer_and_its_weights_stay_outside(rounds, tmp_path):
    model = pass_kit.parse(LOOP, LOOP_WEIGHTS)
    outcome = quantized(model, feeds(model, n=rounds, c=True))
    assert outcome.rewritten == ["p", "each"]
    body = body_of(outcome.model, ("Loop", "body"))
    assert {v.dtype for v in outcome.model.graph.initializers.values() if len(v.shape) == 2} == {ir.DataType.INT8}
    assert not body.initializers
    found = int8_kit.runtime_operators(outcome.model, tmp_path)
    assert found["MatMulIntegerToFloat"] == 1 and found["QGemm"] == 1


def test_loop_that_never_ran_is_left_alone():
    model = pass_kit.parse(LOOP, LOOP_WEIGHTS)
    outcome = int8_kit.quantize(model, feeds=feeds(model, n=0, c=True))
    assert outcome.rewritten == [] and set(outcome.skipped) == {"p", "each"}
    assert all("no sample ran the body" in reason for reason in outcome.skipped.values())


def test_scan_is_integer(tmp_path):
    model = pass_kit.parse(SCAN, {"w": (32, 32), "v": (32, 32)})
    outcome = quantized(model, feeds(model))
    assert outcome.rewritten == ["p", "each"]
    assert int8_kit.runtime_operators(outcome.model, tmp_path)["MatMulIntegerToFloat"] == 2


def test_convolutions_in_a_body_join_as_outside(tmp_path):
    model = pass_kit.parse(CONVOLUTIONS, {"w": (16, 16, 3, 3), "v": (16, 16, 3, 3)})
    outcome = quantized(model, feeds(model))
    assert outcome.rewritten == ["c0", "c1", "t1", "c2", "e"]
    found = int8_kit.runtime_operators(outcome.model, tmp_path)
    assert found["QLinearConv"] == 4 and found["QLinearAdd"] == 1 and "Conv" not in found
    weights = [v for v in outcome.model.graph.initializers.values() if len(v.shape) == 4]
    assert [v.dtype for v in weights] == [ir.DataType.INT8] * 2, "shared between the main graph and the bodies"


def test_body_in_a_body_and_values_of_every_scope():
    model = pass_kit.parse(NESTED, {"w": (32, 32)})
    outcome = quantized(model, feeds(model, n=3, c=True))
    assert outcome.rewritten == ["m", "p0", "r0"]
    quantizers = [n for n in outcome.model.graph.all_nodes() if n.op_type == "QuantizeLinear"]
    assert sorted(n.inputs[0].name for n in quantizers) == ["s", "x"], "x once, however many bodies read it"
    inner = body_of(outcome.model, ("Loop", "body"), ("If", "then_branch"))
    assert [n.op_type for n in inner] == ["DequantizeLinear", "DequantizeLinear", "MatMul", "Tanh"]


def test_weights_that_a_body_holds_stay_in_it():
    model = pass_kit.parse(BRANCHES, BRANCH_WEIGHTS)
    branch = next(b for node in model.graph for b in bodies(node))
    tensor = model.graph.initializers["w"].const_value
    inner = ir.Value(name="held", type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
    branch.register_initializer(inner)
    branch[0].replace_input_with(1, inner)
    outcome = quantized(model, feeds(model))
    held = body_of(outcome.model, ("If", "then_branch")).initializers
    assert [v.dtype for v in held.values()] == [ir.DataType.INT8]


@pytest.mark.parametrize("denied", ["p", "each"])
def test_denied_site_in_a_body_stays_float(denied):
    model = pass_kit.parse(LOOP, LOOP_WEIGHTS)
    outcome = quantized(model, feeds(model, n=2, c=True), deny=lambda site: site == denied)
    assert len(outcome.rewritten) == 1 and denied not in outcome.rewritten
    node = next(n for n in body_of(outcome.model, ("Loop", "body")) if denied in [o.name for o in n.outputs])
    assert node.op_type in ("MatMul", "Gemm")
    assert {v.producer() and v.producer().op_type for v in node.inputs[1:]} == {None}


def test_lookup_in_a_body():
    graph = """g (bool c, int64[3] ids) => (float[3,32] y) {
      y = If(c) <then_branch = a () => (float[3,32] t) { t = Gather(table, ids) },
                 else_branch = b () => (float[3,32] e) { g = Gather(table, ids) e = Neg(g) }> }"""
    model = pass_kit.parse(graph, {"table": (50, 32)})
    assert quantized(model, feeds(model)).rewritten == ["t", "g"]


def test_other_targets_place_in_bodies_too():
    model = pass_kit.parse(CONVOLUTIONS, {"w": (16, 16, 3, 3), "v": (16, 16, 3, 3)})
    assert set(quantized(model, feeds(model), target=TensorRtTarget()).rewritten) >= {"c0", "c1", "c2", "e"}


@pytest.mark.parametrize("form", ["folded", "dequantized"])
def test_weights_of_bodies_are_stored_outside_them_once(form, tmp_path):
    model = pass_kit.parse(NESTED, {"w": (32, 32)})
    outcome = int8_kit.quantize(model, pass_=QuantizeWeights(form=form, min_elements=64))
    assert outcome.rewritten == ["m", "p0", "r0"]
    assert int8_kit.operators(outcome.model)["Mul" if form == "folded" else "DequantizeLinear"] == 1
    assert "w" not in outcome.model.graph.initializers
    if form == "folded":
        found = int8_kit.runtime_operators(outcome.model, tmp_path)
        assert found == int8_kit.runtime_operators(model, tmp_path), "multiplied when the model is loaded"
    feed = feeds(model, n=3, c=True)[0]
    assert 0 < int8_kit.noise(model, outcome.model, feed) < 1e-3


def test_dynamic_products_in_bodies(tmp_path):
    model = pass_kit.parse(NESTED, {"w": (32, 32)})
    outcome = int8_kit.quantize(model, pass_=QuantizeDynamic())
    assert outcome.rewritten == ["m", "p0", "r0"]
    dynamic = [n.inputs[0].name for n in outcome.model.graph.all_nodes() if n.op_type == "DynamicQuantizeLinear"]
    assert sorted(dynamic) == ["s", "x"]
    found = int8_kit.runtime_operators(outcome.model, tmp_path)
    assert found["DynamicQuantizeMatMul"] + found["MatMulIntegerToFloat"] == 3
    assert int8_kit.noise(model, outcome.model, feeds(model, n=3, c=True)[0]) < LIMIT


def test_local_errors_of_sites_in_bodies():
    model = pass_kit.parse(NESTED, {"w": (32, 32)})
    samples = feeds(model, n=3, c=True)
    outcome = int8_kit.quantize(model, feeds=samples)
    source = FeedList([Sample(feed, {}, f"{i}.npz") for i, feed in enumerate(samples)])
    with Runner(threads=1) as runner:
        errors = local_errors(runner, model, outcome.model, outcome.rewritten, source)
    assert set(errors) == {"m", "p0", "r0"}
    assert all(0 < error < LIMIT for error in errors.values())
    assert errors["m"] == pytest.approx(errors["r0"], rel=1e-6), "the same product in two scopes"
