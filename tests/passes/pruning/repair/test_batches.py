"""Which samples are for what, and which may be run together."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import model_of, random_weight
from pruning_models import attention
from repair_kit import feeds, source

from irc.calibration import FeedList, Sample
from irc.errors import DataError
from irc.pass_base import Context
from irc.passes.pruning.repair.batches import Batches


def plain(kind: str = "float[n, 6] x", out: str = "float[n, 3] y", body: str = "y = MatMul(x, w)"):
    return model_of(f"agraph ({kind}) => ({out}) {{ {body} }}", {"w": random_weight(6, 3)} if "w)" in body else {})


def taken(model, runner, data, **options) -> Batches:
    reserved = options.pop("reserved", frozenset())
    return Batches.of(model, Context(data=data, runner=runner, reserved=reserved), **options)


def rows(batches) -> list[bytes]:
    return sorted(row.tobytes() for batch in batches for row in batch.feed["x"])


def test_a_fifth_is_held_out_and_all_samples_are_used(runner):
    model, found = plain(), feeds(plain(), {"n": 1}, count=25)
    batches = taken(model, runner, source(found))
    assert (batches.fit_samples, batches.held_samples) == (20, 5)
    assert sorted(rows(batches.fit) + rows(batches.held)) == sorted(feed["x"][0].tobytes() for feed in found)
    assert [batch.samples for batch in batches.fit] == [20], "one run for all"


def test_order_names_and_repeats_do_not_matter(runner):
    model, found = plain(), feeds(plain(), {"n": 1}, count=25)
    first = taken(model, runner, source(found))
    second = taken(
        model, runner, FeedList([Sample(dict(f), origin=str(i)) for i, f in enumerate([*found[::-1], *found[3:9]])])
    )
    for mine, theirs in ((first.fit, second.fit), (first.held, second.held)):
        assert [batch.seed for batch in mine] == [batch.seed for batch in theirs]
        assert all(np.array_equal(a.feed["x"], b.feed["x"]) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(("count", "fit", "held"), [(1, 1, 1), (2, 1, 1), (4, 3, 1), (5, 4, 1), (9, 8, 1), (10, 8, 2)])
def test_few_samples(runner, count, fit, held):
    batches = taken(plain(), runner, source(feeds(plain(), {"n": 1}, count=count)))
    assert (batches.fit_samples, batches.held_samples) == (fit, held)
    assert count == 1 or not set(rows(batches.fit)) & set(rows(batches.held))


def test_duplicates_only_are_one_sample(runner):
    batches = taken(plain(), runner, source(feeds(plain(), {"n": 1}, count=1) * 7))
    assert (batches.fit_samples, batches.held_samples) == (1, 1)


def test_no_samples_are_an_error(runner):
    with pytest.raises(DataError, match="no samples to repair"):
        taken(plain(), runner, source([]))


def test_reserved_samples_are_not_used_and_all_reserved_are_an_error(runner):
    found = feeds(plain(), {"n": 1}, count=12)
    keys = [Sample(feed).key for feed in found]
    batches = taken(plain(), runner, source(found), reserved=frozenset(keys[:5]))
    assert batches.fit_samples + batches.held_samples == 7
    gone = {feed["x"][0].tobytes() for feed in found[:5]}
    assert not gone & set(rows(batches.fit) + rows(batches.held))
    with pytest.raises(DataError, match="no samples"):
        taken(plain(), runner, source(found), reserved=frozenset(keys))


def test_at_most_so_many_samples_and_so_many_together(runner):
    found = feeds(plain(), {"n": 1}, count=30)
    batches = taken(plain(), runner, source(found), samples=20, together=3)
    assert (batches.fit_samples, batches.held_samples) == (16, 4)
    assert [batch.samples for batch in batches.fit] == [3, 3, 3, 3, 3, 1]


def test_samples_of_one_shape_go_together(runner):
    model = attention()
    batches = taken(model, runner, source(feeds(model, {"n": 1, "t": 4}, {"n": 1, "t": 6}, {"n": 2, "t": 4}, count=30)))
    shapes = {batch.feed["x"].shape[1] for batch in batches.fit}
    assert shapes == {4, 6} and batches.fit_samples == 24
    assert len(batches.fit) == 3, "two shapes of one, one of two"


def test_data_that_change_from_sweep_to_sweep_are_an_error(runner):
    class Random(FeedList):
        def samples(self):
            rng = np.random.default_rng()
            for _ in range(5):
                yield Sample({"x": rng.standard_normal((1, 6)).astype(np.float32)})

    with pytest.raises(DataError, match="differ from one sweep to the next"):
        taken(plain(), runner, Random([]))


@pytest.mark.parametrize(
    ("kind", "out", "body"),
    [
        ("float[1, 6] x", "float[1, 3] y", "y = MatMul(x, w)"),
        ("float[n, 6] x", "float[3, n] y", "a = MatMul(x, w)  y = Transpose<perm=[1,0]>(a)"),
        ("float[n, 6] x", "float[1, 3] y", "a = MatMul(x, w)  y = ReduceMean<keepdims=1>(a, ax)"),
        ("float[n, 6] x", "float y", "a = MatMul(x, w)  y = ReduceMean<keepdims=0>(a)"),
        ("float[n, 6] x", "float[n, 3] y", "a = MatMul(x, w)  y = Softmax<axis=0>(a)"),
        (
            "float[n, 6] x",
            "float[n, 3] y, int64[n] i",
            "y = MatMul(x, w)  m = ReduceMax<keepdims=0>(y)  c = Cast<to=7>(m)  s = Shape<start=0, end=1>(y)  i = Expand(c, s)",
        ),
        ("float[n, 6] x", "float[m, 3] y", "a = MatMul(x, w)  y = Reshape(a, fixed)"),
    ],
    ids=["static", "along another axis", "kept mean", "scalar", "softmax over samples", "of all", "fixed shape"],
)
def test_models_that_do_not_give_one_behind_the_other_run_one_by_one(runner, kind, out, body):
    text = f"agraph ({kind}) => ({out}) {{ {body} }}"
    weights = {"w": random_weight(6, 3)}
    if "ax)" in body:
        weights["ax"] = np.array([0])
    if "fixed" in body:
        weights["fixed"] = np.array([1, 3])
    model = model_of(text, weights)
    batches = taken(model, runner, source(feeds(model, {"n": 1}, count=10)))
    assert all(batch.samples == 1 for batch in (*batches.fit, *batches.held))


def test_large_outputs_are_not_joined_beyond_memory(runner):
    """Tokens are small; what a language model says of them is not."""
    text = "agraph (int64[n, 4] ids) => (float[n, 4, 100000] y) { e = Gather(t, ids)  y = MatMul(e, w) }"
    model = model_of(text, {"t": random_weight(3, 1), "w": random_weight(1, 100000)})
    found = [{"ids": np.array([[i % 3, i // 3 % 3, i // 9 % 3, 0]])} for i in range(20)]
    batches = taken(model, runner, source(found))
    assert max(batch.samples for batch in batches.fit) <= 10


def test_outputs_whose_size_depends_on_the_data(runner):
    model = model_of("agraph (float[n, 6] x) => (int64[2, m] y) { r = Relu(x)  y = NonZero(r) }", {})
    batches = taken(model, runner, source(feeds(model, {"n": 1}, count=10)))
    assert all(batch.samples == 1 for batch in (*batches.fit, *batches.held))
