"""rotate-channels: what turns, what stays and why, that nothing changes by it, and that cutting behind it loses less."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from channel_kit import model_of, random_weight
from scaling_kit import apply, context, difference, samples

from irc.analysis.channels import ChannelGroups, propagate
from irc.application import apply_pass
from irc.calibration.block_removal import without
from irc.channel_surgery import cut
from irc.decisions import Decisions
from irc.errors import UsageError
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.pruning.rotation.rotate_channels import RotateChannels
from irc.passes.quantization.layer_sample import Layer
from irc.pipeline import Step
from irc.selection import Selection
from irc.testing import assert_conforms

Array = np.ndarray[Any, Any]
PASS = RotateChannels()

BOTTLENECK = """agraph (float[n, 3, 6, 6] x) => (float[n, 9, 6, 6] y) {
    a = Conv(x, w0, b0) b = Relu(a)
    c = Conv(b, w1, b1) d = Conv<pads=[1,1,1,1]>(c, w2, b2) e = Relu(d) f = Conv(e, w3, b3) g = Add(c, f)
    y = Conv<pads=[1,1,1,1]>(g, w4, b4)
}"""
ATTENTION = """agraph (float[n, t, 8] x) => (float[n, t, 5] y) {
    q0 = MatMul(x, wq) q1 = Add(q0, bq) k0 = MatMul(x, wk) k1 = Add(k0, bk) v0 = MatMul(x, wv) v1 = Add(v0, bv)
    q2 = Reshape(q1, split) k2 = Reshape(k1, split) v2 = Reshape(v1, split)
    q = Transpose<perm=[0,2,1,3]>(q2) k = Transpose<perm=[0,2,3,1]>(k2) v = Transpose<perm=[0,2,1,3]>(v2)
    s = MatMul(q, k) m = Mul(s, scale) p = Softmax<axis=-1>(m) o = MatMul(p, v)
    o1 = Transpose<perm=[0,2,1,3]>(o) o2 = Reshape(o1, join) o3 = MatMul(o2, wo) y = Add(o3, bo)
}"""
PACKED = """agraph (float[n, t, 8] x) => (float[n, t, 5] y) {
    a = MatMul(x, w) b = Add(a, bias) q0, k0, v0 = Split<axis=-1, num_outputs=3>(b)
    q1 = Reshape(q0, split) k1 = Reshape(k0, split) v1 = Reshape(v0, split)
    q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,3,1]>(k1) v = Transpose<perm=[0,2,1,3]>(v1)
    s = MatMul(q, k) p = Softmax<axis=-1>(s) o = MatMul(p, v)
    o1 = Transpose<perm=[0,2,1,3]>(o) o2 = Reshape(o1, join) y = MatMul(o2, wo)
}"""


def spread(*shape: int, seed: int, axis: int) -> Array:
    """A weight whose channels along an axis hang together, so that few directions hold most of them."""
    rng = np.random.default_rng([seed, *shape])
    mixing = rng.standard_normal((shape[axis], shape[axis])) * np.logspace(0, -1, shape[axis])
    weight = np.moveaxis(rng.standard_normal(shape), axis, -1) @ mixing.T / np.sqrt(np.prod(shape))
    return np.ascontiguousarray(np.moveaxis(weight, -1, axis), np.float32)


def bottleneck(**changed: Array) -> ir.Model:
    """A stream of 8 channels with a residual sum, read by a 3x3 convolution twice."""
    weights = {
        **{
            "w0": random_weight(16, 3, 1, 1),
            "w1": spread(8, 16, 1, 1, seed=1, axis=0),
            "w2": random_weight(12, 8, 3, 3),
        },
        **{"w3": spread(8, 12, 1, 1, seed=2, axis=0), "w4": random_weight(9, 8, 3, 3, seed=5)},
        **{f"b{i}": random_weight(n, seed=i) for i, n in enumerate((16, 8, 12, 8, 9))},
    }
    return model_of(BOTTLENECK, {**weights, **changed})


def attention(*, heads: int = 2, **changed: Array) -> ir.Model:
    """Heads of 6 dimensions, with all biases."""
    width = 6 * heads
    weights: dict[str, Array] = {f"w{name}": spread(8, width, seed=i, axis=1) for i, name in enumerate("qkv")}
    weights |= {f"b{name}": random_weight(width, seed=i) for i, name in enumerate("qkv")}
    weights |= {"wo": random_weight(width, 5), "bo": random_weight(5), "scale": np.float32(0.5)}
    weights |= {"split": np.array([0, 0, heads, 6]), "join": np.array([0, 0, width])}
    return model_of(ATTENTION, {**weights, **changed})


def packed() -> ir.Model:
    """The same with one product for queries, keys and values."""
    weights = {"w": spread(8, 36, seed=0, axis=1), "bias": random_weight(36), "wo": random_weight(12, 5)}
    return model_of(PACKED, {**weights, "split": np.array([0, 0, 2, 6]), "join": np.array([0, 0, 12])})


MODELS = {
    "bottleneck": (bottleneck, {"c"}),
    "attention": (attention, {"q0:columns", "v0"}),
    "packed": (packed, {"a:columns", "a#2"}),
}


def weight(model: ir.Model, name: str) -> Array:
    """An initializer."""
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def skipped(model: ir.Model, pass_: RotateChannels = PASS) -> Mapping[str, str]:
    """Reasons, nothing having turned."""
    outcome = apply(pass_, model, context(samples(model, count=4)))
    assert outcome.remarks == {} and pass_kit.text(outcome.model) == pass_kit.text(model)
    return outcome.skipped


# -- promises -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_outputs_stay_and_channels_turn(name):
    build, sites = MODELS[name]
    model = build()
    feeds = samples(model, count=6)
    ctx = context(feeds)
    outcome = apply(PASS, model, ctx)
    assert set(outcome.remarks) == sites
    assert all("of its channels would lose" in remark for remark in outcome.remarks.values())
    assert pass_kit.text(outcome.model) != pass_kit.text(model)
    assert all(difference(model, outcome.model, feed) < 1e-5 for feed in feeds)
    assert [node.op_type for node in outcome.model.graph] == [node.op_type for node in model.graph]
    again = apply(PASS, outcome.model, ctx)
    assert again.remarks == {}
    assert all(again.skipped[site] == "its basis was changed before" for site in sites)
    replayed = apply(PASS, model, Context(target="ort", decisions=Decisions(ctx.decisions.kept)))
    assert pass_kit.text(replayed.model) == pass_kit.text(outcome.model)


@pytest.mark.parametrize("name", MODELS)
def test_conforms(name):
    model = MODELS[name][0]()
    feeds = samples(model, count=4)
    assert_conforms(PASS, model, must_fire=True, sharing="skip", context=context(feeds), feeds=feeds[:1])


def test_a_turned_model_from_a_file_gains_nothing_more():
    model = bottleneck()
    feeds = samples(model, count=6)
    outcome = apply(PASS, model, context(feeds))
    outcome.model.meta.clear()
    assert apply(PASS, outcome.model, context(feeds)).skipped["c"].startswith("another basis gains too little")


def test_a_plan_leaves_what_it_left():
    model = attention()
    ctx = context(samples(model, count=4))
    apply(PASS, model, ctx)
    kept = {key: value for key, value in ctx.decisions.kept.items() if "/q0:columns/" not in key}
    replayed = apply(PASS, model, Context(target="ort", decisions=Decisions(kept)))
    assert set(replayed.remarks) == {"v0"} and replayed.skipped["q0:columns"] == "the plan leaves it as it is"


def test_sites_are_independent():
    model = packed()
    feeds = samples(model, count=4)
    values = apply(PASS, model, context(feeds), denied=["a:columns"])
    assert set(values.remarks) == {"a#2"}
    assert np.array_equal(weight(values.model, "w")[:, :24], weight(model, "w")[:, :24])
    both = apply(PASS, model, context(feeds))
    assert np.array_equal(weight(values.model, "w")[:, 24:], weight(both.model, "w")[:, 24:])


def test_equal_biases_that_layers_share_come_apart():
    model = attention()
    for name in ("k", "v"):
        node = next(n for n in model.graph if n.outputs[0].name == f"{name}1")
        node.replace_input_with(1, model.graph.initializers["bq"])
    feeds = samples(model, count=4)
    outcome = apply(PASS, model, context(feeds))
    assert set(outcome.remarks) == {"q0:columns", "v0"}
    assert all(difference(model, outcome.model, feed) < 1e-5 for feed in feeds)


# -- what it is for ---------------------------------------------------------------------------------------------------


def readers(model: ir.Model) -> list[Layer]:
    """Both convolutions that read the stream."""
    nodes = [
        n for n in model.graph if n.op_type == "Conv" and n.inputs[0] is not None and n.inputs[0].name in ("c", "g")
    ]
    return [layer for layer in map(Layer.of, nodes) if layer is not None]


def repaired(model: ir.Model, layer: Layer, kept: tuple[int, ...], gram: Array) -> tuple[Array, Array]:
    """The matrix of a reader, and the best one that reads what is kept only."""
    old = layer.matrices(weight(model, layer.node.inputs[1].name))[0].astype(np.float64)
    gone = ~np.isin(layer.channel_of_input[0], kept)
    return old, without(old.T, gram, gone, damping=1e-6).T


def local_error(model: ir.Model, kept: tuple[int, ...], grams: dict[str, Any]) -> float:
    """The sum of both readers' errors, each by the energy of its outputs."""
    total = 0.0
    for layer in readers(model):
        gram = grams[layer.source][1]
        old, new = repaired(model, layer, kept, gram)
        total += float(np.trace((old - new).T @ gram @ (old - new)) / np.trace(old.T @ gram @ old))
    return total


