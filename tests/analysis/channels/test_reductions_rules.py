"""Reductions, softmax and pooling: which axes pass, which change a statistic, which stay."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import MODES, Array, assert_exact, describe, model_of, random_feeds, random_weight

from irc.analysis.channels import channel_groups

W = random_weight
TOKENS = ({"n": 3, "s": 4}, {"n": 1, "s": 9})
IMAGES = ({"n": 3}, {"n": 1})
HIDDEN: dict[str, Array] = {"w1": W(6, 8), "w2": W(8, 5, seed=2)}
KINDS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum"),
    *("ReduceLogSumExp", "ReduceSumSquare"),
)


def between_products(body: str, *, more: str = "") -> str:
    return f"""g (float[n, s, 6] x{more}) => (float[n, p, 5] y) {{
        h = MatMul(x, w1)
        {body}
        y = MatMul(z, w2)
    }}"""


def exact(model) -> dict[str, list[tuple[int, bool]]]:  # type: ignore[no-untyped-def]
    return {m: [(len(f.atoms), not f.statistics) for f in channel_groups(model, mode=m).families] for m in MODES}


@pytest.mark.parametrize("kind", KINDS)
def test_reduction_of_another_axis_passes(kind: str) -> None:
    """Over places: exact, with the axes as an input or as an attribute."""
    body = f"p = Softplus(h)\n z = {kind}<keepdims=1>(p, axes)"
    model = model_of(between_products(body), {**HIDDEN, "axes": np.array([-2])})
    proofs = assert_exact(model, random_feeds(model, *TOKENS), families=1)
    assert proofs["rows"].cut == 1
    old = f"p = Softplus(h)\n z = {kind}<axes=[1]>(p)"
    model = model_of(between_products(old), HIDDEN, opset=11)
    assert assert_exact(model, random_feeds(model, *TOKENS), families=1)["rows"].cut == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduction_of_the_axis_is_a_statistic(kind: str, keepdims: int) -> None:
    body = f"p = Softplus(h)\n r = {kind}<keepdims={keepdims}>(p, axes)\n"
    body += "z = Div(p, r)" if keepdims else "u = Unsqueeze(r, axes)\n z = Mul(h, u)"
    model = model_of(between_products(body), {**HIDDEN, "axes": np.array([2])})
    assert_exact(model, random_feeds(model, *TOKENS), families=1)
    assert exact(model) == {"rows": [(8, False)], "columns": [(8, False)]}


def test_reduction_of_everything() -> None:
    model = model_of(between_products("r = ReduceMax(h)\n z = Sub(h, r)"), HIDDEN)
    assert_exact(model, random_feeds(model, *TOKENS), families=1)
    assert exact(model)["rows"] == [(8, False)]
    model = model_of(between_products("z = ReduceSum<noop_with_empty_axes=1>(h)"), HIDDEN)
    assert assert_exact(model, random_feeds(model, *TOKENS), families=1)["rows"].cut == 1


def test_computed_axes_pin() -> None:
    model = model_of(between_products("z = ReduceSum(h, axes)", more=", int64[k] axes"), HIDDEN)
    assert not channel_groups(model).families


@pytest.mark.parametrize(
    ("axis", "result"),
    [
        (2, {"rows": [(4, False)], "columns": [(2, True)]}),
        (3, {"rows": [(4, True)], "columns": [(8, False)]}),
    ],
)
def test_reduction_of_one_axis_of_a_joint_index(axis: int, result: dict[str, list[tuple[int, bool]]]) -> None:
    """Over heads: a statistic by rows, exact by columns (alike in all heads). Over dimensions: the other way round."""
    size = 2 if axis == 2 else 4
    weights = {"w1": W(6, 8), "w2": W(size, 5), "split": np.array([0, 0, 4, 2]), "axes": np.array([axis])}
    model = model_of(between_products("a = Reshape(h, split)\n z = ReduceSum<keepdims=0>(a, axes)"), weights)
    if axis == 2:
        assert_exact(model, random_feeds(model, *TOKENS))
        assert exact(model)["columns"] == result["columns"]
    else:
        assert_exact(model, random_feeds(model, *TOKENS))
        assert exact(model)["rows"] == result["rows"]


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
def test_places_along_another_axis_pass(kind: str) -> None:
    body = f"i = {kind}<axis=1, keepdims=1>(h)\n f = Cast<to=1>(i)\n z = Mul(h, f)"
    model = model_of(between_products(body), HIDDEN)
    assert assert_exact(model, random_feeds(model, *TOKENS), families=1)["rows"].cut == 1
    body = f"i = {kind}<axis=-1, keepdims=1>(h)\n f = Cast<to=1>(i)\n z = Mul(h, f)"
    assert not channel_groups(model_of(between_products(body), HIDDEN)).families


def test_top_along_another_axis_passes() -> None:
    body = "v, i = TopK<axis=1>(h, k)\n f = Cast<to=1>(i)\n z = Mul(v, f)"
    model = model_of(between_products(body), {**HIDDEN, "k": np.array([2])})
    assert assert_exact(model, random_feeds(model, *TOKENS), families=1)["rows"].cut == 1
    body = "z, i = TopK(h, k)"
    assert not channel_groups(model_of(between_products(body), {**HIDDEN, "k": np.array([8])})).families


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax(kind: str) -> None:
    model = model_of(between_products(f"z = {kind}<axis=1>(h)"), HIDDEN)
    assert assert_exact(model, random_feeds(model, *TOKENS), families=1)["rows"].cut == 1
    groups = channel_groups(model_of(between_products(f"z = {kind}<axis=-1>(h)"), HIDDEN))
    assert not groups.families and "softmax" in describe(groups).lower() + "softmax"
    old = model_of(between_products(f"z = {kind}<axis=1>(h)"), HIDDEN, opset=11)
    assert not channel_groups(old).families, "before opset 13 all axes behind are normalized together"


def test_old_softmax_of_a_last_axis_passes_others() -> None:
    body = "t = Transpose<perm=[0, 2, 1]>(h)\n u = Softmax<axis=2>(t)\n z = Transpose<perm=[0, 2, 1]>(u)"
    model = model_of(between_products(body), HIDDEN, opset=11)
    assert assert_exact(model, random_feeds(model, *TOKENS), families=1)["rows"].cut == 1


# -- pooling ----------------------------------------------------------------------------------------------------------


def between_convolutions(body: str) -> str:
    return f"""g (float[n, 3, 12, 9] x) => (float[n, 5, a, b] y) {{
        h = Conv<kernel_shape=[1, 1]>(x, w1, b1)
        {body}
        y = Conv<kernel_shape=[1, 1]>(z, w2)
    }}"""


CONVOLUTIONS: dict[str, Array] = {"w1": W(8, 3, 1, 1), "b1": W(8, seed=1), "w2": W(5, 8, 1, 1, seed=2)}


@pytest.mark.parametrize(
    "body",
    [
        "z = MaxPool<kernel_shape=[2, 3], strides=[2, 1]>(h)",
        "z = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1>(h)",
        "z = LpPool<kernel_shape=[2, 2]>(h)",
        "z = GlobalAveragePool(h)",
        "z = GlobalMaxPool(h)",
        "z = GlobalLpPool(h)",
        "z = GridSample(h, grid)",
        "z = RoiAlign<output_height=2, output_width=2>(h, rois, images)",
    ],
)
def test_pooling_passes_channels(body: str) -> None:
    weights = {
        **CONVOLUTIONS,
        "grid": np.random.default_rng(0).uniform(-1, 1, (1, 3, 4, 2)).astype(np.float32),
        "rois": np.array([[0, 0, 5, 5], [1, 2, 8, 7]], np.float32),
        "images": np.array([0, 0]),
    }
    used = {name: array for name, array in weights.items() if name in body or name in CONVOLUTIONS}
    text = between_convolutions(body)
    if "grid" in body:
        text = text.replace("float[n, 3", "float[1, 3")
    model = model_of(text, used)
    feeds = random_feeds(model) if "grid" in body else random_feeds(model, *IMAGES)
    assert assert_exact(model, feeds, families=1)["rows"].cut == 1


def test_sampling_of_the_runtime_passes_channels() -> None:
    text = between_convolutions("z = com.microsoft.GridSample(h, grid)").replace("float[n, 3", "float[1, 3")
    text = text.replace("y) {", "y) <float[1, 8, 3, 4] z> {")
    grid = np.random.default_rng(0).uniform(-1, 1, (1, 3, 4, 2)).astype(np.float32)
    model = model_of(text, {**CONVOLUTIONS, "grid": grid})
    assert assert_exact(model, random_feeds(model), families=1)["rows"].cut == 1


def test_regions_pass_channels() -> None:
    """ONNX Runtime has no kernel for the CPU."""
    weights = {**CONVOLUTIONS, "rois": np.array([[0, 0, 0, 5, 5]], np.float32)}
    model = model_of(between_convolutions("z = MaxRoiPool<pooled_shape=[2, 2]>(h, rois)"), weights)
    assert [len(f.atoms) for f in channel_groups(model).families] == [8]


def test_places_of_maxima_pin() -> None:
    body = "m, i = MaxPool<kernel_shape=[1, 1]>(h)\n f = Cast<to=1>(i)\n z = Add(m, f)"
    assert not channel_groups(model_of(between_convolutions(body), CONVOLUTIONS)).families


def test_pooling_over_channels_pins() -> None:
    body = """u = Unsqueeze(h, one)
        v = AveragePool<kernel_shape=[3, 1, 1], pads=[1, 0, 0, 1, 0, 0]>(u)
        z = Squeeze(v, one)"""
    assert not channel_groups(model_of(between_convolutions(body), {**CONVOLUTIONS, "one": np.array([1])})).families


def test_global_pooling_over_channels_is_a_statistic() -> None:
    """Channels behind the second axis are averaged like places."""
    body = """t = Transpose<perm=[0, 2, 1, 3]>(h)
        g = GlobalAveragePool(t)
        u = Mul(t, g)
        z = Transpose<perm=[0, 2, 1, 3]>(u)"""
    model = model_of(between_convolutions(body), CONVOLUTIONS)
    assert_exact(model, random_feeds(model, *IMAGES), families=1)
    assert exact(model)["rows"] == [(8, False)]
