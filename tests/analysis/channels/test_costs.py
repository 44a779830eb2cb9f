"""Costs by formula are the costs of the model that surgery leaves."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import MODES, model_of, random_weight
from hypothesis import given, settings
from hypothesis import strategies as st

from irc.analysis import cost
from irc.analysis.channels import ChannelGroups, propagate
from irc.analysis.channels.costs import ChannelCosts, half_width
from irc.analysis.weights import Weights
from irc.channel_surgery import cut

RESIDUAL = """g (float[batch,3,8,8] image) => (float[batch,5] logits) {
  a = Conv<pads=[1,1,1,1]>(image, w1, b1) r = Relu(a)
  d = Conv<pads=[1,1,1,1],group=8>(r, w2) s = Relu(d)
  c = Conv(s, w3, b1) j = Add(c, r) k = Relu(j)
  t = Conv<group=4>(k, w4) u = Relu(t)
  f = Flatten(u) logits = Gemm(f, head, last)
}"""


def residual() -> ir.Model:
    weights = {
        "w1": random_weight(8, 3, 3, 3), "b1": np.zeros(8, dtype=np.float32), "w2": random_weight(8, 1, 3, 3),
        "w3": random_weight(8, 8, 1, 1), "w4": random_weight(12, 2, 1, 1), "head": random_weight(12 * 64, 5), "last": random_weight(5),
    }  # fmt: skip
    return model_of(RESIDUAL, weights)


ATTENTION = """g (float[batch,seq,24] x) => (float[batch,seq,6] y) {
  q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
  qs = Reshape(q, split) ks = Reshape(k, split) vs = Reshape(v, split)
  qh = Transpose<perm=[0,2,1,3]>(qs) kh = Transpose<perm=[0,2,3,1]>(ks) vh = Transpose<perm=[0,2,1,3]>(vs)
  scores = MatMul(qh, kh) p = Softmax<axis=-1>(scores) o = MatMul(p, vh)
  ot = Transpose<perm=[0,2,1,3]>(o) flat = Reshape(ot, merge)
  h = MatMul(flat, wo) r = Relu(h) y = MatMul(r, out)
}"""


def attention() -> ir.Model:
    weights = {name: random_weight(24, 32, seed=i) for i, name in enumerate(("wq", "wk", "wv"))}
    weights |= {"wo": random_weight(32, 20), "out": random_weight(20, 6)}
    shapes = {"split": np.array([0, 0, 4, 8]), "merge": np.array([0, 0, 32])}
    return model_of(ATTENTION, {**weights, **shapes})


RECURRENT = """g (float[7,batch,10] x) => (float[7,batch,3] y) {
  h, last, cell = LSTM<hidden_size=6>(x, w, r, b) s = Squeeze(h, axes) y = MatMul(s, out)
}"""


def recurrent() -> ir.Model:
    weights = {
        "w": random_weight(1, 24, 10), "r": random_weight(1, 24, 6), "b": random_weight(1, 48), "out": random_weight(6, 3),
        "axes": np.array([1]),
    }  # fmt: skip
    return model_of(RECURRENT, weights)


ATTENTION_OPERATOR = """g (float[batch,seq,24] x) => (float[batch,seq,6] y) {
  q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
  o = Attention<q_num_heads=4,kv_num_heads=2,scale=0.3>(q, k, v) y = MatMul(o, out)
}"""


def attention_operator() -> ir.Model:
    """Grouped queries, and values narrower than keys."""
    weights = {
        "wq": random_weight(24, 32),
        "wk": random_weight(24, 16),
        "wv": random_weight(24, 6),
        "out": random_weight(12, 6),
    }
    return model_of(ATTENTION_OPERATOR, weights, opset=23, ir_version=11)


CONSTANT_PRODUCT = """g (float[batch,4] x) => (float[batch,3] y) {
  w = MatMul(left, right) h = MatMul(x, w) r = Relu(h) y = MatMul(r, out)
}"""


def constant_product() -> ir.Model:
    """A weight that is a product of constants, which no inference computes."""
    return model_of(
        CONSTANT_PRODUCT, {"left": random_weight(4, 2), "right": random_weight(2, 8), "out": random_weight(8, 3)}
    )


MODELS = {
    "residual": residual,
    "attention": attention,
    "attention operator": attention_operator,
    "recurrent": recurrent,
    "constant product": constant_product,
}


def counted(model: ir.Model) -> tuple[int, int]:
    return cost(model).macs, sum(tensor.parameters for tensor in Weights(model).stored())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_costs_are_those_of_the_cut_model(name, mode, data):
    groups = ChannelGroups(propagate(MODELS[name]()), mode)
    assert groups.families
    costs = ChannelCosts(groups)
    alive = costs.survivors(
        {family: data.draw(st.integers(1, family.width), label=family.name) for family in groups.families}
    )
    model = MODELS[name]()
    assert (costs.macs(), costs.parameters()) == counted(model)
    cut(model, groups.propagation, alive)
    assert (costs.macs(alive), costs.parameters(alive)) == counted(model)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_cuts_of_both_modes_at_once(data):
    propagation = propagate(attention())
    rows, columns = (ChannelGroups(propagation, mode) for mode in MODES)
    costs = ChannelCosts(rows, also=[columns])
    alive = np.ones(propagation.constraints.count, dtype=bool)
    for groups in (rows, columns):
        widths = {family: data.draw(st.integers(1, family.width)) for family in groups.families}
        alive &= ChannelCosts(groups).survivors(widths)
    model = attention()
    cut(model, propagation, alive)
    assert (costs.macs(alive), costs.parameters(alive)) == counted(model)


def test_which_atoms_survive_does_not_matter():
    groups = ChannelGroups(propagate(residual()), "rows")
    costs = ChannelCosts(groups)
    first = groups.families[0]
    a, b = (groups.survivors({first: atoms}) for atoms in (first.atoms[:3], first.atoms[-3:]))
    assert costs.macs(a) == costs.macs(b) < costs.macs()


@pytest.mark.parametrize("mode", MODES)
def test_a_family_is_worth_what_cutting_it_saves(mode):
    groups = ChannelGroups(propagate(residual()), mode)
    costs = ChannelCosts(groups)
    for family in groups.families:
        worth = costs.of(family)
        half = costs.survivors({family: half_width(family)})
        step = costs.survivors({family: family.width - 1})
        assert worth.half_macs == costs.macs() - costs.macs(half)
        assert worth.half_parameters == costs.parameters() - costs.parameters(half) > 0
        assert worth.step_macs == costs.macs() - costs.macs(step)
        assert worth.step_parameters == costs.parameters() - costs.parameters(step) > 0
        assert worth.macs >= worth.half_macs >= worth.step_macs > 0


def test_a_bias_that_two_layers_share_counts_once_while_they_are_cut_alike():
    text = """g (float[1,4] x) => (float[1,3] y) {
      a = Gemm(x, w1, b) r = Relu(a) c = Gemm(r, w2, b) s = Relu(c) y = MatMul(s, out) }"""
    weights = {
        "w1": random_weight(4, 6),
        "w2": random_weight(6, 6),
        "b": np.ones(6, dtype=np.float32),
        "out": random_weight(6, 3),
    }
    for left, right in ((6, 6), (3, 3), (3, 6), (3, 2)):
        groups = ChannelGroups(propagate(model_of(text, weights)), "rows")
        one, two = groups.families
        costs = ChannelCosts(groups)
        alive = costs.survivors({one: left, two: right})
        model = model_of(text, weights)
        cut(model, groups.propagation, alive)
        assert costs.parameters(alive) == counted(model)[1]
        assert costs.bytes(alive) == 4 * costs.parameters(alive)


def test_macs_are_for_the_sizes_asked_for():
    groups = ChannelGroups(propagate(residual()), "rows")
    assert ChannelCosts(groups, sizes={"batch": 5}).macs() == 5 * ChannelCosts(groups).macs()


def test_nothing_to_cut_costs_nothing_less():
    model = model_of("g (float[2,3] x) => (float[2,4] y) { y = MatMul(x, w) }", {"w": random_weight(3, 4)})
    costs = ChannelCosts(ChannelGroups(propagate(model), "rows"))
    alive = costs.survivors({})
    assert (costs.macs(alive), costs.parameters(alive), costs.bytes(alive)) == (24, 12, 48)
    assert (costs.cuttable_macs, costs.cuttable_parameters) == (0, 0)