def cut_error(model: ir.Model, kept: tuple[int, ...], feeds: list[pass_kit.Feed], grams: dict[str, Any]) -> float:
    """Energy of the output's error when channels of the stream are cut and both readers make up for them."""
    student = snapshot(model)
    groups = ChannelGroups(propagate(model), "rows")
    family = groups.family("c")
    for layer in readers(student):
        mean, gram = grams[layer.source]
        name, bias = layer.node.inputs[1].name, layer.node.inputs[2].name
        old, new = repaired(student, layer, kept, gram)
        student.graph.initializers[name].const_value = ir.tensor(layer.tensor(new[None]).astype(np.float32))
        shifted = (weight(student, bias) + mean @ (old - new)).astype(np.float32)
        student.graph.initializers[bias].const_value = ir.tensor(shifted)
    cut(student, groups.propagation, groups.survivors({family: family.atoms[list(kept)]}))
    return sum(
        float(((one - other) ** 2).sum())
        for feed in feeds
        for one, other in zip(pass_kit.run(model, feed), pass_kit.run(student, feed), strict=True)
    )


def grams_of(model: ir.Model, feeds: list[pass_kit.Feed]) -> dict[str, Any]:
    """Mean and centred gram of what both readers of the stream take in."""
    found = {}
    for layer in readers(model):
        probe = snapshot(model)
        probe.graph.outputs[:] = [next(o for n in probe.graph for o in n.outputs if o.name == layer.source)]
        rows = np.concatenate([layer.rows(pass_kit.run(probe, feed)[0])[0] for feed in feeds]).astype(np.float64)
        found[layer.source] = rows.mean(axis=0), np.cov(rows.T, bias=True)
    return found


