"""The proofs of the statistics engine: every sample counts, once each, in any order and any grouping."""

import random

import numpy as np
import onnx_ir as ir
import pytest
from calibration_models import parse, run_unoptimized

from irc.calibration import FeedList, Observable, Sample, StatisticRequest, collect, observe, observer_for
from irc.calibration.observation_sweep import EARLIEST_STOP
from irc.calibration.observers import EntropyObserver, MeanObserver, MinMaxObserver, MseObserver, PercentileObserver
from irc.errors import DataError, UsageError
from irc.runner import Runner

GRAPH = """g (float[n, 3, h, w] x) => (float[n, 4, c, d] y) {
    a = Conv(x, k, b) r = Relu(a) s = Sigmoid(a) t = Mul(r, tiny) u = Mul(r, huge) y = Conv(r, k2) }"""
WEIGHTS = {
    "k": (4, 3, 3, 3),
    "b": (4,),
    "k2": (4, 4, 1, 1),
    "tiny": np.array(1e-7, np.float32),
    "huge": np.array(1e9, np.float32),
}
NAMES = ["x", "a", "r", "s", "t", "u", "y"]
OBSERVERS = [
    MinMaxObserver(), MeanObserver(), PercentileObserver(99.0), EntropyObserver(), MseObserver(), MseObserver(255, True),
]  # fmt: skip


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as runner:
        yield runner


@pytest.fixture(scope="module")
def model():
    return parse(GRAPH, **WEIGHTS)


def feeds(count, seed=0):
    rng = np.random.default_rng(seed)
    return [{"x": (rng.standard_normal((1, 3, 8 + i % 3, 9)) * (1 + i % 4)).astype(np.float32)} for i in range(count)]


def source_of(given):
    return FeedList([Sample(feed, {}, f"calib/{i:05d}.npz") for i, feed in enumerate(given)])


def ranges(runner, model, given, observer, names=NAMES):
    return collect(runner, model, source_of(given), [StatisticRequest(name, observer) for name in names]).ranges


def ends(found):
    return {name: (r.low, r.high) for name, r in found.items()}


@pytest.fixture(scope="module")
def observed(model):
    copy = parse(GRAPH.replace("d] y)", "d] y, float a, float r, float s, float t, float u)"), **WEIGHTS)
    for output in copy.graph.outputs[1:]:
        output.shape = None
    return lambda feed: {**run_unoptimized(copy, feed), **feed}


@pytest.mark.parametrize("observer", OBSERVERS, ids=lambda o: o.text)
def test_order_and_duplication_change_nothing(runner, model, observer):
    given = feeds(9)
    found = ranges(runner, model, given, observer)
    shuffled = list(given)
    random.Random(1).shuffle(shuffled)
    assert ends(ranges(runner, model, shuffled, observer)) == ends(found)
    assert ends(ranges(runner, model, given + given, observer)) == ends(found)
    assert all(r.count == 18 for r in ranges(runner, model, given + given, observer).values())


@pytest.mark.parametrize("observer", OBSERVERS, ids=lambda o: o.text)
def test_dropping_the_sample_with_the_outlier_changes_the_result(runner, model, observer):
    given = feeds(6)
    given[4]["x"][0, 1, 2:5, 2:5] = 400.0
    whole = ends(ranges(runner, model, given, observer))
    rest = ends(ranges(runner, model, given[:4] + given[5:], observer))
    assert all(whole[name] != rest[name] for name in ("x", "a"))


KINDS = [
    Observable("a"), Observable("a", axis=1), Observable("r", "distribution"), Observable("a", "distribution", 1),
    Observable("t", "distribution"), Observable("u", "distribution"), Observable("a", "moments"),
    Observable("a", "moments", 1), Observable("a", "gram", 1), Observable("x", "gram", -1),
]  # fmt: skip


def plain(statistic):
    """A statistic as numbers to compare."""
    if isinstance(statistic, tuple):
        parts = []
        for one in statistic:
            settled = one.histogram.settled()
            parts += [one.range.low, one.range.high, settled.small, settled.positive.first, settled.negative.first]
            parts += [*settled.positive.counts.tolist(), *settled.negative.counts.tolist()]
        return np.array(parts, np.float64)
    fields = [np.asarray(getattr(statistic, name), np.float64).reshape(-1) for name in statistic.__dataclass_fields__]
    return np.concatenate(fields)


