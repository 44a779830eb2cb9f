"""merge-channels: what is found alike and merged, and that duplicates go without a trace."""

from __future__ import annotations

import functools

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_feeds, random_weight, run
from hypothesis import given, settings
from hypothesis import strategies as st
from merging_kit import (
    BOTH,
    CHAIN,
    DEPTHWISE,
    GATED,
    TWO_READERS,
    chain,
    copied,
    equal,
    merge,
    residual,
    unchanged,
    width,
)
from scaling_kit import context, difference, samples
from twin_channels import with_twins

from irc.ir import interface
from irc.pass_base import Context
from irc.passes.pruning.merging.merge_channels import MergeChannels
from irc.testing import assert_conforms
from irc.testing.channel_graphs import ChannelModel, channel_models


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


@functools.cache
def networks() -> tuple[ChannelModel, ...]:
    return tuple(channel_models(24, seed=6))


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_twins_in_random_networks_go_without_a_trace(factor):
    merged = 0
    for network in networks():
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


def test_a_difference_shows():
    """The helper that says outputs are equal can fail."""
    model = chain({})
    outcome = merge(model, MergeChannels(ratio=0.5, round_to=1))
    assert difference(model, outcome.model, random_feeds(model, {"n": 2})[0]) > 0.01
