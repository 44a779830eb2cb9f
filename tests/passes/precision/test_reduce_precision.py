"""Operators and weights in float16, float32 borders: types, Casts, and what must stay float32 whatever the data."""

from __future__ import annotations

import half_kit
import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from half_kit import assert_agrees, casts, dtypes, reduced, skipped, weight_types

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.pass_base import Context
from irc.passes.precision.number_format import LAZY_BYTES
from irc.passes.precision.reduce_precision import UNCHECKED, ReducePrecision
from irc.testing import assert_conforms

MLP = """g (float[N,16] x) => (float[N,4] y) { a = MatMul(x, w) b = Add(a, c) r = Relu(b) y = Gemm(r, v, d) }"""
MLP_WEIGHTS = {"w": (16, 8), "c": (8,), "v": (8, 4), "d": (4,)}
BORDER = [("FLOAT", "FLOAT16"), ("FLOAT16", "FLOAT")]


def mlp() -> ir.Model:
    return pass_kit.parse(MLP, MLP_WEIGHTS)


def test_weights_and_operators_are_narrow_and_only_the_border_has_casts():
    model = mlp()
    outcome = reduced(model)
    assert outcome.rewritten == ["a", "b", "r", "y"] and skipped(outcome) == {}
    assert pass_kit.op_types(outcome.model) == ["Cast", "MatMul", "Add", "Relu", "Gemm", "Cast"]
    assert casts(outcome.model) == BORDER and weight_types(outcome.model) == {"FLOAT16": 4}
    types = dtypes(outcome.model)
    assert types["x"] == types["y"] == "FLOAT" and types["a"] == types["r"] == "FLOAT16"
    assert_agrees(model, outcome, [pass_kit.feeds(model, seed=s) for s in range(3)])


@pytest.mark.parametrize("build", [mlp, int8_kit.block, int8_kit.text])
def test_it_keeps_the_promises_of_a_pass(build):
    assert_conforms(ReducePrecision(), build(), must_fire=True)


@pytest.mark.parametrize("build", [int8_kit.block, int8_kit.text])
def test_a_network_is_halved_and_agrees(build):
    model = build()
    feeds = [pass_kit.feeds(model, seed=s) for s in range(2)]
    outcome = reduced(model, feeds=feeds)
    assert skipped(outcome) == {} and set(weight_types(outcome.model)) == {"FLOAT16"}
    assert_agrees(model, outcome, feeds)


def test_without_data_the_ledger_says_that_ranges_were_not_checked():
    assert UNCHECKED in reduced(mlp()).skipped.values()
    assert UNCHECKED not in reduced(mlp(), feeds=[pass_kit.feeds(mlp())]).skipped.values()


@pytest.mark.parametrize("denied", [{"b"}, {"b", "r"}, {"a", "b", "r", "y"}])
def test_sites_that_are_denied_stay_float_and_share_no_casts_between_them(denied):
    model = mlp()
    outcome = reduced(model, deny=denied.__contains__)
    types = dtypes(outcome.model)
    assert {name for name in ("a", "b", "r") if types[name] == "FLOAT"} == denied - {"y"}
    islands = 0 if len(denied) == 4 else 4
    assert len(casts(outcome.model)) == islands
    assert_agrees(model, outcome, [pass_kit.feeds(model)])


def test_what_only_moves_data_between_float_operators_stays_float():
    text = """g (float[2,8] x) => (float[2,8] y) {
      h = Tanh(x) a = Sigmoid(h) t = Transpose<perm=[1,0]>(a) u = Transpose<perm=[1,0]>(t) b = Sigmoid(u) y = Tanh(b) }"""
    model = pass_kit.parse(text, {})
    outcome = reduced(model, deny={"a", "b"}.__contains__)
    assert outcome.rewritten == ["h", "y"]
    assert skipped(outcome) | {"a": "", "b": ""} == {
        "a": "",
        "b": "",
        "t": "what it moves is float32",
        "u": "what it moves is float32",
    }
    assert len(casts(outcome.model)) == 4


def test_a_shared_weight_is_stored_once_and_twice_where_a_float_operator_reads_it():
    text = "g (float[2,8] x) => (float[2,8] y) { a = MatMul(x, w) b = Tanh(a) y = MatMul(b, w) }"
    model = pass_kit.parse(text, {"w": (8, 8)})
    assert weight_types(reduced(model).model) == {"FLOAT16": 1}
    assert weight_types(reduced(model, deny={"a"}.__contains__).model) == {"FLOAT16": 1, "FLOAT": 1}


