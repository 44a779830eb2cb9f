import numpy as np
import pytest
from calibration_models import parse

from irc.calibration import FeedList, Sample, compare_values
from irc.errors import DataError
from irc.runner import Runner


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as runner:
        yield runner


def source_of(*feeds):
    return FeedList([Sample(feed, {}, f"sample {i}") for i, feed in enumerate(feeds)])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


TWIN = """g (float[n, 8] x) => (float[n, 8] y) {
    a = Relu(x) q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) b = Relu(d) y = Neg(b) }"""


def test_energies_are_summed_over_samples_of_any_length(runner):
    scale, zero = np.array(0.05, np.float32), np.array(128, np.uint8)
    model = parse(TWIN, s=scale, z=zero)
    feeds = [{"x": normal(n, 8, seed=n)} for n in (1, 7, 3)]
    found = compare_values(runner, model, source_of(*feeds), [("a", "b"), ("x", "d")])
    x = np.concatenate([feed["x"] for feed in feeds]).astype(np.float64)
    q = (np.clip(np.round(x / scale) + 128, 0, 255) - 128) * np.float64(scale)
    relu = lambda v: np.maximum(v, 0)  # noqa: E731
    assert found["x", "d"] == pytest.approx((np.sum(x**2), np.sum((x - q) ** 2)), rel=1e-3)
    assert found["a", "b"] == pytest.approx((np.sum(relu(x) ** 2), np.sum((relu(x) - relu(q)) ** 2)), rel=1e-3)


def test_equal_values_have_no_error(runner):
    model = parse("g (float[n] x) => (float[n] y) { a = Neg(x) b = Neg(x) y = Add(a, b) }")
    found = compare_values(runner, model, source_of({"x": np.array([1, 2, 3], np.float32)}), [("a", "b"), ("y", "y")])
    assert found == {("a", "b"): (14.0, 0.0), ("y", "y"): (56.0, 0.0)}


def test_accumulates_in_double_precision(runner):
    model = parse("g (float[n] x) => (float[n] y) { y = Identity(x) }")
    feeds = [{"x": np.array([4096], np.float32)}] + [{"x": np.array([1], np.float32)}] * 50  # 2**24 + 50
    assert compare_values(runner, model, source_of(*feeds), [("x", "y")])["x", "y"][0] == 2**24 + 50


def test_types_may_differ(runner):
    model = parse("g (float[n] x) => (float16[n] h) { h = Cast <to=10> (x) d = Cast <to=11> (x) e = Neg(d) }")
    x = np.array([1 + 2**-12, 3], np.float32)
    found = compare_values(runner, model, source_of({"x": x}), [("x", "h"), ("d", "h"), ("h", "e")])
    assert found["x", "h"][1] == pytest.approx(2.0**-24)
    assert found["d", "h"][1] == pytest.approx(2.0**-24)
    assert found["h", "e"][1] == pytest.approx(40, rel=1e-3)


def test_a_candidate_that_is_not_finite_is_infinitely_bad(runner):
    model = parse("g (float[n] x) => (float[n] y) { a = Neg(x) b = Log(a) y = Exp(x) }")
    found = compare_values(runner, model, source_of({"x": np.array([1, 500], np.float32)}), [("a", "b"), ("a", "y")])
    assert found["a", "b"][1] == np.inf
    assert found["a", "y"][1] == np.inf


def test_a_reference_that_is_not_finite_is_refused(runner):
    model = parse("g (float[n] x) => (float[n] y) { y = Log(x) }")
    feeds = source_of({"x": np.array([1], np.float32)}, {"x": np.array([-1], np.float32)})
    with pytest.raises(DataError, match="sample 1: value 'y' of the model contains NaN"):
        compare_values(runner, model, feeds, [("y", "x")])


def test_shapes_that_broadcast_are_refused(runner):
    model = parse("g (float[n, 4] x, float[n, 1] z) => (float[n, 4] y) { y = Add(x, z) }")
    feed = {"x": np.ones((1, 4), np.float32), "z": np.ones((1, 1), np.float32)}
    with pytest.raises(DataError, match=r"'x'.*'z'.*their shapes differ"):
        compare_values(runner, model, source_of(feed), [("x", "z")])


def test_pairs_in_bodies_are_compared_and_unknown_ones_left_out(runner):
    model = parse(
        """g (bool c, float[n] x) => (float[n] y) {
            y = If (c) <then_branch = t () => (float[n] p) { q = Relu(x) p = Neg(q) },
                        else_branch = e () => (float[n] r) { r = Abs(x) }> }"""
    )
    feed = {"c": np.array(True), "x": np.ones(2, np.float32)}
    pairs = [("q", "x"), ("r", "x"), ("x", "y"), ("x", "nowhere")]
    # The branch of q runs, that of r does not.
    assert compare_values(runner, model, source_of(feed), pairs) == {
        ("q", "x"): (2.0, 0.0),
        ("r", "x"): (0.0, 0.0),
        ("x", "y"): (2.0, 8.0),
    }
    assert compare_values(runner, model, source_of(feed), []) == {}


def test_large_tensors_keep_three_digits(runner):
    model = parse("g (float[n] x) => (float[n] y) { y = Identity(x) }")
    x = normal(3_000_000)
    signal, _ = compare_values(runner, model, source_of({"x": x}), [("x", "y")])["x", "y"]
    assert signal == pytest.approx(np.sum(x.astype(np.float64) ** 2), rel=1e-3)
