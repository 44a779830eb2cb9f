"""Normalization: which labels meet scale and shift, and which cuts change what survivors compute."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from channel_kit import MODES, assert_exact, describe, model_of, random_feeds, random_weight

from irc.analysis.channels import channel_groups
from irc.channel_surgery import cut
from irc.ir import snapshot

W = random_weight


def positive(size: int, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return (np.random.default_rng(seed).random(size) + 0.5).astype(np.float32)


def between_convolutions(body: str, channels: int = 8) -> str:
    """A graph that convolves, does something to `h`, and convolves again."""
    return f"""g (float[n, 3, h, w] x) => (float[n, 5, h, w] y) {{
        h = Conv<kernel_shape=[1, 1]>(x, w1, b1)
        {body}
        y = Conv<kernel_shape=[1, 1]>(z, w2)
    }}"""


CONVOLUTIONS = {"w1": W(8, 3, 1, 1), "b1": W(8, seed=1), "w2": W(5, 8, 1, 1, seed=2)}
IMAGES = ({"n": 3, "h": 7, "w": 5}, {"n": 1, "h": 4, "w": 6})


def exact_families(model) -> dict[str, int]:  # type: ignore[no-untyped-def]
    return {mode: sum(not f.statistics for f in channel_groups(model, mode=mode).families) for mode in MODES}


def test_batch_normalization_is_exact() -> None:
    weights = {**CONVOLUTIONS, "s": W(8, seed=3), "b": W(8, seed=4), "m": W(8, seed=5), "v": positive(8)}
    model = model_of(between_convolutions("z = BatchNormalization(h, s, b, m, v)"), weights)
    proofs = assert_exact(model, random_feeds(model, *IMAGES), families=1)
    assert all(proof.cut == 1 and proof.effect > 1e-3 for proof in proofs.values())


def test_batch_normalization_in_training_pins() -> None:
    weights = {**CONVOLUTIONS, "s": W(8, seed=3), "b": W(8, seed=4), "m": W(8, seed=5), "v": positive(8)}
    body = "z, mean, var = BatchNormalization<training_mode=1>(h, s, b, m, v)"
    assert not channel_groups(model_of(between_convolutions(body), weights)).families


def test_instance_normalization_is_exact() -> None:
    weights = {**CONVOLUTIONS, "s": W(8, seed=3), "b": W(8, seed=4)}
    model = model_of(between_convolutions("z = InstanceNormalization(h, s, b)"), weights)
    proofs = assert_exact(model, random_feeds(model, *IMAGES), families=1)
    assert all(proof.cut == 1 for proof in proofs.values())


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_group_normalization(groups: int) -> None:
    weights = {**CONVOLUTIONS, "s": W(8, seed=3), "b": W(8, seed=4)}
    body = f"z = GroupNormalization<num_groups={groups}>(h, s, b)"
    model = model_of(between_convolutions(body), weights, opset=21)
    assert_exact(model, random_feeds(model, *IMAGES), families=1)
    exact = {"rows": int(groups > 1), "columns": int(groups == 8)}
    assert exact_families(model) == exact


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_decomposed_group_normalization(groups: int) -> None:
    weights = {
        **CONVOLUTIONS,
        "split": np.array([0, groups, -1]),
        "one": np.ones(groups, np.float32),
        "zero": np.zeros(groups, np.float32),
        "s": W(8, 1, 1, seed=3),
        "b": W(8, 1, 1, seed=4),
    }
    body = """a = Reshape(h, split)
        i = InstanceNormalization(a, one, zero)
        shape = Shape(h)
        r = Reshape(i, shape)
        t = Mul(r, s)
        z = Add(t, b)"""
    model = model_of(between_convolutions(body), weights)
    assert_exact(model, random_feeds(model, *IMAGES), families=1)
    assert exact_families(model) == {"rows": int(groups > 1), "columns": 0}


HIDDEN = {"w1": W(6, 8), "w2": W(8, 5, seed=2)}
TOKENS = ({"n": 3, "s": 4}, {"n": 1, "s": 9})


def between_products(body: str) -> str:
    return f"""g (float[n, s, 6] x) => (float[n, s, 5] y) {{
        h = MatMul(x, w1)
        {body}
        y = MatMul(z, w2)
    }}"""


@pytest.mark.parametrize(
    ("body", "opset"),
    [
        ("z = LayerNormalization<axis=-1>(h, s, b)", 20),
        ("z = LayerNormalization(h, s)", 20),
        ("z = RMSNormalization(h, s)", 23),
        ("z = LpNormalization<axis=2>(h)", 20),
        ("z = MeanVarianceNormalization<axes=[2]>(h)", 20),
        ("z = com.microsoft.SkipLayerNormalization(h, h, s, b, b2)", 20),
        ("z = com.microsoft.SkipSimplifiedLayerNormalization(h, h, s, b2)", 20),
        ("k, m, i, z = com.microsoft.SkipLayerNormalization(h, h, s, b, b2)", 20),
    ],
)
def test_normalization_of_the_cut_axis_is_a_statistic(body: str, opset: int) -> None:
    weights = {**HIDDEN, "s": W(8, seed=3), "b": W(8, seed=4), "b2": W(8, seed=5)}
    model = model_of(between_products(body), weights, opset=opset)
    assert_exact(model, random_feeds(model, *TOKENS), families=1)
    assert exact_families(model) == {"rows": 0, "columns": 0}


def test_layer_normalization_of_heads() -> None:
    """Each head on its own: heads may go exactly, dimensions of heads change a statistic, the same in every head."""
    weights = {**HIDDEN, "split": np.array([0, 0, 4, 2]), "join": np.array([0, 0, -1]), "s": W(2, seed=3)}
    body = """a = Reshape(h, split)
        l = LayerNormalization<axis=-1>(a, s)
        z = Reshape(l, join)"""
    model = model_of(between_products(body), weights)
    assert_exact(model, random_feeds(model, *TOKENS), families=1)
    assert exact_families(model) == {"rows": 1, "columns": 0}


def test_moments_of_layer_normalization() -> None:
    """The mean has an axis of size 1 where labels were, which pins nothing."""
    weights = {**HIDDEN, "s": W(8, seed=3), "b": W(8, seed=4)}
    body = """k, m, i = LayerNormalization<axis=-1>(h, s, b)
        t = Mul(k, i)
        z = Add(t, m)"""
    model = model_of(between_products(body), weights)
    assert_exact(model, random_feeds(model, *TOKENS), families=1)


def test_normalization_of_another_axis_is_exact() -> None:
    weights = {**HIDDEN}
    body = """z = LpNormalization<axis=1>(h)"""
    model = model_of(between_products(body), weights)
    proofs = assert_exact(model, random_feeds(model, *TOKENS), families=1)
    assert proofs["rows"].cut == 1


def test_local_response_normalization_pins() -> None:
    model = model_of(between_convolutions("z = LRN<size=3>(h)"), CONVOLUTIONS)
    groups = channel_groups(model)
    assert not groups.families and "neighbouring" in describe(groups)


@pytest.mark.parametrize("kind", ["GroupNorm", "SkipGroupNorm"])
def test_runtime_group_norm_counts_its_groups(kind: str) -> None:
    """ONNX Runtime has no kernel for the CPU, so that the labels are compared with those of the standard operator."""
    body = "c = Transpose<perm=[0, 2, 3, 1]>(h)\n"
    body += (
        "d = com.microsoft.GroupNorm<groups=4, activation=1, epsilon=0.00001, channels_last=1>(c, s, b)"
        if kind == "GroupNorm"
        else "d = com.microsoft.SkipGroupNorm<groups=4, activation=1, channels_last=1>(c, s, b, c)"
    )
    body += "\nz = Transpose<perm=[0, 3, 1, 2]>(d)"
    model = model_of(between_convolutions(body), {**CONVOLUTIONS, "s": W(8, seed=3), "b": W(8, seed=4)})
    groups = channel_groups(model)
    assert [(len(f.atoms), bool(f.statistics)) for f in groups.families] == [(4, False)]
    assert exact_families(model) == {"rows": 1, "columns": 0}
    small = snapshot(model)
    cut(small, groups.propagation, groups.survivors({groups.families[0]: groups.families[0].atoms[:3]}))
    assert next(n for n in small.graph if n.op_type == kind).attributes.get_int("groups") == 3


def unchecked(text: str, weights: dict[str, np.ndarray], opset: int) -> ir.Model:  # type: ignore[type-arg]
    """A model with operators that ONNX Runtime has and the checker of onnx refuses."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> ' + text)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return ir.from_proto(proto)


