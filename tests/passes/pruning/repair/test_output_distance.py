"""How far outputs are apart, by what they are for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from channel_kit import model_of, random_weight
from pruning_models import cnn
from repair_kit import apart, chain, feeds

from irc.ir import snapshot
from irc.passes.pruning.repair.output_distance import OutputDistance


def changed(model, name: str, change):
    """A copy with another weight."""
    copy = snapshot(model)
    value = copy.graph.initializers[name]
    import onnx_ir as ir

    value.const_value = ir.tensor(
        np.asarray(change(value.const_value.numpy().copy()), value.const_value.dtype.numpy()), name=name
    )
    return copy


def head(body: str, *, out: str = "float[n, 10] y", width: int = 10, scale: float = 4.0):
    text = f"agraph (float[n, 6] x) => ({out}) {{ h = MatMul(x, w)  {body} }}"
    return model_of(text, {"w": scale * random_weight(6, width)})


KINDS = {
    "KL": "y = Softmax(h)",
    "cosine distance": "l = ReduceL2<keepdims=1>(h, ax)  y = Div(h, l)",
    "output error": "y = Sin(h)",
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_and_what_they_have_in_common(runner, kind):
    text = f"agraph (float[n, 6] x) => (float[n, 10] y) {{ h = MatMul(x, w)  {KINDS[kind]} }}"
    weights = {"w": 4 * random_weight(6, 10)} | ({"ax": np.array([1])} if "ax" in text else {})
    model = model_of(text, weights)
    found = feeds(model, {"n": 5}, {"n": 3}, count=6)
    distance = OutputDistance(model, runner, apart(found))
    assert distance.describe() == kind
    assert distance(model) == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(0).standard_normal((6, 10))
    by_size = [distance(changed(model, "w", lambda w, s=size: w + s * noise)) for size in (0.01, 0.1, 1.0)]
    assert 0 < by_size[0] < by_size[1] < by_size[2] < math.inf
    assert distance(changed(model, "w", lambda w: w * np.nan)) == math.inf


def test_kl_in_nats(runner):
    model = head("y = Softmax(h)")
    found = feeds(model, {"n": 7}, count=3)
    student = changed(model, "w", lambda w: 0.7 * w)
    x = np.concatenate([feed["x"] for feed in found]).astype(np.float64)
    w = model.graph.initializers["w"].const_value.numpy().astype(np.float64)
    log_p, log_q = (z - np.log(np.exp(z).sum(axis=1, keepdims=True)) for z in (x @ w, 0.7 * x @ w))
    expected = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()
    assert OutputDistance(model, runner, apart(found))(student) == pytest.approx(expected, rel=1e-3)


def test_logits_of_a_classifier_are_compared_as_distributions(runner):
    """A constant added to all logits says nothing."""
    text = "agraph (float[n, 6] x) => (float[n, 10] y) { h = MatMul(x, w)  y = Gemm(h, v, b) }"
    model = model_of(
        text, {"w": 4 * random_weight(6, 10), "v": 4 * random_weight(10, 10), "b": np.zeros(10, np.float32)}
    )
    distance = OutputDistance(model, runner, apart(feeds(model, {"n": 30}, count=2)))
    assert distance.describe() == "KL" and distance(changed(model, "b", lambda b: b + 7)) < 1e-5


def test_an_error_is_in_units_of_the_spread(runner):
    text = "agraph (float[n, 6] x) => (float[n, 6] y) { s = Sin(x)  y = Add(s, b) }"
    model = model_of(text, {"b": np.zeros(6, np.float32)})
    found = feeds(model, {"n": 50}, count=2)
    distance = OutputDistance(model, runner, apart(found))
    y = [np.sin(feed["x"].astype(np.float64)) for feed in found]
    spread = sum(np.square(part - part.mean(axis=0)).sum() for part in y)
    assert distance(changed(model, "b", lambda b: b + 0.5)) == pytest.approx(0.25 * 600 / spread, rel=1e-4)


def test_the_worst_output_counts_and_caches_do_not(runner):
    text = """agraph (float[n, 6] x) => (float[n, 6] y, float[n, 6] z, float[n, 6] present_key) {
        a = Sin(x)  y = Add(a, b)  z = Add(a, c)  present_key = Add(a, d)
    }"""
    model = model_of(text, {name: np.zeros(6, np.float32) for name in "bcd"})
    distance = OutputDistance(model, runner, apart(feeds(model, {"n": 9}, count=2)))
    one, other = (distance(changed(model, name, lambda b: b + 0.3)) for name in "bc")
    assert one == pytest.approx(other) and one > 0
    both = changed(changed(model, "b", lambda b: b + 0.3), "c", lambda b: b + 0.6)
    assert distance(both) == pytest.approx(4 * one, rel=1e-3)
    assert distance(changed(model, "d", lambda b: b + 9)) == 0


def test_a_model_of_nothing_but_caches_is_compared_by_them(runner):
    model = model_of(
        "agraph (float[n, 6] x) => (float[n, 6] present_key) { a = Sin(x)  present_key = Add(a, b) }",
        {"b": np.zeros(6, np.float32)},
    )
    distance = OutputDistance(model, runner, apart(feeds(model, {"n": 9}, count=2)))
    assert distance(changed(model, "b", lambda b: b + 1)) > 0


def test_integers_alone_are_compared_by_how_many_differ(runner):
    text = "agraph (float[n, 6] x) => (int64[n] y) { h = MatMul(x, w)  y = ArgMax<axis=1, keepdims=0>(h) }"
    model = model_of(text, {"w": random_weight(6, 10)})
    found = feeds(model, {"n": 20}, count=2)
    distance = OutputDistance(model, runner, apart(found))
    assert distance(model) == 0 and distance.describe() == "disagreement"
    student = changed(model, "w", lambda w: w + 0.5 * np.random.default_rng(0).standard_normal(w.shape))
    x = np.concatenate([feed["x"] for feed in found])
    w, v = (m.graph.initializers["w"].const_value.numpy() for m in (model, student))
    assert (
        distance(student) == pytest.approx(((x @ w).argmax(axis=1) != (x @ v).argmax(axis=1)).mean())
        and distance(student) > 0
    )


def test_integers_beside_numbers_do_not_count(runner):
    text = "agraph (float[n, 6] x) => (float[n, 6] y, int64[n] z) { h = Sin(x)  y = Add(h, b)  c = Add(x, d)  z = ArgMax<axis=1, keepdims=0>(c) }"
    model = model_of(text, {"b": np.zeros(6, np.float32), "d": np.zeros(6, np.float32)})
    distance = OutputDistance(model, runner, apart(feeds(model, {"n": 20}, count=2)))
    assert distance(changed(model, "d", lambda d: d + np.arange(6))) == 0


def test_outputs_of_another_shape_are_infinitely_far(runner):
    model = model_of("agraph (float[n, 6] x) => (float[n, 6] y) { y = Sin(x) }", {})
    other = model_of(
        "agraph (float[n, 6] x) => (float[n, 1] y) { a = Sin(x)  y = ReduceMean<keepdims=1>(a, ax) }",
        {"ax": np.array([1])},
    )
    assert OutputDistance(model, runner, apart(feeds(model, {"n": 4}, count=2)))(other) == math.inf


def test_an_output_of_zeros_only(runner):
    model = model_of("agraph (float[n, 6] x) => (float[n, 6] y) { y = Mul(x, b) }", {"b": np.zeros(6, np.float32)})
    distance = OutputDistance(model, runner, apart(feeds(model, {"n": 4}, count=2)))
    assert distance(model) == 0 and distance(changed(model, "b", lambda b: b + 1)) > 0


def test_embeddings_of_zeros_are_where_they_were(runner):
    text = "agraph (float[n, 9] x) => (float[n, 9] embedding) { a = Relu(x)  embedding = Mul(a, b) }"
    model = model_of(text, {"b": np.ones(9, np.float32)})
    found = feeds(model, {"n": 4}, count=3)
    found[1]["x"][:] = -1
    distance = OutputDistance(model, runner, apart(found))
    assert distance.describe() == "cosine distance" and distance(model) == pytest.approx(0, abs=1e-7)
    assert distance(changed(model, "b", lambda b: -b)) > 1


def test_masked_logits(runner):
    """Classes that the teacher excludes, the student may exclude too."""
    text = "agraph (float[n, 6] x) => (float[n, 6] y) { h = MatMul(x, w)  y = Gemm(h, v, m) }"
    mask = np.float32([0, 0, 0, 0, 0, -np.inf])
    model = model_of(text, {"w": 4 * random_weight(6, 6), "v": 4 * random_weight(6, 6, seed=1), "m": mask})
    distance = OutputDistance(model, runner, apart(feeds(model, {"n": 30}, count=2)))
    assert distance.describe() == "KL" and distance(model) == 0
    assert 0 < distance(changed(model, "w", lambda w: 0.8 * w)) < math.inf
    worse = changed(model, "m", lambda m: np.roll(m, 1))
    assert distance(worse) == math.inf, "it excludes what the teacher does not"


def test_some_batches_only(runner):
    model = cnn()
    distance = OutputDistance(model, runner, apart(feeds(model, {"n": 4}, count=4)))
    student = changed(model, "w0", lambda w: 1.2 * w)
    assert distance(student, batches=1) != distance(student) and distance(student, batches=9) == distance(student)


def test_twice_is_the_same(runner):
    model = chain()
    distance = OutputDistance(model, runner, apart(feeds(model, {"n": 4}, count=4)))
    student = changed(model, "w0", lambda w: 1.2 * w)
    assert distance(student) == distance(student)


def test_what_an_output_is_for_is_told_by_more_samples_than_those_held_out(runner):
    """A regression whose largest value is always the same one: three samples cannot tell, a dozen can."""
    model = model_of(
        "agraph (float[n, 6] x) => (float[n, 5] y) { h = MatMul(x, w)  y = Add(h, b) }",
        {"w": random_weight(6, 5), "b": np.array([0, 0, 0, 0, 90], np.float32)},
    )
    found = apart(feeds(model, {"n": 1}, count=15))
    assert OutputDistance(model, runner, found[:3]).describe() == "KL"
    assert OutputDistance(model, runner, found[:3], found[3:]).describe() == "output error"
