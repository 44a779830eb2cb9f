import random

import numpy as np
import onnx_ir as ir
import pytest
from calibration_models import parse, run_unoptimized

from irc.calibration import FeedList, MinMax, Sample, StatisticRequest, collect
from irc.errors import DataError, RunnerError
from irc.runner import Runner


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as runner:
        yield runner


def source_of(feeds):
    return FeedList([Sample(feed, {}, f"calib/{i:05d}.npz") for i, feed in enumerate(feeds)])


def ask(*names):
    return [StatisticRequest(name) for name in names]


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


CONV = """g (float[batch, 3, h, w] x) => (float[batch, 4, c, d] y) {
    a = Conv(x, k, b) r = Relu(a) s = Sigmoid(a) p = Add(r, s) y = Conv(p, k2) }"""


def conv_model():
    return parse(CONV, k=(4, 3, 3, 3), b=(4,), k2=(4, 4, 1, 1))


def test_ranges_are_those_of_the_unoptimized_model_over_all_samples(runner):
    model = conv_model()
    feeds = [{"x": normal(1, 3, 6 + i, 9 - i, seed=i)} for i in range(4)]
    names = ["x", "a", "r", "s", "p", "y"]
    observed = parse(
        CONV.replace("[batch, 4, c, d] y)", "[batch, 4, c, d] y, float a, float r, float s, float p)"),
        k=(4, 3, 3, 3),
        b=(4,),
        k2=(4, 4, 1, 1),
    )
    for output in observed.graph.outputs[1:]:
        output.shape = None
    expected = [{**run_unoptimized(observed, feed), **feed} for feed in feeds]
    found = collect(runner, model, source_of(feeds), ask(*names))
    assert found.samples == 4
    assert found.missing == {}
    assert list(found) == names
    for name in names:
        assert found[name].count == 4
        assert found[name].low == pytest.approx(min(e[name].min() for e in expected), rel=1e-5, abs=1e-6)
        assert found[name].high == pytest.approx(max(e[name].max() for e in expected), rel=1e-5, abs=1e-6)


def test_the_model_is_unchanged_and_order_does_not_matter(runner):
    model = conv_model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    feeds = [{"x": normal(1, 3, 8, 8, seed=i) * (i + 1)} for i in range(5)]
    first = collect(runner, model, source_of(feeds), ask("a", "r"))
    random.Random(0).shuffle(feeds)
    assert collect(runner, model, source_of(feeds), ask("a", "r")).ranges == first.ranges
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_one_extreme_sample_counts(runner):
    model = conv_model()
    feeds = [{"x": normal(1, 3, 8, 8, seed=i)} for i in range(6)]
    feeds[3]["x"][0, 0, 0, 0] = 1000.0
    assert collect(runner, model, source_of(feeds), ask("x"))["x"].high == 1000.0


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 20, 21])
def test_every_opset(runner, opset):
    model = parse("g (float[n, 4] x) => (float[n, 4] y) { h = Relu(x) y = Neg(h) }", opset=opset)
    found = collect(runner, model, source_of([{"x": np.array([[-1, 2, 3, 0.5]], np.float32)}]), ask("x", "h", "y"))
    assert [(r.low, r.high) for r in found.values()] == [(-1, 3), (0, 3), (-3, 0)]


def test_scalars_inputs_outputs_weights_and_a_single_element(runner):
    model = parse(
        "g (float s, float[1] x) => (float[1] y) { a = Mul(x, s) y = Add(a, w) }", w=np.array([2], np.float32)
    )
    feed = {"s": np.array(3, np.float32), "x": np.array([5], np.float32)}
    found = collect(runner, model, source_of([feed]), ask("s", "x", "a", "y", "w"))
    assert {name: r.low for name, r in found.items()} == {"s": 3, "x": 5, "a": 15, "y": 17, "w": 2}


