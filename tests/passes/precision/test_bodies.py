"""If, Loop and Scan: narrow inside, and narrow through where the body computes it so."""

from __future__ import annotations

import numpy as np
import pass_kit
import pytest
from half_kit import assert_agrees, casts, dtypes, reduced, skipped

from irc.passes.precision.reduce_precision import ReducePrecision
from irc.testing import assert_conforms
from irc.testing.graphs import random_model

BRANCHES = """g (bool c, float[2,32] x) => (float[2,8] y) {
  h = Tanh(x)
  z = If(c) <then_branch = a () => (float[2,8] t) { t = MatMul(h, w) },
             else_branch = b () => (float[2,8] e) { e = MatMul(h, v) }>
  y = Relu(z)
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
KEPT = """g (int64 n, bool c, float[2,8] x) => (float[2,8] y, float[2,8] u) {
  y, u = Loop(n, c, x, x) <body = b (int64 i, bool go, float[2,8] s, float[2,8] k) => (bool more, float[2,8] next, float[2,8] same) {
    more = Identity(go) next = Tanh(s) same = Identity(k) }>
}"""
NESTED = """g (int64 n, bool c, float[2,32] x) => (float[2,32] y) {
  y = Loop(n, c, x) <body = b (int64 i, bool go, float[2,32] s) => (bool more, float[2,32] next) {
    more = Identity(go) one = Constant<value = int64 {1}>() first = Less(i, one) m = MatMul(x, w)
    next = If(first) <then_branch = t () => (float[2,32] p) { p0 = MatMul(s, w) p = Tanh(p0) },
                      else_branch = e () => (float[2,32] r) { r0 = MatMul(x, w) r1 = Add(r0, m) r = Tanh(r1) }> }>
}"""
LIMIT = 5e-2
"""Random recurrences amplify: one rounding of the state is 5e-4."""
BORDER = [("FLOAT", "FLOAT16"), ("FLOAT16", "FLOAT")]


def feeds(model, **fixed):
    """Four feeds; conditions and counts as given, or both conditions in turn."""
    found = []
    for seed in range(4):
        feed = pass_kit.feeds(model, seed=seed)
        feed |= {name: np.array(seed % 2 == 0) for name in ("c",) if name in feed}
        found.append(feed | {name: np.asarray(value) for name, value in fixed.items()})
    return found


@pytest.mark.parametrize("with_data", [False, True])
def test_both_branches_give_float16(with_data):
    model = pass_kit.parse(BRANCHES, BRANCH_WEIGHTS)
    outcome = reduced(model, feeds=feeds(model) if with_data else None)
    assert outcome.rewritten == ["h", "t", "e", "z", "y"] and skipped(outcome) == {}
    assert casts(outcome.model) == BORDER
    assert_agrees(model, outcome, feeds(model))


def test_branches_of_different_types_hand_float_out():
    model = pass_kit.parse(BRANCHES, BRANCH_WEIGHTS)
    outcome = reduced(model, deny={"e"}.__contains__)
    assert outcome.rewritten == ["h", "t", "y"] and dtypes(outcome.model)["z"] == "FLOAT"
    assert_agrees(model, outcome, feeds(model))


def test_a_branch_that_gives_a_constant_gives_it_in_float16():
    text = BRANCHES.replace(
        "{ e = MatMul(h, v) }", "{ e = Constant<value = float[2,8] {" + ", ".join(["0.5"] * 16) + "}>() }"
    )
    model = pass_kit.parse(text, {"w": (32, 8)})
    outcome = reduced(model)
    assert "z" in outcome.rewritten and casts(outcome.model) == BORDER
    assert_agrees(model, outcome, feeds(model))


def test_a_branch_that_no_sample_ran_stays_float():
    model = pass_kit.parse(BRANCHES, BRANCH_WEIGHTS)
    outcome = reduced(model, feeds=feeds(model, c=True))
    assert "no sample ran the body" in skipped(outcome)["e"] and "t" in outcome.rewritten
    assert_agrees(model, outcome, feeds(model))


@pytest.mark.parametrize("with_data", [False, True])
def test_a_loop_carries_float16(with_data):
    model = pass_kit.parse(LOOP, LOOP_WEIGHTS)
    samples = feeds(model, n=3, c=True)
    outcome = reduced(model, feeds=samples if with_data else None)
    assert outcome.rewritten == ["p", "next", "each", "y"] and skipped(outcome) == {}
    assert casts(outcome.model) == [BORDER[0], BORDER[1], BORDER[1]]
    types = dtypes(outcome.model)
    assert types["s"] == types["next"] == types["each"] == "FLOAT16" and types["y"] == types["ys"] == "FLOAT"
    assert_agrees(model, outcome, [*samples, *feeds(model, n=0, c=True)], limit=LIMIT)


def test_a_scan_takes_carries_and_gives_float16():
    model = pass_kit.parse(SCAN, {"w": (32, 32), "v": (32, 32)})
    outcome = reduced(model)
    assert outcome.rewritten == ["a", "p", "next", "each", "y"]
    assert len(casts(outcome.model)) == 4 and dtypes(outcome.model)["z"] == "FLOAT16"
    assert_agrees(model, outcome, feeds(model), limit=LIMIT)


def test_a_loop_whose_body_is_denied_carries_float():
    model = pass_kit.parse(LOOP, LOOP_WEIGHTS)
    outcome = reduced(model, deny={"next"}.__contains__)
    assert dtypes(outcome.model)["s"] == "FLOAT" and dtypes(outcome.model)["y"] == "FLOAT"
    assert_agrees(model, outcome, feeds(model, n=2, c=True), limit=LIMIT)


def test_what_a_loop_only_passes_on_is_not_rounded():
    model = pass_kit.parse(KEPT, {})
    outcome = reduced(model)
    types = dtypes(outcome.model)
    assert types["s"] == "FLOAT16" and types["k"] == types["u"] == "FLOAT"
    samples = feeds(model, n=2, c=True)
    assert_agrees(model, outcome, samples)
    np.testing.assert_array_equal(pass_kit.run(outcome.model, samples[0])[1], samples[0]["x"])


def test_bodies_in_bodies_share_what_is_outside():
    model = pass_kit.parse(NESTED, {"w": (32, 32)})
    outcome = reduced(model)
    assert {"m", "p", "r", "next", "y"} <= set(outcome.rewritten)
    assert casts(outcome.model) == BORDER
    for rounds in (0, 1, 3):
        assert_agrees(model, outcome, feeds(model, n=rounds, c=True), limit=LIMIT)


def test_a_body_that_moves_what_it_takes_follows_its_operator():
    text = """g (int64 n, bool c, float[2,8] x) => (float[2,8] y) {
      y = Loop(n, c, x) <body = b (int64 i, bool go, float[2,8] s) => (bool more, float[2,8] next) {
        more = Identity(go) t = Transpose<perm=[1,0]>(s) u = Transpose<perm=[1,0]>(t) next = Tanh(u) }> }"""
    model = pass_kit.parse(text, {})
    outcome = reduced(model)
    assert set(outcome.rewritten) == {"t", "u", "next", "y"} and casts(outcome.model) == BORDER
    assert_agrees(model, outcome, feeds(model, n=2, c=True))


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_keep_the_promises_of_a_pass(seed):
    assert_conforms(ReducePrecision(), random_model(seed), sharing="skip")
