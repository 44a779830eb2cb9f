"""Recurrent operators behind a cut: what stays of inputs and states takes over, exactly where it can."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_weight, run
from recurrent_kit import FEATURES, GATES, KINDS, STEPS, UNITS, WAYS, recurrent, weights_of
from repair_kit import apart, feeds, keeping, layers_of, without

from irc.analysis.channels import ChannelGroups
from irc.channel_surgery import cut
from irc.ir import constant, snapshot
from irc.passes.pruning.repair.recurrent_layers import RecurrentLayers
from irc.passes.pruning.repair.recurrent_moments import RecurrentMoments
from irc.passes.pruning.repair.recurrent_update import (
    apply_recurrent_weights,
    recurrent_weights_of,
    update_recurrent,
)
from irc.testing.integrity import model_bytes


@pytest.fixture
def undamped(monkeypatch):
    monkeypatch.setattr("irc.passes.pruning.repair.recurrent_update.DAMPING", 1e-7)


class Made:
    """A teacher, the cut alone, and the cut with the update."""

    def __init__(self, runner, model, alive_of, *, count=24, found=None):
        self.model, self.layers = model, layers_of(model)
        self.alive = alive_of(self.layers)
        self.recurrent = RecurrentLayers(self.layers.propagation)
        found = found if found is not None else feeds(model, {"n": 6}, count=count)
        self.moments = RecurrentMoments(model, runner, apart(found))
        self.raw = self.small()
        self.updated = self.small()
        update_recurrent(self.updated, self.alive, self.recurrent, self.moments)

    def small(self) -> ir.Model:
        model = snapshot(self.model)
        cut(model, self.layers.propagation, self.alive)
        return model

    def errors(self) -> tuple[float, float]:
        """Of the cut alone and of the update, relative, on samples of their own."""
        found = feeds(self.model, {"n": 5}, count=8, seed=1)
        expected = np.concatenate([y[0] for y in run(self.model, found)]).astype(np.float64)
        others = [np.concatenate([y[0] for y in run(model, found)]) for model in (self.raw, self.updated)]
        raw, updated = (float(np.square(y - expected).sum() / np.square(expected).sum()) for y in others)
        return raw, updated


def node_of(model) -> ir.Node:
    return next(node for node in model.graph if node.op_type in GATES)


def weight(model, index):
    return constant(node_of(model).inputs[index])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_others_span_are_made_up_for_exactly(runner, undamped, kind, way):
    """Five features of three dimensions: any three of them hold all."""
    made = Made(runner, recurrent(kind, way), lambda layers: without(layers, "h", [1, 3]))
    assert weight(made.updated, 1).shape[2] == FEATURES - 2 and weight(made.updated, 2).shape[2] == UNITS
    raw, updated = made.errors()
    assert raw > 0.01 and updated < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_input_goes_into_the_bias(runner, kind):
    """With the damping that is used: the other inputs say nothing of it."""
    weights = {"b1": np.array([0, 0, 4, 0, 0], np.float32)}
    text = f"""g (float[{STEPS}, n, 3] x) => (float[{STEPS}, 1, n, {UNITS}] y) {{
        p = MatMul(x, w1)
        h = Add(p, b1)
        y = {kind.partition(",")[0]}<hidden_size={UNITS}{kind.partition(",")[1]}{kind.partition(",")[2]}>(h, W, R)
    }}"""
    own = weights_of(kind)
    w1 = own["w1"].copy()
    w1[:, 2] = 0
    model = model_of(text, {**{name: own[name] for name in "WR"}, "w1": w1, **weights})
    made = Made(runner, model, lambda layers: without(layers, "p", [2]))
    assert len([i for i in node_of(made.raw).inputs if i is not None]) == 3
    assert weight(made.updated, 3).shape == (1, 2 * GATES[node_of(model).op_type] * UNITS)
    raw, updated = made.errors()
    assert raw > 0.01 and updated < 1e-9


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_units_that_others_double_are_made_up_for_exactly(runner, undamped, kind, way):
    weights = weights_of(kind, way)
    for name in ("W", "R", "B"):
        array = weights[name]
        parts = array.reshape(len(array), -1, UNITS, *array.shape[2:])
        parts[:, :, 3] = parts[:, :, 0]
        parts[:, :, 5] = parts[:, :, 1]
    weights["w2"].reshape(-1, UNITS, 4)[:, [3, 5]] = 0  # What reads the operator is no business of this.
    made = Made(runner, recurrent(kind, way, weights=weights), units_without(3, 5))
    assert weight(made.updated, 2).shape[2] == UNITS - 2 and weight(made.updated, 1).shape[2] == FEATURES
    raw, updated = made.errors()
    assert raw > 0.01 and updated < 1e-5


def units_without(*gone: int):
    """Survivors: some units go in every direction."""

    def alive_of(layers):
        groups = ChannelGroups(layers.propagation, "rows")
        hidden = next(found for found in groups.families if found.name != "h")
        stay = [np.delete(hidden.atoms[hidden.cells == cell], gone) for cell in range(hidden.cell_count)]
        return groups.survivors({hidden: np.concatenate(stay)})

    return alive_of


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_constant_state_goes_into_the_bias_that_is_read_with_it(runner, kind):
    """Where the reset gate multiplies what is made of the state, that is the half of R."""
    weights = weights_of(kind)
    gates = GATES[kind.partition(",")[0]]
    for name in ("W", "R", "B"):
        array = weights[name]
        parts = array.reshape(1, -1, UNITS, *array.shape[2:])
        parts[:, gates - 1 :: gates, 2] = 0  # of the gate that makes the state; a bias of both halves
    weights["B"].reshape(1, 2, gates, UNITS)[0, 0, gates - 1, 2] = 1.0
    weights["initial"] = np.zeros((1, 6, UNITS), np.float32)
    weights["initial"][:, :, 2] = np.tanh(1.0)
    weights["w2"][2] = 0
    model = recurrent(kind, weights=weights, call="h, W, R, B, , initial")
    made = Made(runner, model, units_without(2))
    found = feeds(model, {"n": 6}, count=8, seed=1)
    expected, raw, updated = (np.stack([y[0] for y in run(m, found)]) for m in (model, made.raw, made.updated))
    scale = np.abs(expected).max()
    if "reset" in kind or kind == "RNN":
        assert np.abs(updated - expected).max() < 1e-5 * scale
    assert np.abs(updated - expected).max() < 0.5 * np.abs(raw - expected).max() > 0.01 * scale


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_less_is_lost_on_samples_held_out(runner, kind, way):
    """Inputs and units of a random network, whatever reads them left as it is."""
    made = Made(runner, recurrent(kind, way), lambda layers: keeping(layers, 0.67), count=40)
    assert weight(made.updated, 1).shape[2] == 3 and weight(made.updated, 2).shape[2] == 4
    raw, updated = made.errors()
    assert updated < 0.9 * raw


def test_float16_stays_float16(runner, undamped):
    model = recurrent("GRU, linear_before_reset=1", dtype="float16")
    made = Made(runner, model, lambda layers: without(layers, "h", [1, 3]))
    assert all(weight(made.updated, index).dtype == np.float16 for index in (1, 2, 3))
    raw, updated = made.errors()
    assert raw > 0.01 and updated < 0.02 * raw


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_that_is_read_goes_nothing_changes(runner, kind):
    model = recurrent(kind)
    for alive_of in (lambda layers: np.ones(layers.propagation.constraints.count, bool),):
        made = Made(runner, model, alive_of)
        assert model_bytes(made.raw) == model_bytes(made.updated)
        assert not recurrent_weights_of(made.updated, made.raw, made.recurrent)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_down_gives_the_same_bytes(runner, kind, last):
    made = Made(runner, recurrent(kind, "bidirectional", last=last), lambda layers: keeping(layers, 0.67))
    written = recurrent_weights_of(made.updated, made.raw, made.recurrent)
    name = made.recurrent.all[0].name
    assert set(written) == {f"recurrent {part} {name}" for part in "WRB"}
    copy = made.small()
    assert apply_recurrent_weights(copy, made.recurrent, written) == 1
    assert model_bytes(copy) == model_bytes(made.updated) != model_bytes(made.raw)
    assert apply_recurrent_weights(copy, made.recurrent, {"weight y": np.zeros(1)}) == 0


def test_a_bias_that_others_read_is_left_to_them(runner):
    """Two operators with equal biases stored once; the second one loses nothing."""
    own = weights_of("RNN")
    text = f"""g (float[{STEPS}, n, 3] x) => (float[{STEPS}, 1, n, {UNITS}] y, float[{STEPS}, 1, n, {UNITS}] z) {{
        h = MatMul(x, w1)
        y = RNN<hidden_size={UNITS}>(h, W, R, B)
        z = RNN<hidden_size={UNITS}>(x, W_, R_, B)
    }}"""
    more = {"W_": random_weight(1, UNITS, 3, seed=7), "R_": random_weight(1, UNITS, UNITS, seed=8)}
    model = model_of(text, {**{name: own[name] for name in ("w1", "W", "R", "B")}, **more})
    found = feeds(model, {"n": 6}, count=12)
    found = [{"x": feed["x"] + 1} for feed in found]
    made = Made(runner, model, lambda layers: without(layers, "h", [0, 3]), found=found)
    before, after = (run(m, found[:1])[0] for m in (made.raw, made.updated))
    assert np.array_equal(before[1], after[1]) and not np.allclose(before[0], after[0])
    assert not np.array_equal(weight(made.updated, 3), own["B"])


@pytest.mark.parametrize("case", ["shared", "computed", "bias", "infinite", "nan", "batches first"])
def test_what_cannot_be_repaired_is_cut_alone(runner, case):
    own = weights_of("GRU")
    inputs, nodes, call, more = "", "", "h, W, R, B", ""
    if case == "shared":
        nodes = f"k = GRU<hidden_size={UNITS}>(h, W, R, B)\n s = ReduceSum<keepdims=1>(k)\n"
    elif case == "computed":
        nodes, call = "V = Mul(W, two)\n", "h, V, R, B"
    elif case == "bias":
        inputs, call = f", float[1, {2 * 3 * UNITS}] given", "h, W, R, given"
    elif case == "infinite":
        own["R"][0, 0, 0] = np.inf
    elif case == "nan":
        own["W"][...] *= np.nan
    else:
        more = ", layout=1"
    made = f"{STEPS}, n, 1" if more else f"{STEPS}, 1, n"
    text = f"""g (float[{STEPS}, n, 3] x{inputs}) => (float[{made}, {UNITS}] y) {{
        h = MatMul(x, w1)
        {nodes}u = GRU<hidden_size={UNITS}{more}>({call})
        y = {"Add(u, s)" if case == "shared" else "Relu(u)"}
    }}"""
    weights = {name: own[name] for name in ("w1", "W", "R", "B")}
    if case == "bias":
        del weights["B"]
    if case == "computed":
        weights["two"] = np.array(2, np.float32)
    made = Made(runner, model_of(text, weights), lambda layers: without(layers, "h", [0, 3]), count=3)
    assert (not made.recurrent.all) is (case in ("shared", "computed", "bias", "batches first"))
    assert model_bytes(made.raw) == model_bytes(made.updated)


def test_a_model_without_any_runs_nothing(monkeypatch):
    from repair_kit import chain

    layers = layers_of(chain())
    recurrent_layers = RecurrentLayers(layers.propagation)
    assert recurrent_layers.all == ()
    model = chain()
    update_recurrent(model, keeping(layers, 0.5), recurrent_layers, None)  # type: ignore[arg-type]
    assert model_bytes(model) == model_bytes(chain())
    assert apply_recurrent_weights(model, recurrent_layers, {}) == 0