def test_simplified_normalization_of_the_standard_domain() -> None:
    text = between_products("z = SimplifiedLayerNormalization(h, s)").replace("y) {", "y) <float[n, s, 8] z> {")
    model = unchecked(text, {**HIDDEN, "s": W(8, seed=3)}, 20)
    assert_exact(model, random_feeds(model, *TOKENS), families=1)
    assert exact_families(model) == {"rows": 0, "columns": 0}


@pytest.mark.parametrize("groups", [2, 4])
def test_group_normalization_of_opset_18(groups: int) -> None:
    """Its scale and bias have one element per group."""
    text = between_convolutions(f"z = GroupNormalization<num_groups={groups}>(h, s, b)")
    model = unchecked(text, {**CONVOLUTIONS, "s": W(groups, seed=3), "b": W(groups, seed=4)}, 18)
    assert_exact(model, random_feeds(model, *IMAGES), families=1)
    assert exact_families(model) == {"rows": 1, "columns": 0}
    assert any(axis.slot.name == "s" for axis in channel_groups(model).families[0].axes)


def test_embedding_normalization() -> None:
    weights = {
        "words": W(11, 8),
        "places": W(7, 8, seed=1),
        "kinds": W(3, 8, seed=2),
        "s": W(8, seed=3),
        "b": W(8, seed=4),
        "w2": W(8, 5, seed=5),
    }
    text = """g (int32[n, s] ids, int32[n, s] kind) => (float[n, s, 5] y) {
        z, index = com.microsoft.EmbedLayerNormalization(ids, kind, words, places, kinds, s, b)
        y = MatMul(z, w2)
    }"""
    model = model_of(text, weights)
    assert_exact(model, random_feeds(model, {"n": 2, "s": 4}), families=1)
