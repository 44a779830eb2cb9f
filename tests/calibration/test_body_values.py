"""Values in the bodies of If, Loop and Scan: the numbers that leave are those of every run of the body."""

import math

import numpy as np
import onnx_ir as ir
import pytest
from calibration_models import parse, run_unoptimized

from irc.calibration.reductions import ReducedModel
from irc.ir import check

NOTHING = (math.inf, -math.inf, 0.0, 0.0)


def numbers(model, feed, *names):
    """Smallest, largest, sum and sum of squares of each value."""
    reduced = ReducedModel(model, list(names))
    for name in names:
        value = reduced.value(name)
        assert value is not None, reduced.missing[name]
        for how in ("ReduceMin", "ReduceMax", "ReduceSum", "ReduceSumSquare"):
            reduced.reduce(how, value)
    finished = reduced.finish()
    check(finished)
    found = reduced.read(run_unoptimized(finished, feed)).reshape(-1, 4)
    return [tuple(row) for row in found.tolist()]


def of(*arrays):
    """What the arrays together should give."""
    every = np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in arrays])
    return pytest.approx((every.min(), every.max(), every.sum(), np.square(every).sum()), rel=1e-5)


BRANCHES = """g (bool c, float[n] x) => (float[n] y) {
    y = If (c) <then_branch = t () => (float[n] p) { q = Relu(x) p = Neg(q) },
                else_branch = e () => (float[n] r) { d = Mul(x, x) r = Neg(d) }> }"""
LOOP = """g (int64 n, bool c, float[2] x) => (float[2] y, float[k, 2] ys) {
    y, ys = Loop (n, c, x) <body = b (int64 i, bool go, float[2] s) => (bool more, float[2] next, float[2] each) {
        more = Identity(go) d = Add(s, x) next = Mul(d, half) each = Neg(d) }> }"""
SCAN = """g (float[2] x, float[t, 2] xs) => (float[2] y, float[2, t] ys) {
    y, ys = Scan <num_scan_inputs = 1, scan_output_axes = [1], scan_output_directions = [1], body = b (float[2] s, float[2] z)
        => (float[2] next, float[2] each) { next = Add(s, z) each = Neg(next) }> (x, xs) }"""
NESTED = """g (int64 n, bool c, float[2] x) => (float[2] y) {
    y = Loop (n, c, x) <body = b (int64 i, bool go, float[2] s) => (bool more, float[2] next) {
        more = Identity(go) k = Cast <to = 7> (i) one = Constant <value = int64 {1}> () even = Equal(k, one)
        next = If (even) <then_branch = t () => (float[2] p) { inner = Add(s, x) p = Identity(inner) },
                          else_branch = e () => (float[2] r) { other = Sub(s, x) r = Identity(other) }> }> }"""


def test_if_gives_numbers_of_the_branch_that_ran_and_the_other_is_empty():
    model, x = parse(BRANCHES), np.array([-3, 2, 5], np.float32)
    q, d = np.maximum(x, 0), x * x
    assert numbers(model, {"c": np.array(True), "x": x}, "q", "d") == [of(q), NOTHING]
    assert numbers(model, {"c": np.array(False), "x": x}, "q", "d", "r") == [NOTHING, of(d), of(-d)]


@pytest.mark.parametrize("rounds", [1, 4])
def test_loop_gives_numbers_of_all_iterations(rounds):
    model, x = parse(LOOP, half=np.array(0.5, np.float32)), np.array([1, -2], np.float32)
    state, sums, states = x, [], []
    for _ in range(rounds):
        states.append(state)
        sums.append(state + x)
        state = sums[-1] * 0.5
    feed = {"n": np.array(rounds), "c": np.array(True), "x": x}
    assert numbers(model, feed, "d", "s", "each", "y") == [
        of(*sums),
        of(*states),
        of(*[-s for s in sums]),
        of(state),
    ]


def test_loop_of_no_iteration_is_empty():
    model = parse(LOOP, half=np.array(0.5, np.float32))
    feed = {"n": np.array(0), "c": np.array(True), "x": np.array([1, -2], np.float32)}
    assert numbers(model, feed, "d", "y") == [NOTHING, of([1, -2])]


def test_scan_gives_numbers_of_all_iterations_and_its_own_outputs_stay():
    model, x, xs = parse(SCAN), np.array([1, -2], np.float32), np.array([[1, 2], [3, 4], [-9, 0]], np.float32)
    states = x + np.cumsum(xs, axis=0)
    assert numbers(model, {"x": x, "xs": xs}, "next", "z", "ys") == [of(states), of(xs), of(-states)]


def test_bodies_in_bodies():
    model, x = parse(NESTED), np.array([1, -2], np.float32)
    feed = {"n": np.array(3), "c": np.array(True), "x": x}
    # Iterations 0 and 2 subtract x, iteration 1 adds it.
    assert numbers(model, feed, "inner", "other") == [of(x), of(0 * x, 0 * x)]
    feed["n"] = np.array(1)
    assert numbers(model, feed, "inner", "other") == [NOTHING, of(0 * x)]


def test_half_and_double_precision_and_nan_in_bodies():
    model = parse(
        """g (bool c, double[n] d, float16[n] h) => (double[n] y) {
            y = If (c) <then_branch = t () => (double[n] p) { p = Neg(d) },
                        else_branch = e () => (double[n] r) { a = Abs(h) r = Cast <to = 11> (a) }> }"""
    )
    feed = {"c": np.array(True), "d": np.array([1e300, -1 - 1e-12]), "h": np.array([65504, -1], np.float16)}
    ((low, high, total, _),) = numbers(model, feed, "p")
    assert (low, high, total) == (-1e300, 1 + 1e-12, -1e300)
    feed["c"] = np.array(False)
    assert numbers(model, feed, "a")[0][:3] == (1, 65504, 65505)
    reduced = ReducedModel(model, ["a"])
    reduced.count_nan(reduced.value("a"))
    feed["h"] = np.array([np.nan, np.nan], np.float16)
    assert reduced.read(run_unoptimized(reduced.finish(), feed)).tolist() == [2]


def test_difference_of_an_inner_and_an_outer_value():
    model, x = parse(BRANCHES), np.array([-3, 2, 5], np.float32)
    reduced = ReducedModel(model, ["q", "x"])
    reduced.reduce("ReduceSumSquare", reduced.difference(reduced.value("q"), reduced.value("x")))
    finished = reduced.finish()
    assert reduced.read(run_unoptimized(finished, {"c": np.array(True), "x": x})).tolist() == [9]
    assert reduced.read(run_unoptimized(finished, {"c": np.array(False), "x": x})).tolist() == [0]


def test_order_of_execution_enters_bodies():
    order = ReducedModel(parse(NESTED), []).order
    assert order["x"] < order["s"] < order["inner"] < order["p"] < order["next"] < order["y"]


def test_the_model_is_unchanged():
    model = parse(SCAN)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    numbers(model, {"x": np.ones(2, np.float32), "xs": np.ones((2, 2), np.float32)}, "next")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
