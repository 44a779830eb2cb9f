"""What the data says: values beyond the format keep their operators in float32, with the figure; and decisions are kept."""

from __future__ import annotations

import half_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from half_kit import assert_agrees, casts, dtypes, reduced, skipped
from onnx.reference import ReferenceEvaluator

from irc.decisions import Decisions
from irc.passes.precision.reduce_precision import ReducePrecision

LOUD = """g (float[2,16] x) => (float[2,4] y) {
  a = MatMul(x, w) q = Mul(a, a) b = Mul(q, gain) r = Sqrt(b) s = Mul(r, small) y = MatMul(s, v) }"""


def loud():
    weights = {"w": (16, 8), "gain": np.float32(2e4), "small": np.float32(1e-2), "v": (8, 4)}
    model = pass_kit.parse(LOUD, weights)
    return model, [pass_kit.feeds(model, seed=s) for s in range(4)]


def test_values_beyond_float16_keep_their_operators_float_and_the_ledger_has_the_figure():
    model, feeds = loud()
    outcome = reduced(model, feeds=feeds)
    assert set(skipped(outcome)) == {"b", "r"} and outcome.rewritten == ["a", "q", "s", "y"]
    assert (
        "'b' reaches" in skipped(outcome)["b"] and "float16 holds 65504, 32752 with headroom" in skipped(outcome)["b"]
    )
    assert dtypes(outcome.model)["b"] == "FLOAT" and len(casts(outcome.model)) == 4
    assert_agrees(model, outcome, feeds)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_without_data_the_same_model_overflows():
    """Where float16 is computed in float16; ONNX Runtime's CPU provider computes most of it in float32."""
    model, feeds = loud()
    unchecked, checked = reduced(model), reduced(model, feeds=feeds)
    assert skipped(unchecked) == {}
    assert not np.isfinite(ReferenceEvaluator(ir.to_proto(unchecked.model)).run(None, feeds[0])[0]).any()
    (found,) = ReferenceEvaluator(ir.to_proto(checked.model)).run(None, feeds[0])
    (expected,) = pass_kit.run(model, feeds[0])
    np.testing.assert_allclose(found, expected, atol=5e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("headroom", "kept"), [(1.0, set()), (4.0, {"b", "y"})])
def test_headroom_is_what_values_may_still_grow_by(headroom, kept):
    model = pass_kit.parse(
        "g (float[1,4] x) => (float[1,4] y) { a = Tanh(x) b = Mul(a, k) y = Neg(b) }", {"k": np.float32(30000)}
    )
    feeds = [{"x": np.full((1, 4), 20.0, np.float32)}]
    outcome = reduced(model, feeds=feeds, pass_=ReducePrecision(headroom=headroom))
    assert set(skipped(outcome)) == kept


def test_a_mean_counts_with_its_sum_and_a_norm_with_its_squares():
    model = pass_kit.parse("g (float[1,1,64,64] x) => (float[1,1,1,1] y) { a = Relu(x) y = GlobalAveragePool(a) }", {})
    loud = [{"x": np.full((1, 1, 64, 64), 100.0, np.float32)}]
    assert "its sum may reach 4.096e+05" in skipped(reduced(model, feeds=loud))["y"]
    assert skipped(reduced(model, feeds=[{"x": np.full((1, 1, 64, 64), 1.0, np.float32)}])) == {}
    norm = pass_kit.parse("g (float[1,64] x) => (float[1,1] y) { a = Relu(x) y = ReduceL2<axes=[1]>(a) }", {})
    assert "its sum of squares" in skipped(reduced(norm, feeds=[{"x": np.full((1, 64), 100.0, np.float32)}]))["y"]


def test_values_too_small_for_float16_stay_float():
    model = pass_kit.parse(
        "g (float[1,8] x) => (float[1,8] y) { a = Mul(x, k) b = Mul(a, a) y = Sqrt(b) }", {"k": np.float32(1e-2)}
    )
    feeds = [{"x": np.linspace(0.01, 0.1, 8, dtype=np.float32)[None]}]
    outcome = reduced(model, feeds=feeds)
    assert "where float16 loses precision" in skipped(outcome)["b"]
    assert_agrees(model, outcome, feeds)


def test_values_of_a_loop_are_observed_in_its_body():
    text = """g (int64 n, bool c, float[2,4] x) => (float[2,4] y) {
      y = Loop(n, c, x) <body = b (int64 i, bool go, float[2,4] s) => (bool more, float[2,4] next) {
        more = Identity(go) up = Exp(s) big = Mul(up, gain) next = Log(big) }> }"""
    model = pass_kit.parse(text, {"gain": np.float32(1e4)})
    feed = {"n": np.array(3), "c": np.array(True), "x": np.full((2, 4), 3.0, np.float32)}
    outcome = reduced(model, feeds=[feed])
    assert {"up", "big"} <= set(skipped(outcome))
    assert_agrees(model, outcome, [feed])


def test_decisions_are_made_once_and_replayed_without_data():
    model, feeds = loud()
    decisions = Decisions()
    first = reduced(model, ctx=half_kit.context(feeds, decisions=decisions), feeds=feeds)
    assert {key.rpartition("/")[2] for key in decisions} == {"a", "q", "b", "r", "s", "y"}
    calls: list[str] = []

    class Data(half_kit.FeedList):
        def samples(self):
            calls.append("sweep")
            return super().samples()

    again = half_kit.context(feeds, decisions=decisions)
    again.data = Data([half_kit.Sample(feed) for feed in feeds])
    ReducePrecision()
    memo = reduced(model, ctx=again, feeds=feeds)
    assert not calls and pass_kit.text(memo.model) == pass_kit.text(first.model)
    replayed = half_kit.context(decisions=Decisions(decisions.kept))
    plan = pass_kit.snapshot(model)
    record = half_kit.apply_pass(half_kit.Step(ReducePrecision()), plan, replayed).record
    assert pass_kit.text(plan) == pass_kit.text(first.model)
    assert [e.reason for e in record.skipped] == [e.reason for e in first.record.skipped]


def test_every_site_has_an_error_of_the_size_of_rounding():
    model, feeds = loud()
    outcome = reduced(model, feeds=feeds)
    errors = ReducePrecision().site_errors(model, outcome.model, outcome.rewritten, half_kit.context(feeds))
    assert list(errors) == outcome.rewritten
    assert all(0 < error < 1e-5 for error in errors.values())


def test_errors_leave_masks_out():
    text = """g (float[2,6] x, int64[2,6] keep) => (float[2,6] y) {
      a = Tanh(x) k = Cast<to=9>(keep) s = Where(k, a, low) y = Softmax(s) }"""
    model = pass_kit.parse(text, {"low": np.float32(-3.4e38)})
    feeds = [{**pass_kit.feeds(model), "keep": np.array([[1, 1, 0, 0, 1, 0]] * 2, np.int64)}]
    outcome = reduced(model, feeds=feeds)
    errors = ReducePrecision().site_errors(model, outcome.model, outcome.rewritten, half_kit.context(feeds))
    assert set(errors) == {"y"} | ({"a"} & set(errors)) and all(error < 1e-5 for error in errors.values())