def test_every_sample_counts(runner, model):
    given = feeds(5)
    whole = observe(runner, model, source_of(given), KINDS)
    for left_out in range(5):
        rest = observe(runner, model, source_of(given[:left_out] + given[left_out + 1 :]), KINDS)
        assert all(not np.array_equal(plain(rest[o]), plain(whole[o])) for o in KINDS)


def test_two_halves_merged_equal_the_whole(runner, model):
    given = feeds(8)
    whole = observe(runner, model, source_of(given), KINDS)
    halves = [observe(runner, model, source_of(half), KINDS) for half in (given[:3], given[3:])]
    merged = halves[0].merge(halves[1])
    assert merged.samples == whole.samples == 8 and list(whole) == KINDS
    for observable in KINDS:
        a, b = plain(merged[observable]), plain(whole[observable])
        if observable.kind == "distribution":
            assert np.array_equal(a, b), observable
        else:
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_statistics_are_those_of_the_elements(runner, model, observed):
    given = feeds(4)
    found = observe(runner, model, source_of(given), KINDS)
    values = [observed(feed) for feed in given]
    a = np.concatenate([np.moveaxis(v["a"], 1, 0).reshape(4, -1) for v in values], axis=1).astype(np.float64)
    channel = found[Observable("a", axis=1)]
    np.testing.assert_allclose(channel.low, a.min(axis=1), rtol=1e-5)
    np.testing.assert_allclose(channel.high, a.max(axis=1), rtol=1e-5)
    moments = found[Observable("a", "moments", 1)]
    assert moments.count == a.shape[1]
    np.testing.assert_allclose(moments.total, a.sum(axis=1), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(moments.second, np.mean(a * a, axis=1), rtol=1e-5)
    whole = found[Observable("a", "moments")]
    assert whole.count == a.size
    np.testing.assert_allclose(whole.mean, a.mean(), rtol=1e-4, atol=1e-5)
    gram = found[Observable("a", "gram", 1)]
    assert gram.count == a.shape[1]
    np.testing.assert_allclose(gram.total, a @ a.T, rtol=1e-4, atol=1e-2)
    last = sum(v["x"].reshape(-1, 9).T.astype(np.float64) @ v["x"].reshape(-1, 9) for v in values)
    np.testing.assert_allclose(found[Observable("x", "gram", -1)].total, last, rtol=1e-5, atol=1e-3)
    for index, one in enumerate(found[Observable("a", "distribution", 1)]):
        assert one.histogram.total == a.shape[1]
        assert one.range.high == pytest.approx(a[index].max(), rel=1e-3)
    for name in ("r", "t", "u"):
        (one,) = found[Observable(name, "distribution")]
        elements = np.concatenate([v[name].reshape(-1) for v in values])
        assert one.histogram.total == elements.size and one.histogram.not_a_number == 0
        zeros = int((np.abs(elements) <= np.abs(elements).max() * 2.0**-15).sum())
        settled = one.histogram.settled()
        assert zeros <= settled.small <= zeros + elements.size * 0.01
        assert (one.range.low, one.range.high) == (
            pytest.approx(elements.min(), rel=5e-4), pytest.approx(elements.max(), rel=5e-4)
        )  # fmt: skip


def test_a_scale_that_no_longer_fits_is_changed_in_the_middle(runner):
    model = parse("g (float[n] x) => (float[n] y) { y = Neg(x) }")
    given = [{"x": np.array([s, -s / 3, 0.0], np.float32)} for s in (1e-3, 1e3, 1e8, 1e-8, 0.0, 1e30)]
    wanted = Observable("y", "distribution")
    (whole,) = observe(runner, model, source_of(given), [wanted])[wanted]
    (backwards,) = observe(runner, model, source_of(given[::-1]), [wanted])[wanted]
    assert whole.histogram.total == 18 and whole.range.low == pytest.approx(-1e30, rel=5e-4)
    assert np.array_equal(plain((whole,)), plain((backwards,)))


def test_values_packed_into_several_sweeps_are_the_same(runner, model):
    given = feeds(3)
    one = observe(runner, model, source_of(given), KINDS)
    many = observe(runner, model, source_of(given), KINDS, budget_bytes=1)
    for observable in KINDS:
        assert np.array_equal(plain(one[observable]), plain(many[observable]))
    assert many.samples == 3


def test_progress_never_falls_over_several_sweeps(runner, model):
    told = []
    observe(runner, model, source_of(feeds(3)), KINDS, budget_bytes=1, progress=lambda f, what: told.append(f))
    assert told == sorted(told) and told[0] == 0.0 and told[-1] == 1.0


@pytest.mark.parametrize("dtype", [1, 10, 11, 16])
def test_every_float_type(runner, dtype):
    model = parse(f"g (float[n] x) => (float[n] y) {{ h = Cast<to={dtype}>(x) z = Identity(h) y = Cast<to=1>(z) }}")
    given = [{"x": np.array([0.5, -1.5, 3.0, 0.0], np.float32)}]
    wanted = [Observable("h", "distribution"), Observable("h"), Observable("h", "moments")]
    found = observe(runner, model, source_of(given), wanted)
    (one,) = found[wanted[0]]
    assert one.histogram.settled().small == 1 and one.histogram.total == 4
    assert (one.range.low, one.range.high) == (-1.5, 3.0)
    assert float(found[wanted[2]].squares) == pytest.approx(0.25 + 2.25 + 9)


@pytest.mark.parametrize("kind", ["min-max", "distribution"])
@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("bad, what", [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_what_is_not_finite_is_named_with_its_sample(runner, model, kind, axis, bad, what):
    given = feeds(3)
    given[1]["x"][0, 0, 0, 0] = bad
    with pytest.raises(DataError, match=rf"calib/00001.npz: value 'x' of the model contains {what}"):
        observe(runner, model, source_of(given), [Observable("x", kind, axis)])


def test_empty_tensors_count_for_nothing(runner):
    model = parse("g (float[n] x) => (float[n] y) { y = Neg(x) }")
    given = [{"x": np.zeros(0, np.float32)}, {"x": np.array([1, 2], np.float32)}]
    wanted = [Observable("y"), Observable("y", "distribution")]
    found = observe(runner, model, source_of(given), wanted)
    assert found[wanted[0]].range.count == 1 and found[wanted[1]][0].histogram.total == 2
    nothing = observe(runner, model, source_of(given[:1]), wanted)
    assert nothing[wanted[0]].empty and nothing[wanted[1]][0].empty


def test_axes_that_do_not_exist_are_missing_with_the_reason(runner, model):
    found = observe(runner, model, source_of(feeds(1)), [Observable("a", axis=7), Observable("a")])
    assert found.missing == {"a": "it has no axis 7"} and list(found) == [Observable("a")]


@pytest.mark.parametrize("observer", OBSERVERS, ids=lambda o: o.text)
def test_value_info_makes_no_difference(runner, model, observer):
    bare = ir.from_proto(ir.to_proto(model))
    for node in bare.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None
    assert ends(ranges(runner, bare, feeds(3), observer)) == ends(ranges(runner, model, feeds(3), observer))


def test_early_stop_says_how_many_samples_it_used(runner, model):
    given = feeds(4) * 32
    stopped = observe(
        runner, model, source_of(given), [Observable("a"), Observable("r", "distribution")], early_stop=0.01
    )
    assert (stopped.samples, stopped.available) == (EARLIEST_STOP, 128)
    assert stopped[Observable("a")].range.count == EARLIEST_STOP
    given[20] = {"x": given[20]["x"] * 3}  # widens the range in the second half of the first 32
    later = observe(runner, model, source_of(given), [Observable("a")], early_stop=0.01)
    assert later.samples == 64
    assert observe(runner, model, source_of(given), [Observable("a")]).samples == 128


def test_one_sweep_serves_several_observers_but_one_per_value(runner, model):
    mse = observer_for("mse", percentile=99, levels=4, symmetric=True)
    found = collect(runner, model, source_of(feeds(2)), [StatisticRequest("a"), StatisticRequest("r", mse)])
    assert found.observer == "min-max, mse{levels=4,symmetric=true}"
    assert found["r"].high < collect(runner, model, source_of(feeds(2)), [StatisticRequest("r")])["r"].high
    with pytest.raises(UsageError, match="'a' has one range, so it takes one observer"):
        collect(runner, model, source_of(feeds(1)), [StatisticRequest("a"), StatisticRequest("a", mse)])
