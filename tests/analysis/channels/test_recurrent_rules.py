"""Recurrent layers: units of all gates, states and directions, at other lengths and batches than analysed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import Array, assert_exact, describe, model_of, random_feeds, random_weight

from irc.analysis.channels import channel_groups
from irc.channel_oracles import random_survivors
from irc.channel_surgery import cut
from irc.ir import snapshot

W = random_weight
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
SEQUENCES = ({"s": 5, "n": 3}, {"s": 2, "n": 1})
FEATURES, UNITS = 4, 6


def weights_of(kind: str, directions: int, inputs: int = FEATURES, hidden: int = UNITS) -> dict[str, Array]:
    g = GATES[kind]
    return {
        "w1": W(5, inputs),
        "W": W(directions, g * hidden, inputs, seed=1),
        "R": W(directions, g * hidden, hidden, seed=2) * 2,
        "B": W(directions, 2 * g * hidden, seed=3),
        "w2": W(directions * hidden, 3, seed=4),
    }


def network(kind: str, call: str, after: str, attributes: str = "", outputs: str = "Y") -> str:
    return f"""g (float[s, n, 5] x) => (float[s, n, 3] y) {{
        h = MatMul(x, w1)
        {outputs} = {kind}<hidden_size={UNITS}{attributes}>({call})
        {after}
        y = MatMul(z, w2)
    }}"""


AFTER = """t = Transpose<perm=[0, 2, 1, 3]>(Y)
        z = Reshape(t, join)"""
JOIN = {"join": np.array([0, 0, -1])}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_hidden_units(kind: str, direction: str) -> None:
    """One family of inputs, one of hidden units; two directions lose as many each, not the same."""
    directions = 2 if direction == "bidirectional" else 1
    weights = {**weights_of(kind, directions), **JOIN}
    model = model_of(network(kind, "h, W, R, B", AFTER, f', direction="{direction}"'), weights)
    proofs = assert_exact(model, random_feeds(model, *SEQUENCES), families=2)
    assert all(proof.cut == 2 and proof.effect > 1e-3 for proof in proofs.values())
    hidden = channel_groups(model).families[1]
    assert (len(hidden.atoms), hidden.cell_count) == (directions * UNITS, directions)


def test_hidden_size_is_rewritten() -> None:
    model = model_of(
        network("GRU", "h, W, R", AFTER, ', linear_before_reset=1, direction="bidirectional"'),
        {**weights_of("GRU", 2), **JOIN},
    )
    groups = channel_groups(model)
    small = snapshot(model)
    cut(small, groups.propagation, groups.survivors(random_survivors(groups, groups.families)))
    node = next(n for n in small.graph if n.op_type == "GRU")
    assert node.attributes.get_int("hidden_size") == UNITS // 2
    shapes = {v.name: v.shape for v in small.graph.initializers.values()}
    assert shapes["W"] == (2, 3 * UNITS // 2, FEATURES // 2) and shapes["R"] == (2, 3 * UNITS // 2, UNITS // 2)


@pytest.mark.parametrize("directions", [1, 2])
def test_peepholes_lengths_and_states(directions: int) -> None:
    """Everything an LSTM may have, its states constants."""
    weights = {
        **weights_of("LSTM", directions),
        **JOIN,
        "P": W(directions, 3 * UNITS, seed=5),
        "h0": W(directions, 3, UNITS, seed=6),
        "c0": W(directions, 3, UNITS, seed=7),
        "lengths": np.array([2, 4, 3], np.int32),
    }
    way = "bidirectional" if directions == 2 else "forward"
    text = f"""g (float[s, 3, 5] x) => (float[s, 3, 3] y) {{
        h = MatMul(x, w1)
        Y, Yh, Yc = LSTM<hidden_size={UNITS}, direction="{way}", clip=0.9>(h, W, R, B, lengths, h0, c0, P)
        sum = Add(Y, Yh)
        all = Mul(sum, Yc)
        t = Transpose<perm=[0, 2, 1, 3]>(all)
        z = Reshape(t, join)
        y = MatMul(z, w2)
    }}"""
    model = model_of(text, weights)
    assert_exact(model, random_feeds(model, {"s": 4}, {"s": 7}), families=2)


@pytest.mark.parametrize("directions", [1, 2])
def test_shared_weights_are_cut_alike(directions: int) -> None:
    """Two layers with the same weights: directions lose the same units too, for no layer owns the weights."""
    weights = {**weights_of("GRU", directions), **JOIN, "w3": W(5, FEATURES, seed=9)}
    way = "bidirectional" if directions == 2 else "forward"
    text = f"""g (float[s, n, 5] x) => (float[s, n, 3] y) {{
        h = MatMul(x, w1)
        k = MatMul(x, w3)
        A = GRU<hidden_size={UNITS}, direction="{way}">(h, W, R, B)
        C = GRU<hidden_size={UNITS}, direction="{way}">(k, W, R, B)
        Y = Add(A, C)
        {AFTER}
        y = MatMul(z, w2)
    }}"""
    model = model_of(text, weights)
    assert_exact(model, random_feeds(model, *SEQUENCES), families=2)
    assert [len(f.atoms) for f in channel_groups(model).families] == [FEATURES, UNITS]


def test_state_of_another_layer() -> None:
    """A decoder that starts from the encoder's last state has its units."""
    weights = {
        **weights_of("GRU", 1),
        "W_": W(1, 3 * UNITS, FEATURES, seed=11),
        "R_": W(1, 3 * UNITS, UNITS, seed=12),
        "one": np.array([1]),
    }
    text = f"""g (float[s, n, 5] x) => (float[s, n, 3] y) {{
        h = MatMul(x, w1)
        A, state = GRU<hidden_size={UNITS}>(h, W, R, B)
        Y = GRU<hidden_size={UNITS}>(h, W_, R_, , , state)
        z = Squeeze(Y, one)
        y = MatMul(z, w2)
    }}"""
    model = model_of(text, weights)
    assert_exact(model, random_feeds(model, *SEQUENCES), families=2)