def test_an_initializer_that_callers_may_override_stays_and_is_cast():
    text = "g (float[2,8] x, float[8,8] w) => (float[2,8] y) { y = MatMul(x, w) }"
    model = pass_kit.parse(text, {"w": (8, 8)})
    outcome = reduced(model)
    assert dtypes(outcome.model)["w"] == "FLOAT" and len(casts(outcome.model)) == 3
    feed = {**pass_kit.feeds(model), "w": np.eye(8, dtype=np.float32)}
    assert_agrees(model, outcome, [pass_kit.feeds(model), feed])


def test_outputs_that_are_read_on_are_cast_once():
    text = "g (float[2,8] x) => (float[2,8] h, float[2,8] y) { h = Tanh(x) a = Sigmoid(h) y = Add(a, h) }"
    model = pass_kit.parse(text, {})
    outcome = reduced(model)
    assert casts(outcome.model) == [BORDER[0], BORDER[1], BORDER[1]]
    assert_agrees(model, outcome, [pass_kit.feeds(model)])


def test_a_weight_that_is_an_output_keeps_its_type():
    text = "g (float[2,8] x) => (float[2,8] y, float[8,8] w) { y = MatMul(x, w) }"
    model = pass_kit.parse(text, {"w": (8, 8)})
    outcome = reduced(model)
    assert dtypes(outcome.model)["w"] == "FLOAT"
    assert_agrees(model, outcome, [pass_kit.feeds(model)])


