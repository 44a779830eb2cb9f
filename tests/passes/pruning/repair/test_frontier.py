"""Values at the place where a sweep stands are those of the whole model run at once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_weight, session
from channel_models.stored import feeds as stored_feeds
from channel_models.stored import load
from hypothesis import given, settings
from hypothesis import strategies as st
from repair_kit import apart, chain, feeds, layers_of, residual

from irc.errors import RunnerError
from irc.ir import snapshot
from irc.passes.pruning.repair.frontier import Frontier, read_by
from irc.runner import Runner


def all_values(model: ir.Model, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Everything that the main graph computes."""
    whole = snapshot(model)
    known = {value.name for value in whole.graph.outputs}
    whole.graph.outputs.extend(v for node in whole.graph for v in node.outputs if v.name and v.name not in known)
    opened = session(whole)
    return dict(zip([o.name for o in opened.get_outputs()], opened.run(None, feed), strict=True)) | feed


def assert_same(
    runner: Runner, model: ir.Model, found: list[dict[str, np.ndarray]], stops: list[int] | None = None
) -> int:
    """At every layer, or at some nodes, all that the node reads is what the whole model gives."""
    expected = [all_values(model, feed) for feed in found]
    frontier = Frontier(model, runner, apart(found))
    nodes = list(model.graph)
    checked = 0
    try:
        for place in range(len(nodes)) if stops is None else stops:
            names = [v.name for v in read_by(nodes[place]) if not v.is_initializer() and v.name]
            names = [name for name in dict.fromkeys(names) if name in expected[0]]
            frontier.bring(names)
            for index, whole in enumerate(expected):
                for name in names:
                    assert np.allclose(frontier.of(name, index), whole[name], rtol=1e-4, atol=1e-5), name
                    checked += 1
    finally:
        frontier.close()
    return checked


@pytest.mark.parametrize("build", [chain, residual])
def test_every_value_at_every_place(runner, build):
    model = build()
    assert assert_same(runner, model, feeds(model, {"n": 2}, {"n": 3}, count=2)) > 10


@pytest.mark.parametrize("name", ["body_if", "body_loop", "body_scan", "lstm_tagger", "bert", "densenet", "t5"])
def test_stored_models(runner, name):
    model, found = load(name), stored_feeds(name)
    products = ("Conv", "Gemm", "MatMul", "LSTM")
    places = [i for i, node in enumerate(model.graph) if node.op_type in products]
    assert assert_same(runner, model, found[:2], places[:: max(1, len(places) // 6)])


@settings(max_examples=10, deadline=None)
@given(st.sets(st.integers(0, 12), min_size=1))
def test_places_may_be_left_out(runner, places):
    model = residual()
    assert_same(runner, model, feeds(model, {"n": 2}, count=2), sorted(places))


CAPTURE = """agraph (float[n, 4] x, bool c) => (float[n, 3] y) {
    a = MatMul(x, w0)  b = Relu(a)  d = MatMul(b, w1)
    e = If (c) <then_branch = t () => (float[n, 4] o) { p = MatMul(a, w2)  o = Add(p, b) }, else_branch = f () => (float[n, 4] q) { q = Identity(a) }>
    f = Add(d, e)  y = MatMul(f, w3)
}"""


def capture() -> ir.Model:
    weights = {f"w{i}": random_weight(4, 3 if i == 3 else 4, seed=i) for i in range(4)}
    return model_of(CAPTURE, weights)


@pytest.mark.parametrize("condition", [True, False])
def test_bodies_that_read_values_outside(runner, condition):
    model = capture()
    found = [{**feed, "c": np.array(condition)} for feed in feeds(model, {"n": 2}, count=2)]
    assert_same(runner, model, found)
    # From the last product on nothing but its own input is known: the body was run, with what it captured.
    assert_same(runner, model, found, [len(list(model.graph)) - 1])


def test_weights_that_change_behind_it_are_the_ones_that_count(runner):
    """Layer by layer, as a fit does; at the end the frontier holds what the changed model gives."""
    model = residual()
    found = feeds(model, {"n": 2}, count=2)
    frontier = Frontier(model, runner, apart(found))
    rng = np.random.default_rng(0)
    for layer in layers_of(model).all:
        frontier.bring([layer.layer.source])
        before = frontier.of(layer.layer.source, 0)
        assert np.allclose(before, all_values(model, found[0])[layer.layer.source], rtol=1e-4, atol=1e-5)
        weight = layer.weight.values
        layer.weight.store(model, weight + 0.3 * rng.standard_normal(weight.shape))
        assert np.array_equal(before, frontier.of(layer.layer.source, 0)), "it is in front of the change"
    frontier.bring(["y"])
    assert np.allclose(frontier.of("y", 1), all_values(model, found[1])["y"], rtol=1e-4, atol=1e-5)


def test_what_nobody_reads_any_more_is_forgotten_and_the_inputs_stay(runner):
    model = chain()
    frontier = Frontier(model, runner, apart(feeds(model, {"n": 2}, count=1)))
    frontier.bring(["c"])
    assert frontier.of("c", 0).shape == (2, 12)
    frontier.bring(["e"])
    frontier.bring(["y"])
    with pytest.raises(RunnerError):
        frontier.of("c", 0)
    assert frontier.of("x", 0).shape == (2, 6) and frontier.of("y", 0).shape == (2, 4)
    frontier.close()
    with pytest.raises(RunnerError):
        frontier.of("y", 0)


def test_two_frontiers_do_not_mix(runner):
    models = [chain(0), chain(5)]
    found = feeds(models[0], {"n": 2}, count=2)
    both = [Frontier(model, runner, apart(found)) for model in models]
    for frontier in both:
        frontier.bring(["e"])
    both[0].close()
    assert np.allclose(both[1].of("e", 1), all_values(models[1], found[1])["e"], atol=1e-5)


def test_batches_of_different_lengths_and_a_model_with_static_sizes(runner):
    text = """agraph (float[2, t, 4] x) => (float[2, t, 3] y) {
        a = MatMul(x, w0)  s = Shape(a)  b = Reshape(a, s)  c = Softmax(b)  y = MatMul(c, w1)
    }"""
    model = model_of(text, {"w0": random_weight(4, 4), "w1": random_weight(4, 3)})
    assert_same(runner, model, feeds(model, {"t": 2}, {"t": 5}, {"t": 1}, count=3))


def test_integers_and_booleans_on_the_way(runner):
    text = """agraph (float[n, 4] x) => (float[n, 3] y) {
        a = MatMul(x, w0)  z = Constant<value_float=0.0>()  m = Greater(a, z)  i = ArgMax<axis=1>(a)  k = Cast<to=1>(i)
        b = Where(m, a, k)  y = MatMul(b, w1)
    }"""
    model = model_of(text, {"w0": random_weight(4, 4), "w1": random_weight(4, 3)})
    assert_same(runner, model, feeds(model, {"n": 3}, count=2))
    frontier = Frontier(model, runner, apart(feeds(model, {"n": 3}, count=1)))
    frontier.bring(["m", "k"])
    assert frontier.of("m", 0).dtype == bool
    frontier.bring(["b"])