def test_stacked_layers() -> None:
    weights = {
        **weights_of("LSTM", 2),
        **JOIN,
        "W_": W(2, 4 * UNITS, 2 * UNITS, seed=11),
        "R_": W(2, 4 * UNITS, UNITS, seed=12),
    }
    text = f"""g (float[s, n, 5] x) => (float[s, n, 3] y) {{
        h = MatMul(x, w1)
        A = LSTM<hidden_size={UNITS}, direction="bidirectional">(h, W, R, B)
        a = Transpose<perm=[0, 2, 1, 3]>(A)
        b = Reshape(a, join)
        Y = LSTM<hidden_size={UNITS}, direction="bidirectional">(b, W_, R_)
        {AFTER}
        y = MatMul(z, w2)
    }}"""
    model = model_of(text, weights)
    assert_exact(model, random_feeds(model, *SEQUENCES), families=3)


def test_states_from_outside_pin() -> None:
    text = f"""g (float[s, n, 5] x, float[1, n, {UNITS}] h0) => (float[s, n, 3] y) {{
        h = MatMul(x, w1)
        Y = GRU<hidden_size={UNITS}>(h, W, R, B, , h0)
        z = Squeeze(Y, one)
        y = MatMul(z, w2)
    }}"""
    model = model_of(text, {**weights_of("GRU", 1), "one": np.array([1])})
    assert_exact(model, random_feeds(model, *SEQUENCES), families=1)
    assert "axis that is not channels" in describe(channel_groups(model))


def test_last_state_as_output_pins() -> None:
    text = f"""g (float[s, n, 5] x) => (float[2, n, {UNITS}] last) {{
        h = MatMul(x, w1)
        , last = LSTM<hidden_size={UNITS}, direction="bidirectional">(h, W, R, B)
    }}"""
    weights = weights_of("LSTM", 2)
    del weights["w2"]
    model = model_of(text.replace("        , last", "        Y, last"), weights)
    assert_exact(model, random_feeds(model, *SEQUENCES), families=1)


def test_weights_that_are_computed() -> None:
    """Weights behind DequantizeLinear are labelled where they are stored."""
    rng = np.random.default_rng(0)
    weights = {
        **weights_of("LSTM", 1),
        "Wq": rng.integers(-127, 127, (1, 4 * UNITS, FEATURES)).astype(np.int8),
        "Rq": rng.integers(-127, 127, (1, 4 * UNITS, UNITS)).astype(np.int8),
        "scale": np.array(0.01, np.float32),
        "one": np.array([1]),
    }
    del weights["W"], weights["R"]
    text = f"""g (float[s, n, 5] x) => (float[s, n, 3] y) {{
        h = MatMul(x, w1)
        W = DequantizeLinear(Wq, scale)
        R = DequantizeLinear(Rq, scale)
        Y = LSTM<hidden_size={UNITS}>(h, W, R, B)
        z = Squeeze(Y, one)
        y = MatMul(z, w2)
    }}"""
    model = model_of(text, weights)
    assert_exact(model, random_feeds(model, *SEQUENCES), families=2)
    assert [len(f.atoms) for f in channel_groups(model).families] == [FEATURES, UNITS]


def test_batch_first_is_not_run_but_labelled() -> None:
    """ONNX Runtime has no kernel for layout 1; the families are those of layout 0."""
    text = f"""g (float[n, s, 5] x) => (float[n, s, 3] y) {{
        h = MatMul(x, w1)
        Y, Yh = LSTM<hidden_size={UNITS}, layout=1, direction="bidirectional">(h, W, R, B)
        z = Reshape(Y, join)
        y = MatMul(z, w2)
    }}"""
    model = model_of(text, {**weights_of("LSTM", 2), **JOIN})
    groups = channel_groups(model)
    assert [(len(f.atoms), f.cell_count) for f in groups.families] == [(FEATURES, 1), (2 * UNITS, 2)]
    small = snapshot(model)
    cut(small, groups.propagation, groups.survivors(random_survivors(groups, groups.families)))
    assert isinstance(small, ir.Model)
