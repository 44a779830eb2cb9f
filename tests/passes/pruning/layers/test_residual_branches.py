"""Residual branches are found by structure, and only where nothing else needs what they compute."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from channel_kit import random_weight
from residual_models import inferred, resnet, stream

from irc.analysis.model_cost import cost
from irc.ir import refresh_shapes
from irc.passes.pruning.layers.repeated_layers import repeated_layers
from irc.passes.pruning.layers.residual_branches import Branch, NoBranch, residual_branches

W = {"w": random_weight(8, 8), "v": random_weight(8, 8, seed=1)}
BROADCAST = "agraph (float[1, 8] x) => (float[4, 8] y)"
HEAD = "agraph (float[n, 8] x) => (float[n, 8] y)"


def found(model: ir.Model) -> list[Branch | NoBranch]:
    return list(residual_branches(model, {node.node: node.macs for node in cost(model).nodes}))


def branches(model: ir.Model) -> list[Branch]:
    return [item for item in found(model) if isinstance(item, Branch)]


def free(model: ir.Model) -> list[str]:
    return [branch.id for branch in branches(model) if branch.refused is None]


def of(body: str, head: str = HEAD, **weights) -> ir.Model:
    return inferred(
        f"{head} {{ {body} }}",
        {
            name: w
            for name, w in {**W, **weights}.items()
            if name in body.replace("(", " ").replace(",", " ").replace(")", " ").split()
        },
    )


def test_every_form_of_block():
    assert free(stream("fanb")) == ["s1", "s2", "j2", "j3"]


def test_both_of_two_branches_side_by_side_by_their_own_names():
    (first, second) = branches(stream("p"))
    assert (first.id, second.id) == ("a0", "f0") and first.add is second.add and {first.index, second.index} == {0, 1}
    assert first.shortcut.name == second.shortcut.name == "s0" and first.joined.name == "s1"
    assert [node.op_type for node in first.inner].count("LayerNormalization") == 0  # both need it


def test_side_by_side_in_a_chain_of_sums():
    model = of("a = MatMul(x, w)  b = MatMul(x, v)  s = Add(x, a)  y = Add(s, b)")
    assert free(model) == ["s", "y"]
    assert {branch.joined.name for branch in branches(model)} == {"y"}


def test_channels_lie_on_the_axis_of_the_product():
    assert {branch.axis for branch in branches(resnet())} == {1}
    assert {branch.axis for branch in branches(stream("fa"))} == {2}
    text = "t = Transpose<perm=[0, 2, 3, 1]>(x) m = MatMul(t, w) u = Transpose<perm=[0, 3, 1, 2]>(m) y = Add(x, u)"
    model = of(text, "agraph (float[n, 8, 4, 4] x) => (float[n, 8, 4, 4] y)")
    assert branches(model)[0].axis == 1


def test_a_projected_shortcut_is_none():
    items = found(resnet())
    assert free(resnet()) == ["s1", "s3"]
    (other,) = [item for item in items if isinstance(item, NoBranch)]
    assert other.add.outputs[0].name == "s2" and "neither of 'h' and 'k' is computed from the other" in other.reason
    assert free(resnet(projected=False)) == ["s1", "s2", "s3"]


def test_elementwise_terms_are_no_branches():
    model = of("c = Mul(x, x) d = Mul(c, x) y = Add(x, d)")
    assert found(model) == []


@pytest.mark.parametrize("steps", ["i = Identity(x)", "f = Reshape(x, flat) i = Reshape(f, back)"])
def test_a_shortcut_through_what_keeps_elements(steps):
    shapes = {"flat": np.array([-1]), "back": np.array([-1, 8])}
    model = of(f"{steps} a = MatMul(x, w) y = Add(i, a)", **(shapes if "flat" in steps else {}))
    assert free(model) == ["y"]


@pytest.mark.parametrize(
    ("body", "also", "reason"),
    [
        ("a = MatMul(x, w) z = Relu(a) y = Add(x, a)", "z", "its inner value 'a' is read outside of it, by Relu 'z'"),
        ("a = MatMul(x, w) b = MatMul(a, v) y = Add(x, b)", "a", "its inner value 'a' is an output"),
        ("a = MatMul(x, w) y = Add(x, a)", "a", "its inner value 'a' is an output"),
    ],
)
def test_what_is_needed_elsewhere_stays(body, also, reason):
    (branch,) = branches(of(body, f"agraph (float[n, 8] x) => (float[n, 8] y, float[n, 8] {also})"))
    assert branch.refused == reason


def test_a_reader_in_a_body_counts():
    text = """c = Greater(q, q)
        a = MatMul(x, w)
        z = If (c) <then_branch = g1 () => (float[n, 8] t) { t = Relu(a) }, else_branch = g2 () => (float[n, 8] e) { e = Abs(a) }>
        y = Add(x, a)"""
    model = of(text, "agraph (float[n, 8] x, float q) => (float[n, 8] y, float[n, 8] z)")
    (branch,) = branches(model)
    assert branch.refused == "its inner value 'a' is read outside of it, by If 'z'"


def test_what_looks_at_a_shape_only_is_no_reader_of_numbers():
    model = of("h = Shape(x) a = Reshape(x, h) b = MatMul(a, w) s = Shape(b) c = Reshape(b, s) y = Add(x, c)")
    assert free(model) == ["y"]


def test_a_shortcut_that_is_broadcast_stays():
    model = of("a = MatMul(x, w) b = Expand(a, four) y = Add(x, b)", BROADCAST, four=np.array([4, 8]))
    (branch,) = branches(model)
    assert branch.same_shape is False and branch.refused == "its shortcut 'x' has another shape than the sum"


def test_integers_are_not_looked_at():
    model = of("a = Mul(x, x) y = Add(x, a)", "agraph (int64[n, 4] x) => (int64[n, 4] y)")
    assert found(model) == []


def test_the_smallest_branch_counts():
    """y = x + h + g(h) with h = f(x): g is a branch of h."""
    model = of("a = MatMul(x, w) h = Relu(a) g = MatMul(h, v) s = Add(x, h) y = Add(s, g)")
    by_name = {branch.id: branch for branch in branches(model)}
    assert by_name["y"].shortcut.name == "h" and by_name["y"].refused is None
    assert by_name["s"].refused == "its inner value 'a' is read outside of it, by Relu 'h'"


def test_layers_are_what_repeats():
    def lengths(model: ir.Model) -> list[int]:
        return [len(layer) for layer in repeated_layers([b for b in branches(model) if b.refused is None])]

    assert lengths(stream("fafafaf")) == [2, 2, 2, 1]
    assert lengths(resnet(projected=False)) == [1, 1, 1]
    assert lengths(stream("faaffaaf")) == [4, 4]
    assert lengths(stream("afafaafaaf")) == [2, 2, 3, 3]


EXPECTED = {
    "bert": 4,
    "bert_torchscript": 4,
    "bert_qdq": 4,
    "convnext": 4,
    "falcon": 4,
    "gpt2": 4,
    "gpt2_opset23": 4,
    "gpt_neox": 4,
    "llama": 4,
    "mixer": 4,
    "mobilenetv2": 2,
    "resnet": 2,
    "resnet_qdq": 2,
    "swin_dynamo": 8,
    "t5_dynamo": 10,
    "vgg": 0,
    "unet": 0,
    "vit": 4,
    "whisper": 10,
}
"""Branches by stored model: two per transformer layer, three per decoder layer, one per block with an identity."""


@pytest.mark.parametrize("name", EXPECTED)
def test_stored_models(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "channel_models"))
    stored = sys.modules.get("stored") or __import__("stored")
    model = stored.load(name)
    refresh_shapes(model)
    assert len(free(model)) == EXPECTED[name]
