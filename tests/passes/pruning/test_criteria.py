"""Criteria select what they say, and what weighs nothing is cut for nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_feeds, random_weight, run
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_models import attention, cnn, mlp

from irc.analysis.channels import channel_groups
from irc.application import apply_pass
from irc.channel_oracles import relative_error
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.pruning.criteria import SCORES
from irc.passes.pruning.prune_channels import PruneChannels
from irc.passes.pruning.weight_roles import produced_axes
from irc.pipeline import Step


def prune(pass_: PruneChannels, model: ir.Model) -> ir.Model:
    """The pass on a copy."""
    copy = snapshot(model)
    assert apply_pass(Step(pass_), copy, Context()).record.rewritten
    return copy


def scores(model: ir.Model, criterion: str, name: str) -> np.ndarray:
    """Of the family of a name, in the order of its channels."""
    groups = channel_groups(model)
    return SCORES[criterion](groups, Context())[groups.family(name)]  # type: ignore[index]


def test_the_group_criterion_adds_squares_of_all_that_makes_and_reads_a_channel():
    w0, w1, w2 = random_weight(32, 24, 3, 3), random_weight(24, 32, 3, 3), random_weight(32)
    expected = (w0**2).sum(axis=(1, 2, 3)) + (w1**2).sum(axis=(0, 2, 3))  # and no bias
    assert scores(cnn(w1=w0, w2=w1, b1=w2), "group", "c") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("criterion", "power"), [("l1", 1), ("l2", 2)])
def test_row_criteria_take_what_makes_a_channel_alone(criterion, power):
    w0 = random_weight(32, 24, 3, 3)
    assert scores(cnn(w1=w0), criterion, "c") == pytest.approx((np.abs(w0) ** power).sum(axis=(1, 2, 3)), rel=1e-5)


def test_what_makes_a_residual_stream_is_all_that_adds_to_it():
    """Its stem, the second convolution of the block, and the depthwise one behind it."""
    w0, w2, w3 = random_weight(24, 3, 3, 3), random_weight(24, 32, 3, 3), random_weight(24, 1, 3, 3)
    expected = sum((w**2).sum(axis=(1, 2, 3)) for w in (w0, w2, w3))
    assert scores(cnn(w0=w0, w2=w2, w3=w3), "l2", "a") == pytest.approx(expected, rel=1e-5)


def test_a_bias_is_not_what_a_channel_is_worth_and_a_scale_is():
    text = """agraph (float[n, 4, 5, 5] x) => (float[n, 2, 5, 5] y) {
        a = Conv(x, w0) b = BatchNormalization(a, scale, bias, mean, var) c = Relu(b) y = Conv(c, w1)
    }"""
    weights = {"w0": np.ones((8, 4, 1, 1), "f"), "w1": np.ones((2, 8, 1, 1), "f"), "scale": np.arange(8, dtype="f")}
    weights |= {"bias": np.arange(8, dtype="f")[::-1].copy() * 9, "mean": np.zeros(8, "f"), "var": np.ones(8, "f")}
    assert scores(model_of(text, weights), "group", "a") == pytest.approx(6 + np.arange(8) ** 2)


@pytest.mark.parametrize(
    ("text", "shape", "axes"),
    [
        ("y = MatMul(x, w)", (4, 6), {1}),
        ("y = Gemm<transB=1>(x, w)", (6, 4), {0}),
        ("t = Transpose(w) y = MatMul(x, t)", (6, 4), {0}),
        ('y = Einsum<equation="nk,ko->no">(x, w)', (4, 6), {1}),
        ('y = Einsum<equation="nk,ok->no">(x, w)', (6, 4), {0}),
    ],
)
def test_which_axis_makes_channels(text, shape, axes):
    model = model_of(f"agraph (float[n, 4] x) => (float[n, 6] y) {{ {text} }}", {"w": random_weight(*shape)})
    (slot,) = channel_groups(model).propagation.slots
    assert produced_axes(slot) == axes


@pytest.mark.parametrize("criterion", ["group", "l1", "l2"])
def test_planted_small_channels_go(criterion):
    w0, w1 = random_weight(10, 20), random_weight(20, 3, seed=1)
    small = [1, 4, 5, 11, 19]
    w0[:, small] *= 0.01
    w1[small] *= 0.01
    text = "agraph (float[n, 10] x) => (float[n, 3] y) { a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) }"
    cut = prune(PruneChannels(ratio=0.25, criterion=criterion), model_of(text, {"w0": w0, "w1": w1}))
    stay = [i for i in range(20) if i not in small]
    assert np.array_equal(cut.graph.initializers["w0"].const_value.numpy(), w0[:, stay])
    assert np.array_equal(cut.graph.initializers["w1"].const_value.numpy(), w1[stay])


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_cutting_what_weighs_nothing_changes_nothing(seed, count):
    """The inner channels of a block, all of whose weights are zero, whichever they are."""
    gone = np.random.default_rng(seed).permutation(32)[:count]
    w1, w2, b1 = random_weight(32, 24, 3, 3), random_weight(24, 32, 3, 3), random_weight(32, seed=3)
    w1[gone], w2[:, gone], b1[gone] = 0, 0, 0
    model = cnn(seed=seed, w1=w1, w2=w2, b1=b1)
    copy = snapshot(model)
    pass_ = PruneChannels(ratio=(count + 0.5) / 32)
    from irc.selection import Selection

    record = apply_pass(Step(pass_, Selection.of(include=["c"])), copy, Context()).record
    assert record.rewritten[0].reason == f"32 -> {32 - count} channels, 0.0% of its group score"
    feeds = random_feeds(model, {"n": 2}, seed=seed)
    assert relative_error(run(model, feeds)[0], run(copy, feeds)[0]) < 1e-5


def test_heads_that_weigh_nothing_go_without_a_trace():
    model = attention()
    for name in ("wq", "wk", "wv"):
        weight = model.graph.initializers[name].const_value.numpy().copy()
        weight[:, 8:16] = 0
        model.graph.initializers[name].const_value = ir.tensor(weight, name=name)
    weight = model.graph.initializers["wo"].const_value.numpy().copy()
    weight[8:16] = 0
    model.graph.initializers["wo"].const_value = ir.tensor(weight, name="wo")
    copy = snapshot(model)
    from irc.selection import Selection

    record = apply_pass(Step(PruneChannels(ratio=0.25), Selection.of(include=["q0"])), copy, Context()).record
    assert record.rewritten[0].reason.startswith("4 -> 3 blocks of 8 channels, 0.0%")
    feeds = random_feeds(model, {"n": 2, "t": 5})
    assert relative_error(run(model, feeds)[0], run(copy, feeds)[0]) < 1e-5


def test_ties_go_by_the_seed_alone():
    weights = {"w0": np.ones((4, 16), "f"), "w1": np.arange(32, dtype="f").reshape(16, 2) * 0 + 1}
    weights["w1"][:, 0] = np.where(np.arange(16) % 2, 1, -1)  # of one magnitude, and told apart
    text = "agraph (float[n, 4] x) => (float[n, 2] y) { a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) }"
    found = []
    for seed in (0, 0, 1):
        copy = snapshot(model_of(text, weights))
        apply_pass(Step(PruneChannels(ratio=0.5)), copy, Context(seed=seed))
        found.append(copy.graph.initializers["w1"].const_value.numpy().tobytes())
    assert found[0] == found[1] != found[2]


def test_a_network_scaled_as_a_whole_is_cut_alike():
    model, scaled = mlp(6, 14, 9, 3), mlp(6, 14, 9, 3)
    for value in scaled.graph.initializers.values():
        value.const_value = ir.tensor(value.const_value.numpy() * 1000, name=value.name)
    a, b = (prune(PruneChannels(macs=0.5, scope="global"), m) for m in (model, scaled))
    assert np.array_equal(
        a.graph.initializers["w0"].const_value.numpy() * np.float32(1000),
        b.graph.initializers["w0"].const_value.numpy(),
    )


@pytest.mark.parametrize("criterion", ["group", "l1", "l2"])
@pytest.mark.parametrize(
    ("dtype", "scale"), [("f4", 1e-25), ("f4", 1e25), ("f8", 1e120), ("f8", 1e-120), ("f2", 300.0)]
)
@pytest.mark.filterwarnings("error")
def test_squares_that_leave_the_range_of_single_precision_still_rank(dtype, scale, criterion):
    """They would all be zero or infinite, and chance would choose."""
    name = {"f2": "float16", "f4": "float", "f8": "double"}[dtype]
    text = f"agraph ({name}[n, 2] x) => ({name}[n, 2] y) {{ a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) }}"
    sizes = np.random.default_rng(0).permutation(16) + 1
    first = np.stack([sizes, sizes]) * scale / 16
    model = model_of(text, {"w0": first.astype(dtype), "w1": np.full((16, 2), scale / 16).astype(dtype)})
    small = prune(PruneChannels(ratio=0.5, criterion=criterion), model)
    left = small.graph.initializers["w0"].const_value.numpy()
    assert np.array_equal(left, first.astype(dtype)[:, sizes > 8])
