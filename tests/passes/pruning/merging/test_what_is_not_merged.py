"""What merge-channels leaves alone, and the reason it gives."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from channel_kit import model_of, random_weight
from merging_kit import (
    BOTH,
    PASS,
    TWO_INNER,
    TWO_READERS,
    chain,
    copied,
    equal,
    merge,
    residual,
    unchanged,
    width,
)
from pruning_models import attention, normalized
from scaling_kit import apply, context, difference

from irc.application import apply_pass
from irc.ir import snapshot
from irc.pass_base import Context
from irc.pipeline import Step
from irc.selection import Selection


def test_statistics_and_heads():
    assert "a statistic changes: LayerNormalization 'l'" in unchanged(normalized())["e"]
    reasons = unchanged(attention())
    assert "without data, channels are not followed through Softmax 'p'" in reasons.values()
    twice = attention()
    for name in ("wq", "wk", "wv"):
        value = twice.graph.initializers[name]
        assert value.const_value is not None
        heads = value.const_value.numpy().copy()
        heads[:, 16:24] = heads[:, :8]
        value.const_value = ir.tensor(heads, name=name)
    feeds = [{"x": np.random.default_rng(i).standard_normal((2, 7, 16)).astype("f")} for i in range(12)]
    outcome = apply(PASS, twice, context(feeds, target=None))
    assert list(outcome.remarks.values()) == [
        "4 -> 3 blocks of 8 channels, 1 merged, at most 0.0% of a channel's energy lost"
    ]
    assert difference(twice, outcome.model, feeds[0]) < 1e-5


@pytest.mark.parametrize(
    "text",
    [
        "agraph (float[n, 4] x, float[4, 8] w0) => (float[n, 2] y) { a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) }",
        "agraph (float[n, 4] x) => (float[n, 2] y, float[n, 8] a) { a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) }",
        """agraph (float[n, 4] x, bool c) => (float[n, 2] y) { a = MatMul(x, w0)
            y = If (c) <then_branch = t () => (float[n, 2] o) { o = MatMul(a, w1) },
                        else_branch = e () => (float[n, 2] p) { p = MatMul(a, w1) }> }""",
    ],
)
def test_what_others_see_stays(text):
    weight = copied(random_weight(4, 8), {3: (0, 1.0)}, axis=1)
    assert not merge(model_of(text, {"w0": weight, "w1": random_weight(8, 2)})).record.rewritten


def test_a_reader_whose_weight_is_used_elsewhere():
    text = """agraph (float[n, 3] x, float[n, 8] z) => (float[n, 4] y, float[n, 4] v) {
        a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) v = MatMul(z, w1)
    }"""
    weight = copied(random_weight(3, 8), {3: (0, 1.0)}, axis=1)
    assert not merge(model_of(text, {"w0": weight, "w1": random_weight(8, 4)})).record.rewritten


def test_two_branches_that_share_a_weight():
    """Both products read the same family by one weight: it is corrected nowhere."""
    text = """agraph (float[n, 3] x) => (float[n, 4] y, float[n, 4] v) {
        a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) c = Neg(b) v = MatMul(c, w1)
    }"""
    weight = copied(random_weight(3, 8), {3: (0, 1.0)}, axis=1)
    reasons = unchanged(model_of(text, {"w0": weight, "w1": random_weight(8, 4)}))
    assert "used elsewhere too" in reasons["a"]


def test_channels_that_something_else_sums_over():
    text = """agraph (float[n, 5, 3] x) => (float[n, 4, 5] y) {
        a = MatMul(x, w0) b = Relu(a) c = MatMul(x, w1) d = Transpose<perm=[0,2,1]>(c) e = MatMul(b, d) f = Transpose<perm=[0,2,1]>(e)
        g = MatMul(w2, f) y = Identity(g)
    }"""
    weights = {"w0": random_weight(3, 8), "w1": random_weight(3, 8, seed=1), "w2": random_weight(4, 5)}
    reasons = unchanged(model_of(text, weights))
    assert "mixes its channels" in reasons["a"]


@BOTH
def test_weights_that_are_not_finite(data):
    weight = random_weight(4, 8, 3, 3)
    weight[1, 2, 0, 0] = np.nan
    reasons = unchanged(chain({3: (0, 1.0)}, w1=weight), data=data)
    assert "not finite" in reasons["a"]


def test_excluded_and_denied_families_stay():
    weight = copied(random_weight(6, 8, 1, 1), {4: (1, 1.0)})
    model = chain({3: (0, 2.0)}, text=TWO_INNER, w2=weight, b2=np.ones(6, "f"), w1=random_weight(4, 6, 3, 3))
    whole = merge(model)
    assert set(whole.remarks) == {"a", "c"} and width(whole.model) == 7 and width(whole.model, "w2") == 5
    equal(model, whole.model)
    denied = merge(model, denied=["a"])
    assert set(denied.remarks) == {"c"} and width(denied.model) == 8 and width(denied.model, "w2") == 5
    equal(model, denied.model)
    copy = snapshot(model)
    record = apply_pass(Step(PASS, Selection.of(exclude=["c"])), copy, Context()).record
    assert [entry.site for entry in record.rewritten] == ["a"] and width(copy, "w2") == 6
    assert {entry.site: entry.reason for entry in record.skipped}["c"] == "excluded by name:c"
    equal(model, copy)


def test_few_rows_tell_nothing():
    model = chain({}, text=TWO_READERS, w2=random_weight(2, 8))
    reasons = apply(
        PASS, model, context([pass_kit.feeds(model, symbol=1, seed=i) for i in range(5)], target=None)
    ).skipped
    assert "4 rows, and 16 are needed" in reasons["a"]


def test_a_state_mixes_channels():
    text = """agraph (float[5, n, 3] x) => (float[5, n, 2] y) {
        h = RNN<hidden_size=8>(x, w, r) s = Squeeze(h, axis) y = MatMul(s, w1)
    }"""
    weights = {
        "w": random_weight(1, 8, 3),
        "r": random_weight(1, 8, 8),
        "axis": np.array([1]),
        "w1": random_weight(8, 2),
    }
    for data in (False, True):
        reasons = unchanged(model_of(text, weights), data=data)
        assert any("mixes its channels in its state" in reason for reason in reasons.values())


def test_what_differs_in_one_part_of_a_sum_is_not_alike():
    model = residual({3: (0, 2.0)})
    value = model.graph.initializers["b2"]
    assert value.const_value is not None
    bias = value.const_value.numpy().copy()
    bias[3] += 3
    value.const_value = ir.tensor(bias, name="b2")
    assert unchanged(model)