def test_the_first_channels_after_turning_beat_every_subset_before():
    model = bottleneck()
    feeds = samples(model, count=4)
    turned = apply(PASS, model, context(feeds)).model
    before, after = grams_of(model, feeds), grams_of(turned, feeds)
    subsets = sorted(itertools.combinations(range(8), 4), key=lambda kept: local_error(model, kept, before))
    first = (0, 1, 2, 3)
    assert local_error(turned, first, after) < 0.7 * local_error(model, subsets[0], before)
    assert cut_error(turned, first, feeds, after) < 0.8 * min(
        cut_error(model, kept, feeds, before) for kept in subsets[:5]
    )


def scores_error(model: ir.Model, kept: tuple[int, ...], feeds: list[pass_kit.Feed]) -> float:
    """Energy of the error of the weights of attention when dimensions of queries and keys are cut, alike in all heads."""
    groups = ChannelGroups(propagate(model), "columns")
    family = groups.family("q0")
    student = snapshot(model)
    atoms = np.concatenate([family.members(cell)[list(kept)] for cell in range(family.cell_count)])
    cut(student, groups.propagation, groups.survivors({family: atoms}))
    total = 0.0
    for one in (model, student):
        one.graph.outputs[:] = [next(o for n in one.graph for o in n.outputs if o.name == "p")]
    for feed in feeds:
        total += float(((pass_kit.run(model, feed)[0] - pass_kit.run(student, feed)[0]) ** 2).sum())
    return total