def test_mixed_types_keep_their_precision(runner):
    model = parse(
        """g (double[n] d, float16[n] h, float[n] f, int64[n] i, bool[n] b) => (double[n] y) {
            hh = Relu(h) dd = Abs(d) ff = Neg(f) hf = Cast <to=11> (hh) ffd = Cast <to=11> (ff)
            s = Add(dd, hf) y = Add(s, ffd) ii = Neg(i) bb = Not(b) }"""
    )
    feed = {
        "d": np.array([1e300, -1 - 1e-12]),
        "h": np.array([65504, -1], np.float16),
        "f": np.array([3e38, -3e38], np.float32),
        "i": np.array([1, 2]),
        "b": np.array([True, False]),
    }
    found = collect(runner, model, source_of([feed]), ask("dd", "hh", "ff", "ii", "bb", "h"))
    assert (found["dd"].low, found["dd"].high) == (1 + 1e-12, 1e300)
    assert (found["hh"].low, found["hh"].high) == (0, 65504)
    assert found["h"].low == -1
    assert found["ff"].high == pytest.approx(3e38)
    assert found.missing == {"ii": "it is int64, not floating point", "bb": "it is bool, not floating point"}


def test_values_in_bodies_are_observed_and_unknown_ones_are_missing_with_the_reason(runner):
    model = parse(
        """g (bool c, float[n] x) => (float[n] y) {
            y = If (c) <then_branch = t () => (float[n] p) { q = Relu(x) p = Neg(q) },
                        else_branch = e () => (float[n] r) { r = Abs(x) }> }"""
    )
    feed = {"c": np.array(True), "x": np.array([-1, 2], np.float32)}
    found = collect(runner, model, source_of([feed]), ask("q", "y", "nowhere"))
    assert found.missing == {"nowhere": "the model has no such value"}
    assert (found["q"].low, found["q"].high) == (0, 2)
    assert (found["y"].low, found["y"].high) == (-2, 0)


def test_nothing_observable_runs_nothing(runner):
    model = parse("g (int64[n] x) => (int64[n] y) { y = Neg(x) }")
    found = collect(runner, model, source_of([{"x": np.array([1])}]), ask("y"))
    assert len(found) == 0
    assert list(found.missing) == ["y"]


def test_empty_tensors_do_not_count(runner):
    model = parse("g (float[n, 2] x) => (float[n, 2] y) { y = Neg(x) }")
    empty, full = {"x": np.zeros((0, 2), np.float32)}, {"x": np.array([[1, 2]], np.float32)}
    found = collect(runner, model, source_of([empty, full, empty]), ask("y"))
    assert found["y"] == MinMax(-2, -1, 1)
    assert found.samples == 3
    nothing = collect(runner, model, source_of([empty]), ask("y"))
    assert nothing.get("y") is None
    assert "y" not in nothing


@pytest.mark.parametrize("position", [0, 1, 17, 63, 998, 999])
@pytest.mark.parametrize("shape", [(1, 1000), (10, 100), (1000, 1)])
def test_a_nan_is_found_wherever_it_is(runner, position, shape):
    model = parse("g (float[n, m] x) => (float[n, m] y) { h = Log(x) y = Relu(h) }")
    numbers = np.full(1000, 2, np.float32)
    bad = numbers.copy()
    bad[position] = -1
    with pytest.raises(DataError) as caught:
        collect(
            runner,
            model,
            source_of([{"x": numbers.reshape(shape)}, {"x": bad.reshape(shape)}]),
            ask("y", "h"),
        )
    assert "calib/00001.npz: value 'h' of the model contains NaN" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_infinity_is_refused_and_names_the_first_value_that_has_it(runner):
    model = parse("g (float[n] x) => (float[n] y) { h = Exp(x) y = Neg(h) }")
    feeds = [{"x": np.array([1, 2], np.float32)}, {"x": np.array([1, 1000], np.float32)}]
    with pytest.raises(DataError, match=r"calib/00001.npz: value 'h' of the model contains infinity"):
        collect(runner, model, source_of(feeds), ask("y", "h"))


