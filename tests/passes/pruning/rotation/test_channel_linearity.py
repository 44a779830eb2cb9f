"""Which families have a basis that is free, and that no output changes whatever it is changed to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import model_of, random_feeds, random_weight, run
from channel_models.stored import feeds as stored_feeds
from channel_models.stored import load, names

from irc.analysis.channels import ChannelGroups, propagate
from irc.channel_oracles import relative_error
from irc.ir import snapshot
from irc.passes.pruning.rotation.channel_linearity import Linearity
from irc.passes.pruning.rotation.linear_operators import NotLinear
from irc.passes.pruning.rotation.rotation_edit import rotate
from irc.passes.pruning.rotation.rotation_moments import meetings_of

Array = np.ndarray[Any, Any]
Feeds = list[dict[str, Array]]
FEW = ("bart", "bert_opset23", "gpt2", "llama", "micro_packed_attention", "mobilenetv2", "swin_dynamo", "unet")


def turned_at_random(model: ir.Model, feeds: Feeds) -> tuple[dict[str, float], dict[str, str]]:
    """Every family whose basis is free, turned alone: the error of the outputs; and why others have none. By mode and name."""
    errors, reasons = {}, {}
    expected = run(model, feeds)
    propagation = propagate(snapshot(model))
    for mode in ("rows", "columns"):
        groups = ChannelGroups(propagation, mode)
        linearity = Linearity(groups)
        for family in groups.families:
            if mode == "columns" and family.cell_count == 1 and f"rows {family.name}" in errors:
                continue  # the same
            try:
                turn = linearity.turn(family)
                meetings_of(propagation, turn)
            except NotLinear as error:
                reasons[f"{mode} {family.name}"] = error.reason
                continue
            copy = snapshot(model)
            nodes = dict(zip(propagation.model.graph, copy.graph, strict=True))
            noise = np.random.default_rng(0).standard_normal((turn.units, family.width, family.width))
            rotate(copy, nodes, turn, np.eye(family.width) + noise / (2 * np.sqrt(family.width)))
            errors[f"{mode} {family.name}"] = max(
                relative_error(one, other) for one, other in zip(expected, run(copy, feeds), strict=True)
            )
    return errors, reasons


def assert_free(text: str, weights: Mapping[str, Array], *families: str, opset: int = 20, **sizes: int) -> None:
    """These and no other families have a free basis."""
    model = model_of(text, weights, opset=opset)
    errors, reasons = turned_at_random(model, random_feeds(model, sizes))
    assert sorted(errors) == sorted(families), reasons
    assert all(error < 1e-5 for error in errors.values()), errors


def reason(body: str, weights: Mapping[str, Array]) -> str:
    """Why the first family of x W0 -> body -> W1 has no free basis."""
    text = f"agraph (float[n, 5] x) => (float[n, 3] y) {{ a = MatMul(x, w0) {body} y = MatMul(b, w1) }}"
    model = model_of(text, {"w0": random_weight(5, 6), "w1": random_weight(6, 3), **weights})
    errors, reasons = turned_at_random(model, random_feeds(model, {"n": 4}))
    assert not errors
    return reasons["rows a"]


# -- stored models ----------------------------------------------------------------------------------------------------


def proved(name: str) -> int:
    model = load(name)
    if any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values()):
        pytest.skip("half precision, whose noise hides errors")
    errors, _reasons = turned_at_random(model, stored_feeds(name))
    assert all(error < 3e-5 for error in errors.values()), errors
    return len(errors)


@pytest.mark.parametrize("name", FEW)
def test_stored_models_stay_what_they_are(name):
    assert proved(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name not in FEW])
def test_all_stored_models_stay_what_they_are(name):
    proved(name)


# -- one kind at a time -----------------------------------------------------------------------------------------------


def test_products_and_biases():
    assert_free(
        """agraph (float[n, 5] x) => (float[n, 3] y) {
            a = MatMul(x, w0) b = Add(a, b0) c = Mul(b, two) d = Neg(c) y = Gemm<transB=1>(d, w1, b1) }""",
        {
            "w0": random_weight(5, 6),
            "b0": random_weight(6),
            "two": np.float32(2),
            "w1": random_weight(3, 6),
            "b1": random_weight(3),
        },
        "rows a",
        n=4,
    )


def test_a_residual_bottleneck_with_kernels_and_means():
    assert_free(
        """agraph (float[n, 3, 6, 6] x) => (float[n, 4] y) {
            a = Conv(x, w0, b0) b = Relu(a)
            c = Conv(b, w1, b1)
            d = Conv<pads=[1,1,1,1]>(c, w2) e = Relu(d) f = Conv(e, w3, b1) g = Add(c, f)
            h = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1]>(g) p = Pad(h, pads) i = GlobalAveragePool(p) j = Flatten(i)
            y = Gemm(j, w4) }""",
        {
            **{"w0": random_weight(12, 3, 1, 1), "b0": random_weight(12), "w1": random_weight(8, 12, 1, 1)},
            **{"b1": random_weight(8), "w2": random_weight(10, 8, 3, 3), "w3": random_weight(8, 10, 1, 1)},
            **{"pads": np.array([0, 0, 1, 0, 0, 0, 1, 0]), "w4": random_weight(8, 4)},
        },
        "rows c",
        n=2,
    )


def test_what_queries_and_keys_share_turns_both_ways_in_one_packed_weight():
    assert_free(
        """agraph (float[n, t, 8] x) => (float[n, t, 8] y) {
            a = MatMul(x, w) b = Add(a, bias) c = Reshape(b, split) d = Transpose<perm=[2,0,3,1,4]>(c)
            q = Gather<axis=0>(d, i0) k = Gather<axis=0>(d, i1) v = Gather<axis=0>(d, i2)
            kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) m = Mul(s, half) p = Softmax<axis=-1>(m) o = MatMul(p, v)
            o1 = Transpose<perm=[0,2,1,3]>(o) o2 = Reshape(o1, join) y = MatMul(o2, wo) }""",
        {
            **{"w": random_weight(8, 24), "bias": random_weight(24), "wo": random_weight(8, 8)},
            **{"split": np.array([0, 0, 3, 2, 4]), "join": np.array([0, 0, 8]), "half": np.float32(0.5)},
            **{"i0": np.array(0), "i1": np.array(1), "i2": np.array(2)},
        },
        "columns a",
        n=2,
        t=3,
    )


def test_the_operator_of_attention_keeps_heads_apart():
    assert_free(
        """agraph (float[n, t, 8] x) => (float[n, t, 8] y) {
            q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) o = Attention<q_num_heads=2, kv_num_heads=2>(q, k, v)
            y = MatMul(o, wo) }""",
        {name: random_weight(8, 8, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo"))},
        "columns q",
        "columns v",
        opset=23,
        n=2,
        t=3,
    )


def test_an_equation():
    assert_free(
        """agraph (float[n, 5] x) => (float[n, 3] y) {
            a = Einsum<equation="ni,ik->nk">(x, w0) y = Einsum<equation="nk,ok->no">(a, w1) }""",
        {"w0": random_weight(5, 6), "w1": random_weight(3, 6)},
        "rows a",
        n=4,
    )


# -- what stands in the way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "weights", "why"),
    [
        ("b = Relu(a)", {}, "Relu 'b' is not linear in the channel"),
        ("b = Mul(a, s)", {"s": random_weight(6)}, "Mul 'b' multiplies every channel by a number of its own"),
        ("b = Mul(a, a)", {}, "Mul 'b' multiplies channels with each other"),
        ("b = Add(a, s)", {"s": np.float32(1)}, "Add 'b' adds to channels what is none"),
        ("b = Div(s, a)", {"s": np.float32(1)}, "Div 'b' divides by channels"),
        ("t = Tanh(a) b = Add(a, t)", {}, "Tanh 't' is not linear in the channel"),
    ],
)
def test_reasons(body, weights, why):
    assert reason(body, weights) == why


def test_a_sum_with_nothing_is_none():
    assert_free(
        "agraph (float[n, 5] x) => (float[n, 3] y) { a = MatMul(x, w0) b = Add(a, zero) y = MatMul(b, w1) }",
        {"w0": random_weight(5, 6), "w1": random_weight(6, 3), "zero": np.float32(0)},
        "rows a",
        n=2,
    )


def test_depthwise_convolutions_and_padding_with_ones():
    def why(line: str, **weights: Array) -> str:
        text = f"agraph (float[n, 3, 6, 6] x) => (float[n, 2, h, w] y) {{ a = Conv(x, w0) {line} y = Conv(b, w1) }}"
        given = {"w0": random_weight(6, 3, 1, 1), "w1": random_weight(2, 6, 1, 1), **weights}
        model = model_of(text, given)
        errors, reasons = turned_at_random(model, random_feeds(model, {"n": 1}))
        assert not errors
        return reasons["rows a"]

    assert why("b = Conv<group=6>(a, d)", d=random_weight(6, 1, 3, 3)).startswith(
        "Conv 'b' works on channels one by one"
    )
    assert why("b = Pad(a, pads, one)", pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]), one=np.float32(1)) == (
        "Pad 'b' pads with something else than zeros"
    )


def test_a_weight_that_makes_and_reads_the_same_channels_is_refused():
    text = """agraph (float[n, 6] x) => (float[n, 3] y) {
        a = MatMul(x, w0) t = Transpose<perm=[1,0]>(w0) b = MatMul(a, t) c = MatMul(b, w0) y = MatMul(c, w1) }"""
    model = model_of(text, {"w0": random_weight(6, 5), "w1": random_weight(5, 3)})
    errors, reasons = turned_at_random(model, random_feeds(model, {"n": 2}))
    assert all(error < 1e-5 for error in errors.values()), errors
    assert all("multiplied with each other" in why or "sums" in why for why in reasons.values()), reasons
