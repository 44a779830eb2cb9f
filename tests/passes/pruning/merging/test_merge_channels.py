"""merge-channels: what is found alike, what is merged and what stays, and that duplicates go without a trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from channel_kit import model_of, random_feeds, random_weight, run
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_models import attention, cnn, mlp, normalized
from scaling_kit import Outcome, apply, context, difference, samples
from twin_channels import with_twins

import irc.ir
from irc import PassManager, pipeline
from irc.analysis.channels import ChannelGroups, propagate
from irc.analysis.channels.costs import ChannelCosts
from irc.application import apply_pass
from irc.channel_surgery import cut
from irc.decisions import Decisions
from irc.errors import PassOptionError, UsageError
from irc.ir import interface, snapshot
from irc.pass_base import Context
from irc.passes.pruning.merging.decision import Merging
from irc.passes.pruning.merging.merge_channels import MergeChannels
from irc.passes.pruning.merging.representatives import merge_path, representatives
from irc.pipeline import Step
from irc.selection import Selection
from irc.testing import assert_conforms
from irc.testing.channel_graphs import channel_models
from irc.testing.integrity import model_bytes

Array = np.ndarray[Any, Any]
PASS = MergeChannels(round_to=1)
BOTH = pytest.mark.parametrize("data", [False, True], ids=["weights", "data"])

CHAIN = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) b = ACT(a) y = Conv<pads=[1,1,1,1]>(b, w1, b1)
}"""
TWO_READERS = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y, float[n, 2] z) {
    a = Conv(x, w0, b0) b = Relu(a) y = Conv<pads=[1,1,1,1]>(b, w1, b1)
    p = GlobalAveragePool(b) q = Flatten(p) z = Gemm<transB=1>(q, w2)
}"""
TWO_INNER = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) b = Relu(a) c = Conv(b, w2, b2) d = Relu(c) y = Conv<pads=[1,1,1,1]>(d, w1, b1)
}"""
RESIDUAL = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, w1, b1) d = Relu(c)
    e = Conv(d, w2, b2) s = Add(r, e) t = Relu(s) y = Conv(t, w3, b3)
}"""
DEPTHWISE = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) b = Relu(a) c = Conv<pads=[1,1,1,1], group=8>(b, w2, b2) d = Relu(c) y = Conv(d, w1, b1)
}"""
GATED = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) b = Relu(a) p = GlobalAveragePool(b) q = Conv(p, w2) r = Relu(q) s = Conv(r, w3) t = Sigmoid(s)
    u = Mul(b, t) y = Conv(u, w1, b1)
}"""


def copied(array: Array, copies: Mapping[int, tuple[int, float]], *, axis: int = 0) -> Array:
    """An array with channels that are multiples of others."""
    found = np.moveaxis(array.copy(), axis, 0)
    for channel, (of, factor) in copies.items():
        found[channel] = factor * found[of]
    return np.ascontiguousarray(np.moveaxis(found, 0, axis))


def chain(copies: Mapping[int, tuple[int, float]], act: str = "Relu", text: str = CHAIN, **changed: Array) -> ir.Model:
    """8 channels, some of them made as multiples of others."""
    weights = {
        "w0": copied(random_weight(8, 3, 1, 1), copies),
        "b0": copied(random_weight(8), copies),
        "w1": random_weight(4, 8, *((3, 3) if "pads=[1,1,1,1]>(b, w1" in text else (1, 1))),
        "b1": random_weight(4),
    }
    text = text.replace("ACT", act)
    if act == "PRelu":
        text, weights = (
            text.replace("PRelu(a)", "PRelu(a, slopes)"),
            {**weights, "slopes": np.full((8, 1, 1), 0.1, "f")},
        )
    return model_of(text, {**weights, **changed})


def residual(copies: Mapping[int, tuple[int, float]]) -> ir.Model:
    """A stream of 8 channels, made and read twice."""
    weights = {
        f"w{i}": random_weight(*shape, seed=i)
        for i, shape in enumerate([(8, 3, 1, 1), (6, 8, 3, 3), (8, 6, 1, 1), (4, 8, 1, 1)])
    }
    weights |= {f"b{i}": random_weight(n, seed=9 + i) for i, n in enumerate((8, 6, 8, 4))}
    weights |= {name: copied(weights[name], copies) for name in ("w0", "b0", "w2", "b2")}
    return model_of(RESIDUAL, weights)


def merge(model: ir.Model, pass_: MergeChannels = PASS, *, data: bool | int = False, **more: Any) -> Outcome:
    """The pass on a copy, with random samples or none."""
    ctx = context(samples(model, count=8), target=None) if data else Context()
    return apply(pass_, model, ctx, **more)


def unchanged(model: ir.Model, pass_: MergeChannels = PASS, *, data: bool = False) -> dict[str, str]:
    """Reasons, nothing having been merged."""
    outcome = merge(model, pass_, data=data)
    assert outcome.remarks == {} and pass_kit.text(outcome.model) == pass_kit.text(model)
    return outcome.skipped


def equal(model: ir.Model, small: ir.Model, tolerance: float = 1e-5) -> None:
    """That outputs are equal up to rounding, on fresh inputs."""
    for feed in random_feeds(model, {"n": 2}, {"n": 5}, seed=77):
        for expected, found in zip(run(model, [feed])[0], run(small, [feed])[0], strict=True):
            assert np.abs(expected - found).max() <= tolerance * np.abs(expected).max()


def width(model: ir.Model, name: str = "w0") -> int:
    """Channels that a weight makes."""
    value = model.graph.initializers[name].const_value
    assert value is not None
    return int(value.shape[0])


def error(model: ir.Model, other: ir.Model) -> float:
    """Mean square of what the first output differs by."""
    (feed,) = random_feeds(model, {"n": 64}, seed=5)
    return float(np.square(run(model, [feed])[0][0] - run(other, [feed])[0][0]).mean())


# -- promises ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"macs": 0.8}, {"ratio": 0.4}, {"parameters": 0.8, "scope": "family"}])
@BOTH
def test_conforms(options, data):
    model = chain({3: (0, 1.0), 5: (2, 2.0)})
    ctx = context(samples(model, count=6), target=None) if data else Context()
    assert_conforms(MergeChannels(round_to=1, **options), {"chain": model}, must_fire=True, context=ctx, sharing="skip")


@BOTH
def test_duplicates_go_without_a_trace(data):
    model = chain({3: (0, 1.0), 6: (0, 1.0), 5: (2, 1.0)})
    outcome = merge(model, data=data)
    assert width(outcome.model) == 5 and interface(model).difference(interface(outcome.model)) is None
    assert outcome.remarks == {"a": "8 -> 5 channels, 3 merged, at most 0.0% of a channel's energy lost"}
    assert "MACs" in outcome.record.summary
    equal(model, outcome.model)


@pytest.mark.parametrize("act", ["Relu", "LeakyRelu<alpha=0.1>", "PRelu", "Identity"])
@BOTH
def test_scaled_ones_behind_what_is_homogeneous(act, data):
    model = chain({3: (0, 2.5), 5: (2, 0.25)}, act)
    outcome = merge(model, data=data)
    assert width(outcome.model) == 6
    equal(model, outcome.model)


@BOTH
def test_negated_ones_where_all_is_linear(data):
    model = chain({3: (0, -1.5)}, "Identity")
    outcome = merge(model, data=data)
    assert width(outcome.model) == 7
    equal(model, outcome.model)
    assert unchanged(chain({3: (0, -1.5)}, "Relu"), data=data)["a"] == "no channel is like another one"


@pytest.mark.parametrize("act", ["Gelu", "Sigmoid", "Clip", "HardSwish", "Tanh"])
def test_only_equal_ones_behind_anything_else(act):
    act_text = "Clip" if act == "Clip" else act
    model = chain({3: (0, 1.0)}, act_text)
    outcome = merge(model)
    assert width(outcome.model) == 7
    equal(model, outcome.model)
    assert unchanged(chain({3: (0, 2.0)}, act_text))["a"] == "no channel is like another one"


def test_slopes_must_be_equal_too():
    slopes = np.full((8, 1, 1), 0.1, "f")
    slopes[3] = 0.4
    assert unchanged(chain({3: (0, 2.0)}, "PRelu", slopes=slopes))


def test_an_offset_goes_into_the_bias_by_data():
    bias = random_weight(8)
    bias[3] = bias[0] + 2.0
    text = CHAIN.replace("Conv<pads=[1,1,1,1]>", "Conv")
    model = chain(
        {}, "Identity", text, w0=copied(random_weight(8, 3, 1, 1), {3: (0, 1.0)}), b0=bias, w1=random_weight(4, 8, 1, 1)
    )
    outcome = merge(model, data=True)
    assert width(outcome.model) == 7
    equal(model, outcome.model)
    assert unchanged(model)


@BOTH
def test_two_readers_are_corrected_both(data):
    model = chain({3: (0, 2.0)}, text=TWO_READERS, w2=random_weight(2, 8))
    outcome = merge(model, data=data)
    assert width(outcome.model) == 7
    equal(model, outcome.model)


@BOTH
def test_a_residual_stream(data):
    model = residual({3: (0, 2.0), 5: (2, 1.0)})
    outcome = merge(model, data=data)
    assert width(outcome.model) == 6 and set(outcome.remarks) == {"a"}
    equal(model, outcome.model)


def test_what_differs_in_one_part_of_a_sum_is_not_alike():
    model = residual({3: (0, 2.0)})
    value = model.graph.initializers["b2"]
    assert value.const_value is not None
    bias = value.const_value.numpy().copy()
    bias[3] += 3
    value.const_value = ir.tensor(bias, name="b2")
    assert unchanged(model)


@BOTH
def test_through_a_depthwise_convolution(data):
    """Filters that go along are folded in the likeness; others make channels unlike."""
    filters, bias = random_weight(8, 1, 3, 3), random_weight(8, seed=4)
    same = {"w2": copied(filters, {3: (0, 0.5)}), "b2": copied(bias, {3: (0, 1.0)})}
    model = chain({3: (0, 2.0)}, text=DEPTHWISE, **same)
    outcome = merge(model, data=data)
    assert width(outcome.model) == 7
    equal(model, outcome.model)
    assert unchanged(chain({3: (0, 2.0)}, text=DEPTHWISE, w2=filters, b2=bias), data=data)


def test_a_gate_between():
    """The gate belongs to the channel: equal channels with unlike gates are not alike."""
    gates = {"w2": random_weight(6, 8, 1, 1), "w3": 4 * random_weight(8, 6, 1, 1)}
    unlike = {**gates, "w3": copied(gates["w3"], {3: (0, -1.0)})}
    text = GATED.replace("6, 6", "1, 1")  # an input of one position, so that gates vary
    assert "a" not in merge(chain({3: (0, 1.0)}, text=text, **unlike), data=True).remarks
    assert "a" not in merge(chain({3: (0, 1.0)}, text=text, **unlike)).remarks
    alike = {**gates, "w3": copied(gates["w3"], {3: (0, 1.0)})}
    for data in (False, True):
        model = chain({3: (0, 1.0)}, text=GATED, **alike)
        outcome = merge(model, data=data)
        assert width(outcome.model) == 7
        equal(model, outcome.model)


@BOTH
def test_positions_behind_a_flatten(data):
    text = """agraph (float[n, 3, 2, 2] x) => (float[n, 5] y) {
        a = Conv(x, w0, b0) b = Relu(a) f = Flatten(b) y = Gemm<transB=1, alpha=0.5>(f, w1, b1)
    }"""
    model = chain({3: (0, 2.0)}, text=text, w1=random_weight(5, 32), b1=random_weight(5))
    outcome = merge(model, data=data)
    assert width(outcome.model) == 7
    equal(model, outcome.model)


def test_a_batch_normalization_between():
    text = CHAIN.replace("b = ACT(a)", "c = BatchNormalization(a, scale, shift, mean, var) b = Relu(c)")
    norm = {
        "scale": copied(random_weight(8, seed=1), {3: (0, 2.0)}),
        "shift": copied(random_weight(8, seed=2), {3: (0, 6.0)}),
        "mean": copied(random_weight(8, seed=3), {3: (0, 3.0)}),
        "var": np.ones(8, "f"),
    }
    norm["scale"] = np.abs(norm["scale"])
    model = chain({3: (0, 3.0)}, text=text, **norm)
    outcome = merge(model)
    assert width(outcome.model) == 7 and width(outcome.model, "scale") == 7
    equal(model, outcome.model)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 8.0)), min_size=1, max_size=4), st.booleans())
@settings(max_examples=15, deadline=None)
def test_any_multiples_go_without_a_trace(multiples, linear):
    copies = {4 + i: (of, -factor if linear else factor) for i, (of, factor) in enumerate(multiples)}
    model = chain(copies, "Identity" if linear else "Relu")
    outcome = merge(model)
    assert width(outcome.model) == 8 - len(copies)
    equal(model, outcome.model)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_twins_in_random_networks_go_without_a_trace(factor):
    merged = 0
    for network in channel_models(24, seed=6):
        model, _families = with_twins(network.model, factor=factor)
        outcome = merge(model, MergeChannels(similarity=1.0, round_to=1))
        merged += len(outcome.remarks)
        feed = network.feeds()
        for expected, found in zip(run(model, [feed])[0], run(outcome.model, [feed])[0], strict=True):
            integers = any(
                "integer" in step or "uantiz" in step for step in network.steps
            )  # stored anew, on another grid
            np.testing.assert_allclose(
                found, expected, rtol=1e-3, atol=(0.05 if integers else 1e-4) * np.abs(expected).max(initial=1e-6)
            )
    assert merged >= (20 if factor == 1 else 3)


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


def test_two_applications_are_equal_bytes():
    model = residual({3: (0, 2.0)})
    pass_ = MergeChannels(macs=0.8, round_to=1)
    assert model_bytes(merge(model, pass_, data=True).model) == model_bytes(merge(model, pass_, data=True).model)


# -- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["macs", "parameters"])
@pytest.mark.parametrize("scope", ["auto", "family", "global"])
@BOTH
def test_the_budget_is_met(what, scope, data):
    model = cnn(width=16)
    outcome = merge(model, MergeChannels(**{what: 0.7}, scope=scope, round_to=1), data=data)
    counts = [getattr(ChannelCosts(ChannelGroups(propagate(m), "rows")), what)() for m in (model, outcome.model)]
    assert 0.6 < counts[1] / counts[0] <= 0.7


def test_a_merge_loses_less_than_removal():
    """The same channels gone, without anything that stands for them and with."""
    model, pass_ = cnn(width=16), MergeChannels(ratio=0.3, round_to=1)
    ctx = context(samples(model, count=16), target=None)
    outcome = apply(pass_, model, ctx)
    merging = Merging(model, pass_, ctx)
    plain = snapshot(model)
    cut(plain, merging.propagation, merging.alive(merging.open))
    assert set(outcome.remarks) == {place.id for place in merging.open}
    assert error(model, outcome.model) < 0.8 * error(model, plain)


def test_the_most_alike_go_first():
    model = chain({3: (0, 2.0), 5: (2, 1.0)})
    for data in (False, True):
        outcome = merge(model, MergeChannels(ratio=0.25, round_to=1), data=data)
        assert width(outcome.model) == 6
        equal(model, outcome.model)


def test_a_budget_out_of_reach_says_how_far_it_goes():
    with pytest.raises(
        UsageError, match=r"macs=0.01 cannot be reached, only 0\.\d+; ask for less, or allow more: a larger"
    ):
        merge(cnn(), MergeChannels(macs=0.01, round_to=1))
    with pytest.raises(UsageError, match="there is no family to merge in"):
        merge(mlp(4, 3), MergeChannels(parameters=0.5))


def test_rounding_takes_less():
    model = chain({3: (0, 1.0), 5: (2, 1.0), 6: (1, 1.0)})
    outcome = merge(model, MergeChannels(round_to=2))
    assert width(outcome.model) == 6
    equal(model, outcome.model)
    assert unchanged(model, MergeChannels(round_to=8))["a"] == "3 of 8 could be merged, fewer than a step of 8"
    assert width(merge(model, MergeChannels(round_to=1, minimum=7)).model) == 7


def test_once_is_enough():
    model = chain({3: (0, 1.0)})
    once = merge(model).model
    again = merge(once)
    assert (
        not again.record.rewritten and again.record.skipped[0].reason == "the model was merged by these options before"
    )


# -- what stays and why -----------------------------------------------------------------------------------------------


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


def test_a_budget_missed_because_families_are_left_out_is_told():
    pass_, model = MergeChannels(macs=0.6, round_to=1), cnn(width=16)
    manager = PassManager([pass_], verify=False, limits={"merge-channels": 1})
    assert (
        manager.run(model, Context()).ledger["merge-channels"].summary.endswith("above macs=0.6, which was asked for")
    )
    assert "asked for" not in merge(model, pass_).record.summary


def test_float16():
    half = np.float16
    text = CHAIN.replace("float[", "float16[").replace("ACT", "Relu")
    weights = {
        "w0": copied(random_weight(8, 3, 1, 1), {3: (0, 2.0)}).astype(half),
        "b0": copied(random_weight(8), {3: (0, 2.0)}).astype(half),
        "w1": random_weight(4, 8, 3, 3).astype(half),
        "b1": random_weight(4).astype(half),
    }
    outcome = merge(model_of(text, weights))
    assert width(outcome.model) == 7
    found = outcome.model.graph.initializers["w1"].const_value
    assert found is not None and found.dtype == ir.DataType.FLOAT16 and list(found.shape) == [4, 7, 3, 3]


def test_a_missing_bias():
    text = CHAIN.replace("(x, w0, b0)", "(x, w0)").replace("(b, w1, b1)", "(b, w1)")
    weights = {"w0": copied(random_weight(8, 3, 1, 1), {3: (0, 2.0)}), "w1": random_weight(4, 8, 3, 3)}
    for data in (False, True):
        model = model_of(text.replace("ACT", "Relu"), weights)
        outcome = merge(model, data=data)
        assert width(outcome.model) == 7
        equal(model, outcome.model)


# -- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pass_", [PASS, MergeChannels(macs=0.8, round_to=1)])
def test_a_plan_gives_the_same_bytes_without_data(pass_, monkeypatch):
    model = residual({3: (0, 2.0), 5: (1, 1.0)})
    outcome = merge(model, pass_, data=True)
    monkeypatch.setattr(Merging, "_decided", None)
    replayed = apply(pass_, model, Context(decisions=Decisions(outcome.decisions.kept)))
    assert replayed.remarks and model_bytes(replayed.model) == model_bytes(outcome.model)
    with pytest.raises(UsageError, match="the plan has no decision"):
        apply(MergeChannels(ratio=0.4, round_to=1), model, Context(decisions=Decisions(outcome.decisions.kept)))


def test_the_guard_is_told_which_family_lost_most():
    model, pass_ = cnn(width=16), MergeChannels(ratio=0.3, round_to=1)
    ctx = Context()
    outcome = apply(pass_, model, ctx)
    errors = pass_.site_errors(model, outcome.model, list(outcome.remarks), ctx)
    assert errors is not None and set(errors) == set(outcome.remarks) and all(0 < e < 1 for e in errors.values())


def test_it_is_proved_where_asked():
    model = residual({3: (0, 2.0)})
    ctx = context(samples(model, count=4), target=None, prove=True)
    outcome = apply(PASS, model, ctx)
    assert "proved on" in outcome.record.summary
    equal(model, outcome.model)


def test_it_survives_a_file(tmp_path):
    model = chain({3: (0, 2.0)})
    small = merge(model).model
    irc.ir.save(small, tmp_path / "small.onnx")
    found = irc.ir.load(tmp_path / "small.onnx")
    equal(model, found)
    assert not merge(found).record.rewritten


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("similarity=0.9,macs=0.5", "at most one of similarity"),
        ("macs=1.5", "macs is 1.5"),
        ("similarity=0", "similarity is 0"),
        ("ratio=0.95", "raise largest_cut"),
        ("minimum=0", "minimum is 0"),
        ("round_to=0", "round_to is 0"),
        ("scope=some", "scope"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(PassOptionError, match=message):
        pipeline.parse(f"merge-channels{{{options}}}")


@pytest.mark.parametrize("options", [{"likeness": "data"}, {"scope": "measured", "macs": 0.8}])
def test_what_needs_data_says_so(options):
    with pytest.raises(UsageError, match="needs data; give --data"):
        merge(chain({}), MergeChannels(**options))


# -- the order of going -----------------------------------------------------------------------------------------------


def test_members_move_on_when_their_representative_goes():
    lost = np.array([[0, 1, 9, 5], [1, 0, 9, 2], [9, 9, 0, 9], [5, 2, 9, 0]], float)
    path = merge_path(lost)
    assert path.order[1:].tolist()[::-1][0] == 0  # 0 goes into 1 for 1; then 3 into 1 for 2
    assert path.added[-1] == 1 and path.added[-2] == 2 and np.isinf(path.added[0]) and path.least == 1
    gone, into = representatives(lost, np.array([False, False, True, True]))
    assert gone.tolist() == [0, 1] and into.tolist() == [3, 3]


@given(st.integers(2, 9), st.integers(0, 1 << 30), st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_added_is_what_the_loss_grows_by(count, seed, holes):
    rng = np.random.default_rng(seed)
    lost = rng.random((count, count))
    if holes:
        lost[rng.random((count, count)) < 0.5] = np.inf
    path = merge_path(lost)
    before = 0.0
    for left in range(count - 1, path.least - 1, -1):
        kept = np.isin(np.arange(count), path.order[:left])
        gone, into = representatives(lost, kept)
        assert (into >= 0).all()
        now = float(lost[gone, into].sum())
        assert now - before == pytest.approx(path.added[left])
        before = now


def test_nothing_alike_leaves_the_order_empty():
    path = merge_path(np.full((4, 4), np.inf))
    assert path.least == 4 and sorted(path.order.tolist()) == [0, 1, 2, 3]


def test_a_difference_shows():
    """The helper that says outputs are equal can fail."""
    model = chain({})
    outcome = merge(model, MergeChannels(ratio=0.5, round_to=1))
    assert difference(model, outcome.model, random_feeds(model, {"n": 2})[0]) > 0.01