def test_queries_and_keys_lose_least_at_the_end():
    model = attention(heads=1)
    feeds = samples(model, count=3)
    turned = apply(PASS, model, context(feeds)).model
    best = min(scores_error(snapshot(model), kept, feeds) for kept in itertools.combinations(range(6), 3))
    assert scores_error(turned, (0, 1, 2), feeds) < 0.8 * best


# -- what stays -------------------------------------------------------------------------------------------------------


def test_without_data_nothing_turns():
    outcome = apply(PASS, bottleneck(), Context(target="ort"))
    assert outcome.remarks == {} and list(outcome.skipped.values()) == [
        "it decides by data, and there are none; give --data"
    ]


def test_channels_behind_a_relu_stay():
    reasons = skipped(bottleneck(), RotateChannels(least_gain=1.0))
    assert reasons["a"] == "Relu 'b' is not linear in the channel"
    assert reasons["c"].startswith("another basis gains too little")


def test_a_stream_that_is_an_output_stays():
    model = model_of(
        BOTTLENECK.replace("9, 6, 6] y)", "9, 6, 6] y, float[n, 8, 6, 6] g)"),
        {name: weight(bottleneck(), name) for name in bottleneck().graph.initializers},
    )
    assert "c" not in skipped(model)


def test_an_initializer_that_is_an_input_stays():
    text = BOTTLENECK.replace("x)", "x, float[8, 16, 1, 1] w1)", 1)
    given = {name: weight(bottleneck(), name) for name in bottleneck().graph.initializers if name != "w1"}
    model = model_of(text, given)
    assert apply(PASS, model, context(samples(model, count=3))).remarks == {}


@pytest.mark.parametrize(("bad", "why"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_weights_that_are_not_finite_stay(bad, why):
    model = bottleneck(b1=np.full(8, bad, np.float32))
    reasons = skipped_without_running(model)
    assert why in reasons["c"]


def test_half_precision_stays():
    model = attention()
    text = ATTENTION.replace("float[", "float16[")
    given = {name: weight(model, name) for name in model.graph.initializers}
    half = {name: array.astype(np.float16) if array.dtype == np.float32 else array for name, array in given.items()}
    assert "float16" in skipped(model_of(text, half))["v0"]


def skipped_without_running(model: ir.Model) -> Mapping[str, str]:
    """Reasons of a model whose values cannot be observed."""

    def observe(model: ir.Model, observables: Any) -> Any:
        assert not observables
        raise AssertionError("nothing is to be observed")

    outcome = apply(PASS, model, Context(target="ort", observe=observe))
    assert outcome.remarks == {}
    return outcome.skipped


def test_what_the_user_excludes_is_not_observed():
    model = bottleneck()
    ctx = context(samples(model, count=3))
    selection = Selection.of(exclude=["name:c"])
    record = apply_pass(Step(PASS, selection), snapshot(model), ctx).record
    assert not record.rewritten and not ctx.decisions.kept


@pytest.mark.parametrize("least_gain", [-0.1, 1.5])
def test_options(least_gain):
    with pytest.raises(ValueError, match="least_gain"):
        RotateChannels(least_gain=least_gain)


def test_a_plan_of_another_build_is_refused_in_words():
    model = bottleneck()
    outcome = apply(PASS, model, Context(target="ort", decisions=Decisions({})))
    assert outcome.skipped["c"] == "the plan leaves it as it is"
    with pytest.raises(UsageError):
        Decisions({}).remember("rotate-channels/c/1x8", dict)