def test_huge_numbers_of_both_signs_are_no_nan(runner):
    model = parse("g (float[n] x) => (float[n] y) { y = Identity(x) }")
    huge = np.tile(np.array([3e38, 3e38, -3e38, -3e38], np.float32), 64)
    shuffled = np.concatenate([np.full(128, 3e38), np.full(128, -3e38)]).astype(np.float32)
    found = collect(runner, model, source_of([{"x": huge}, {"x": shuffled}]), ask("y"))
    assert (found["y"].low, found["y"].high) == (np.float32(-3e38), np.float32(3e38))


def test_a_sample_the_model_does_not_run_on_is_named(runner):
    model = parse("g (int64[n] ids) => (float[n, 2] y) { e = Gather(w, ids) y = Neg(e) }", w=(4, 2))
    with pytest.raises(DataError, match=r"calib/00001.npz: the model does not run on this sample \(ids \[1\]\)"):
        collect(runner, model, source_of([{"ids": np.array([3])}, {"ids": np.array([4])}]), ask("y"))


def test_a_model_the_runtime_refuses(runner):
    model = parse("g (float[n] x) => (float[n] y) { y = com.microsoft.NoSuchOperator(x) }")
    with pytest.raises(RunnerError, match="NoSuchOperator"):
        collect(runner, model, source_of([{"x": np.ones(1, np.float32)}]), ask("y"))


def test_values_of_unknown_type_behind_foreign_operators(runner):
    model = parse("g (float[n] x) => (float[n] y) { h = com.microsoft.Gelu(x) y = Relu(h) }")
    assert next(node.outputs[0] for node in model.graph).dtype is None
    found = collect(runner, model, source_of([{"x": np.array([-9, 3], np.float32)}]), ask("h"))
    assert found["h"].high == pytest.approx(3, abs=0.01)


def test_unobserved_branches_are_not_computed(runner):
    model = parse("g (float[n] x, float[m] z) => (float[n] y, float[a, b] w) { y = Neg(x) w = MatMul(z, x) }")
    feed = {"x": np.ones(2, np.float32), "z": np.ones(3, np.float32)}  # MatMul would fail
    assert collect(runner, model, source_of([feed]), ask("y"))["y"].high == -1


def test_names_that_look_like_ours_do_not_clash(runner):
    model = parse("g (float[n] x) => (float[n] y) { h = Relu(x) y = Neg(h) }")
    for value, name in zip([n.outputs[0] for n in model.graph], ("irc.ReduceMin", "irc.Concat"), strict=True):
        value.name = name
    found = collect(runner, model, source_of([{"x": np.ones(2, np.float32)}]), ask("irc.ReduceMin", "irc.Concat"))
    assert [r.high for r in found.values()] == [1, -1]


def test_progress_is_told_and_ends_at_one(runner):
    seen = []
    model = parse("g (float[n] x) => (float[n] y) { y = Neg(x) }")
    feeds = [{"x": np.ones(2, np.float32)}] * 4
    collect(runner, model, source_of(feeds), ask("y"), progress=lambda fraction, what: seen.append((fraction, what)))
    assert [fraction for fraction, _ in seen] == [0, 0.25, 0.5, 0.75, 1]
    assert seen[2][1] == "calibrating, sample 3 of 4"


def test_hundreds_of_values_come_back_as_one_tensor(runner):
    chain = " ".join(f"v{i + 1} = Add(v{i}, one)" for i in range(300))
    model = parse(f"g (float[n] v0) => (float[n] y) {{ {chain} y = Neg(v300) }}", one=np.array([1], np.float32))
    opened, original = [], runner.open
    runner.open = lambda *args, **kwargs: opened.append(original(*args, **kwargs)) or opened[-1]
    try:
        found = collect(
            runner, model, source_of([{"v0": np.zeros(3, np.float32)}] * 2), ask(*(f"v{i}" for i in range(301)))
        )
    finally:
        del runner.open
    assert [found[f"v{i}"].high for i in (0, 1, 150, 300)] == [0, 1, 150, 300]
    assert len(opened) == 1
    assert len(opened[0].outputs) == 1