def test_region_and_scales_of_a_resize_stay_float():
    text = 'g (float[1,2,4,4] x) => (float[1,2,8,8] y) { y = Resize<mode="linear">(x, roi, scales) }'
    weights = {"roi": np.zeros(8, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    model = pass_kit.parse(text, weights)
    outcome = reduced(model)
    assert outcome.rewritten == ["y"] and weight_types(outcome.model) == {"FLOAT": 2}
    assert_agrees(model, outcome, [pass_kit.feeds(model)])


@pytest.mark.parametrize(
    "node",
    ["ConstantOfShape<value = float[1] {2.5}>(shape)", "ConstantOfShape(shape)", "Cast<to=1>(ids)", "Expand(k, shape)"],
)
def test_what_makes_a_type_by_itself_makes_float16(node):
    text = (
        f"g (float[2,3] x, int64[2,3] ids, int64[2] shape) => (float[a,b] y) {{ f = {node} t = Tanh(x) y = Add(t, f) }}"
    )
    model = pass_kit.parse(text, {"k": np.array([1.5], np.float32)})
    outcome = reduced(model)
    assert dtypes(outcome.model)["f"] == "FLOAT16" and casts(outcome.model) == BORDER
    feed = {**pass_kit.feeds(model), "shape": np.array([2, 3], np.int64)}
    assert_agrees(model, outcome, [feed])


def test_eye_like_is_narrow_unless_the_target_cannot_run_it():
    model = pass_kit.parse(
        "g (float[4,4] x) => (float[4,4] y) { e = EyeLike<dtype=1>(x) t = Tanh(x) y = Mul(e, t) }", {}
    )
    narrow = reduced(model, ctx=half_kit.context(target=TensorRtTarget()))
    assert dtypes(narrow.model)["e"] == "FLOAT16"
    kept = reduced(model, ctx=half_kit.context(target=OrtTarget()))
    assert dtypes(kept.model)["e"] == "FLOAT" and "no float16 kernel for EyeLike" in skipped(kept)["e"]
    assert_agrees(model, kept, [pass_kit.feeds(model)])


def test_positions_and_angles_stay_float():
    text = """g (float[1,6,4] x, int64[6] ids) => (float[1,6,4] y, int64[6] at) {
      p = Cast<to=1>(ids) c = Unsqueeze(p, one) a = Mul(c, frequencies) s = Sin(a)
      half = Mul(p, scale) low = Floor(half) at = Cast<to=7>(low)
      t = Tanh(x) y = Add(t, s)
    }"""
    weights = {
        "one": np.array([1], np.int64), "frequencies": np.array([1, 0.1, 0.01, 1e-3], np.float32),
        "scale": np.array(0.5, np.float32),
    }  # fmt: skip
    model = pass_kit.parse(text, weights)
    outcome = reduced(model)
    assert outcome.rewritten == ["t", "y"]
    assert set(skipped(outcome)) == {"p", "c", "a", "s", "half", "low", "at"}
    feed = {**pass_kit.feeds(model), "ids": np.array([0, 1, 2049, 4097, 9001, 30001], np.int64)}
    assert_agrees(model, outcome, [feed])


def test_a_range_of_floats_and_what_is_compared_with_it_stays_float():
    text = """g (float[8] x, float n) => (float[8] y) {
      r = Range(zero, n, step) early = Less(r, limit) t = Tanh(x) y = Where(early, t, x) }"""
    weights = {"zero": np.float32(0), "step": np.float32(1), "limit": np.float32(4)}
    model = pass_kit.parse(text, weights)
    outcome = reduced(model)
    assert {"r", "early"} <= set(skipped(outcome)) and "t" in outcome.rewritten
    assert_agrees(model, outcome, [{**pass_kit.feeds(model), "n": np.array(8, np.float32)}])


def test_random_numbers_stay_float():
    text = "g (float[4] x) => (float[4] y) { n = RandomNormalLike<seed = 1.0>(x) t = Tanh(x) y = Mul(n, t) }"
    outcome = reduced(pass_kit.parse(text, {}))
    assert "n" in skipped(outcome) and dtypes(outcome.model)["n"] == "FLOAT"


MASKS = {
    "added": "m = Cast<to=1>(keep) q = Sub(one, m) mask = Mul(q, low) s = Add(scores, mask) y = Softmax(s)",
    "chosen": "k = Cast<to=9>(keep) s = Where(k, scores, low) y = Softmax(s)",
    "filled": "k = Cast<to=9>(keep) f = Expand(low, shape) g0 = Where(k, zero, f) s = Add(scores, g0) y = Softmax(s)",
}


@pytest.mark.parametrize("spelling", MASKS)
@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("low", [-3.4028235e38, -1e9, -np.inf])
def test_masks_of_a_softmax_are_narrow_and_finite(spelling, with_data, low):
    if spelling == "added" and np.isinf(low):
        pytest.skip("0 times infinity is NaN in float32 too")
    text = f"g (float[2,6] x, int64[2,6] keep) => (float[2,6] y) {{ scores = Mul(x, ten) {MASKS[spelling]} }}"
    weights = {
        "one": np.float32(1), "ten": np.float32(10), "zero": np.float32(0), "low": np.float32(low),
        "shape": np.array([2, 6], np.int64),
    }  # fmt: skip
    model = pass_kit.parse(text, weights)
    keep = np.array([[1, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0]], np.int64)
    feeds = [{**pass_kit.feeds(model, seed=s), "keep": keep} for s in range(2)]
    outcome = reduced(model, feeds=feeds if with_data else None)
    assert skipped(outcome) == {} and casts(outcome.model) == BORDER
    assert_agrees(model, outcome, feeds, limit=2e-2)
    if low == -np.inf:
        assert any(np.isneginf(v.const_value.numpy()).all() for v in outcome.model.graph.initializers.values())
        return
    nothing = {**feeds[0], "keep": np.zeros((2, 6), np.int64)}
    assert np.isfinite(pass_kit.run(outcome.model, nothing)[0]).all()


def test_the_same_constant_outside_of_a_mask_keeps_its_operator_float():
    text = "g (float[2,6] x) => (float[2,6] y) { a = Tanh(x) b = Max(a, low) y = Sigmoid(b) }"
    model = pass_kit.parse(text, {"low": np.float32(-3.4e38)})
    outcome = reduced(model)
    assert skipped(outcome) == {"b": "its constant reaches 3.4e+38; float16 holds 65504"}
    assert_agrees(model, outcome, [pass_kit.feeds(model)])


NORMALIZATION = """g (float[2,8] x) => (float[2,8] y) {
  mean = ReduceMean<axes=[-1]>(x) d = Sub(x, mean) q = Mul(d, d) v = ReduceMean<axes=[-1]>(q)
  e = Add(v, epsilon) r = Sqrt(e) y = Div(d, r) }"""


@pytest.mark.parametrize(("epsilon", "kept"), [(1e-12, {"e", "r", "y"}), (1e-5, set()), (1e-6, set())])
def test_an_epsilon_that_float16_does_not_hold_keeps_the_division_float(epsilon, kept):
    model = pass_kit.parse(NORMALIZATION, {"epsilon": np.float32(epsilon)})
    outcome = reduced(model)
    assert set(skipped(outcome)) == kept
    constant_row = {"x": np.array([[3.0] * 8, list(range(8))], np.float32)}
    assert_agrees(model, outcome, [constant_row, pass_kit.feeds(model)])


def test_data_that_stays_away_from_zero_needs_no_epsilon():
    model = pass_kit.parse(NORMALIZATION, {"epsilon": np.float32(1e-12)})
    outcome = reduced(model, feeds=[pass_kit.feeds(model)])
    assert set(skipped(outcome)) == {"e"}


def test_weights_that_float16_flushes_to_zero_stay_float():
    text = "g (float[2,8] x) => (float[2,8] y) { a = MatMul(x, w) y = Mul(a, big) }"
    w = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32) * 1e-7
    model = pass_kit.parse(text, {"w": w, "big": np.float32(1e4)})
    outcome = reduced(model)
    assert "loses" in skipped(outcome)["a"]
    assert_agrees(model, outcome, [pass_kit.feeds(model)])


def test_quantized_parts_stay_as_they_are():
    model = int8_kit.block()
    feeds = [pass_kit.feeds(model)]
    quantized = int8_kit.quantize(model, feeds=feeds).model
    outcome = reduced(quantized)
    kinds = {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm"}
    assert not any(
        node.op_type in kinds and node.outputs[0].dtype == ir.DataType.FLOAT16 for node in outcome.model.graph
    )
    assert_agrees(quantized, outcome, feeds, limit=2e-2)


def test_float16_and_double_models_are_left_alone():
    for dtype in ("float16", "double"):
        text = f"g ({dtype}[2,8] x) => ({dtype}[2,8] y) {{ a = Tanh(x) y = MatMul(a, w) }}"
        model = pass_kit.parse(text, {"w": np.eye(8, dtype="f2" if dtype == "float16" else "f8")})
        assert pass_kit.assert_untouched(ReducePrecision(), model) == {}


def test_casts_of_a_model_that_is_partly_narrow_are_taken_up():
    text = """g (float[2,8] x) => (float[2,8] y) {
      a = Tanh(x) h = Cast<to=10>(a) b = Sigmoid(h) f = Cast<to=1>(b) y = Tanh(f) }"""
    model = pass_kit.parse(text, {})
    outcome = reduced(model)
    assert casts(outcome.model) == BORDER
    assert_agrees(model, outcome, [pass_kit.feeds(model)])


def test_a_cast_to_double_keeps_its_operand_and_result():
    text = "g (float[2,8] x) => (double[2,8] y) { a = Tanh(x) d = Cast<to=11>(a) y = Add(d, d) }"
    model = pass_kit.parse(text, {})
    outcome = reduced(model)
    assert dtypes(outcome.model)["d"] == dtypes(outcome.model)["y"] == "DOUBLE"
    assert_agrees(model, outcome, [pass_kit.feeds(model)])


def test_operators_of_other_domains_and_sequences_stay_float():
    text = """g (float[2,8] x) => (float[2,8] y) {
      a = Tanh(x) s = SequenceConstruct(a, x) b = SequenceAt(s, zero) y = Sigmoid(b) }"""
    model = pass_kit.parse(text, {"zero": np.array(0, np.int64)})
    outcome = reduced(model)
    assert outcome.rewritten == ["a", "y"]
    assert skipped(outcome)["s"] == "it takes or gives a sequence or an optional value"
    assert_agrees(model, outcome, [pass_kit.feeds(model)])


def test_large_weights_are_converted_when_they_are_written():
    model = pass_kit.parse("g (float[1,1024] x) => (float[1,1024] y) { y = MatMul(x, w) }", {"w": (1024, 1024)})
    assert model.graph.initializers["w"].const_value.nbytes > LAZY_BYTES
    outcome = reduced(model)
    (stored,) = (v.const_value for v in outcome.model.graph.initializers.values())
    assert isinstance(stored, ir.LazyTensor) and stored.dtype == ir.DataType.FLOAT16
    expected = pass_kit.weight(model, "w").astype(np.float16)
    np.testing.assert_array_equal(stored.numpy(), expected)


@pytest.mark.parametrize("headroom", [0.5, 5000.0])
def test_headroom_is_checked(headroom):
    with pytest.raises(ValueError, match="headroom"):
        ReducePrecision(headroom=headroom)


def test_without_data_there_is_no_ranking():
    assert ReducePrecision().site_errors(mlp(), mlp(), ["a"], Context()) is None
