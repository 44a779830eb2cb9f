"""What recurrent operators read: what their gates make of it is what they give, step by step, whatever the direction and the lengths."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import model_of
from recurrent_kit import FEATURES, KINDS, STEPS, UNITS, WAYS, recurrent, weights_of
from repair_kit import apart, feeds

from irc.analysis.channels import propagate
from irc.ir import constant
from irc.passes.pruning.repair.recurrent_layers import RecurrentLayer, RecurrentLayers
from irc.passes.pruning.repair.recurrent_moments import RecurrentMoments, states_before
from irc.testing.integrity import model_bytes


def only(model) -> RecurrentLayer:
    (layer,) = RecurrentLayers(propagate(model)).all
    return layer


def read_and_given(runner, layer, model, found):
    """`[T, N, K]` and `[T, D, N, H]`: what an operator reads and gives, for every feed."""
    names = [layer.node.inputs[0].name, layer.node.outputs[0].name]
    with runner.open(model, extra_outputs=names) as opened:
        for feed in found:
            values = opened.run(feed, names)
            yield tuple(np.asarray(values[name]) for name in names)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def steps_of(layer: RecurrentLayer, rows):
    """`[D, rows, H]`: what an RNN or a GRU gives for rows of what it reads."""
    found = []
    for direction in range(layer.directions):
        sums = {}
        for product in layer.products:
            own = rows[direction][:, layer.places(product)] @ layer.matrix(direction, product).T
            own = own + layer.bias[direction, product.half, layer.gate_rows(product)]
            if product.half == 0:  # Both halves of B are one bias but where the reset gate stands between them.
                alone = any(other.half and other.gates == product.gates for other in layer.products)
                own = own if alone else own + layer.bias[direction, 1, layer.gate_rows(product)]
            for number, gate in enumerate(range(*product.gates)):
                sums.setdefault((gate, product.half), own[:, number * UNITS : (number + 1) * UNITS])
        if layer.node.op_type == "RNN":
            found.append(np.tanh(sums[0, 0]))
            continue
        update, reset = sigmoid(sums[0, 0]), sigmoid(sums[1, 0])
        state = rows[direction][:, layer.parts["state"]]
        found.append((1 - update) * np.tanh(sums[2, 0] + reset * sums.get((2, 1), 0)) + update * state)
    return np.stack(found)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_gates_make_of_rows_what_the_operator_gives(runner, kind, way):
    directions = 2 if way == "bidirectional" else 1
    rng = np.random.default_rng(0)
    initial = rng.standard_normal((directions, 3, UNITS)).astype(np.float32)
    lengths = np.array([3, STEPS, 5], np.int32)
    more = {"lengths": lengths, "initial": initial}
    model = recurrent(kind, way, weights=more, call="h, W, R, B, lengths, initial")
    layer = only(model)
    ((x, states),) = read_and_given(runner, layer, model, feeds(model, {"n": 3}, count=1))
    before = states_before(states, initial, lengths, layer.backward).reshape(directions, -1, UNITS)
    there = np.flatnonzero(np.arange(STEPS)[:, None] < lengths)
    expected = states.transpose(1, 0, 2, 3).reshape(directions, -1, UNITS)[:, there]
    given = steps_of(layer, layer.rows(x.reshape(-1, FEATURES)[there], before[:, there]))
    assert len(there) == lengths.sum() and np.abs(expected).max() > 0.5
    assert np.allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_moments_are_those_of_the_rows_of_all_batches(runner, kind, way):
    model = recurrent(kind, way)
    found = feeds(model, {"n": 3}, {"n": 5}, count=4)
    layer = only(model)
    moments = RecurrentMoments(model, runner, apart(found))[layer]
    rows = []
    for x, states in read_and_given(runner, layer, model, found):
        before = states_before(states, None, np.full(x.shape[1], STEPS), layer.backward)
        rows.append(layer.rows(x.reshape(-1, FEATURES), before.reshape(layer.directions, -1, UNITS)))
    rows = np.concatenate(rows, axis=1)
    assert moments.count == rows.shape[1] == STEPS * 16
    assert moments.mean.shape == (layer.directions, layer.width)
    assert np.allclose(moments.mean, rows.mean(axis=1), atol=1e-5)
    for mine, theirs in zip(moments.gram, rows, strict=True):
        assert np.allclose(mine, np.cov(theirs.T, bias=True), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_steps_behind_the_end_of_a_sequence_count_for_nothing(runner, way):
    """Whatever is there: lengths and initial states come with the data, and the inputs are those of the model."""
    directions = 2 if way == "bidirectional" else 1
    own = weights_of("GRU", way, features=3)
    text = f"""g (float[{STEPS}, n, 3] x, int32[n] lengths, float[{directions}, n, {UNITS}] s)
        => (float[{STEPS}, {directions}, n, {UNITS}] y) {{
        i = Tanh(s)
        y = GRU<hidden_size={UNITS}, direction="{way}">(x, W, R, B, lengths, i)
    }}"""
    model = model_of(text, {name: own[name] for name in "WRB"})
    found = feeds(model, {"n": 3}, count=3)
    for number, feed in enumerate(found):
        feed["lengths"] = np.array([1, STEPS, 2 + number], np.int32)
    layer = only(model)
    moments = RecurrentMoments(model, runner, apart(found))[layer]
    assert moments.count == sum(feed["lengths"].sum() for feed in found)
    for feed in found:
        feed["x"][np.arange(STEPS)[:, None] >= feed["lengths"]] = 50.0
    again = RecurrentMoments(model, runner, apart(found))[layer]
    assert np.array_equal(again.gram, moments.gram) and np.array_equal(again.mean, moments.mean)
    # A sequence of one step reads its initial state only.
    short = [{**feed, "x": feed["x"][:, :1], "lengths": feed["lengths"][:1], "s": feed["s"][:, :1]} for feed in found]
    states = np.mean([np.tanh(feed["s"][:, 0]) for feed in short], axis=0)
    mean = RecurrentMoments(model, runner, apart(short))[layer].mean
    assert np.allclose(mean[:, layer.parts["state"]], states, atol=1e-5)


@pytest.mark.parametrize("lengths", [[0, 0], [2, 1], [3, 3]])
def test_states_before_are_those_of_the_step_before(lengths):
    """Sequences of no step too."""
    steps, lengths = max(lengths), np.array(lengths)
    states = np.random.default_rng(0).standard_normal((steps, 2, 2, 3))
    initial = np.random.default_rng(1).standard_normal((2, 2, 3))
    before = states_before(states, initial, lengths, (False, True))
    assert before.shape == (2, steps, 2, 3)
    for sequence, length in enumerate(lengths):
        for step in range(length):
            past = states[step - 1, 0, sequence] if step else initial[0, sequence]
            future = states[step + 1, 1, sequence] if step + 1 < length else initial[1, sequence]
            assert np.array_equal(before[0, step, sequence], past)
            assert np.array_equal(before[1, step, sequence], future)


def test_states_that_nobody_asked_for_are_the_same_and_the_model_is_left_alone(runner):
    model = recurrent("GRU", "reverse", last=True)
    before = model_bytes(model)
    batches = apart(feeds(model, {"n": 4}, count=3))
    layer = only(model)
    assert layer.name == "Yh"
    mine = RecurrentMoments(model, runner, batches)[layer]
    whole = recurrent("GRU", "reverse")
    theirs = RecurrentMoments(whole, runner, batches)[only(whole)]
    assert np.array_equal(mine.gram, theirs.gram) and np.array_equal(mine.mean, theirs.mean)
    assert model_bytes(model) == before and not layer.node.outputs[0].name


def test_what_is_known_is_not_gathered_again_and_nothing_costs_nothing(runner):
    model = recurrent("RNN")
    told = []
    moments = RecurrentMoments(model, runner, apart(feeds(model, count=2)), progress=lambda *args: told.append(args))
    moments.gather([])
    assert not told
    layer = only(model)
    assert moments[layer] is moments[layer] and len(told) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_have_no_moments(runner, bad):
    model = recurrent("GRU")
    found = feeds(model, count=2)
    found[1]["x"][0, 0, 0] = bad
    assert RecurrentMoments(model, runner, apart(found))[only(model)] is None


def test_rows_are_a_part_of_all_where_there_are_many(runner, monkeypatch):
    model = recurrent("RNN")
    monkeypatch.setattr("irc.passes.pruning.repair.recurrent_moments.ROWS", 20)
    monkeypatch.setattr("irc.passes.pruning.repair.recurrent_moments.ROWS_PER_INPUT", 1)
    batches = apart(feeds(model, {"n": 9}, count=4))
    layer = only(model)
    first, again, other = (RecurrentMoments(model, runner, batches, seed=seed)[layer] for seed in (0, 0, 1))
    assert first.count == 20
    assert np.array_equal(first.gram, again.gram) and not np.array_equal(first.gram, other.gram)


def test_a_reset_gate_of_another_activation_is_not_made_up():
    plain, other = only(recurrent("GRU")), only(recurrent('GRU, activations=["HardSigmoid", "Tanh"]'))
    assert [product.parts for product in plain.products] == [("input", "state"), ("input", "reset state")]
    assert [product.parts for product in other.products] == [("input", "state"), ("input",)]
    assert [p.parts for p in only(recurrent("GRU, clip=2.0")).products] == [("input", "state"), ("input",)]
    assert "reset state" not in other.parts and plain.width == other.width + UNITS
    assert constant(plain.node.inputs[1]).shape == weights_of("GRU")["W"].shape
