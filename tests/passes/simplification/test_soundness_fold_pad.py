"""fold-pad: what only looks like a Pad, and forms of it that are not known."""

from __future__ import annotations

import numpy as np
import pytest
from exactness_kit import assert_exact_after
from pass_kit import assert_equal_after, assert_untouched, op_types, parse

from irc.passes.simplification import FoldPad

PASS = FoldPad()
CONV = "g (float[1,3,8,9] x) => (float y) {{ p = {}  y = Conv(p, w) }}"


@pytest.mark.parametrize("before", ["Neg(x)", "custom.Pad(x, pads)"])
def test_other_operators_before_a_convolution(before: str) -> None:
    weights = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])} if "pads" in before else {}
    assert assert_untouched(PASS, parse(CONV.format(before), weights, w=(4, 3, 3, 3))) == {}


def test_pads_of_opset_1_stay() -> None:
    text = CONV.format("Pad<paddings=[0,0,1,1,0,0,1,1]>(x)")
    assert "opset 1" in assert_untouched(PASS, parse(text, w=(4, 3, 3, 3), opset=1, raw=True))["p"]


def test_axes_that_are_not_constant() -> None:
    text = "g (float[1,3,8,9] x, int64[2] a) => (float y) { p = Pad(x, pads, , a)  y = Conv(p, w) }"
    model = parse(text, w=(4, 3, 3, 3), pads=np.array([1, 1, 1, 1]), opset=18)
    assert "not constant" in assert_untouched(PASS, model)["p"]


@pytest.mark.parametrize("pads", [[0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0, 0, 0]])
def test_an_average_is_of_as_many_elements_as_before(pads: list[int]) -> None:
    text = "g (float[1,3,8,9] x) => (float y) { p = Pad(x, pads)  y = AveragePool<kernel_shape=[1,1]>(p) }"
    assert "as large as the kernel" in assert_untouched(PASS, parse(text, pads=np.array(pads)))["p"]


@pytest.mark.parametrize("pads", [[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]])
def test_channels_and_batch_before_and_after(pads: list[int]) -> None:
    text = "g (float[1,2,8,9] x) => (float y) { p = Pad(x, pads)  y = AveragePool<kernel_shape=[3,3]>(p) }"
    assert "batch or the channels" in assert_untouched(PASS, parse(text, pads=np.array(pads)))["p"]


def test_positions_of_a_maximum_as_a_graph_output() -> None:
    text = """g (float[1,3,8,9] x) => (float y, int64 i) { p = Pad(x, pads, low)  y, i = MaxPool<kernel_shape=[3,3]>(p) }"""
    model = parse(text, pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]), low=np.float32(-np.inf))
    assert "positions" in assert_untouched(PASS, model)["p"]
    text = text.replace("int64 i", "float z").replace("(p) }", "(p)  z = Cast<to=1>(i) }")
    model = parse(text, pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]), low=np.float32(-np.inf))
    assert "positions" in assert_untouched(PASS, model)["p"]


def test_positions_of_a_maximum_that_nothing_uses() -> None:
    text = "g (float[1,3,8,9] x) => (float y) { p = Pad(x, pads, low)  y, i = MaxPool<kernel_shape=[3,3]>(p) }"
    model = parse(text, pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]), low=np.float32(-np.inf))
    assert op_types(assert_equal_after(PASS, model).model) == ["MaxPool"]


# --- windows of which something is not known

UNKNOWN = "g (float[n] x0, int64[k] s, float[1,2,6,6] x2, float[m] w0, int64[l] t, float[2,2,i,j] w2) => (float y) {{ x1 = Reshape(x0, s)  w1 = Reshape(w0, t)  p = Pad({x}, pads)  y = Conv{window}(p, {w}) }}"
FEED = {
    "x0": np.arange(72, dtype=np.float32),
    "s": np.array([1, 2, 6, 6]),
    "x2": np.arange(72, dtype=np.float32).reshape(1, 2, 6, 6),
    "w0": np.arange(36, dtype=np.float32),
    "t": np.array([2, 2, 3, 3]),
    "w2": np.arange(36, dtype=np.float32).reshape(2, 2, 3, 3),
}


@pytest.mark.parametrize("window", ["", "<pads=[1,0,0,1]>", "<strides=[2,2]>"])
@pytest.mark.parametrize("x", ["x1", "x2"])
@pytest.mark.parametrize("w", ["w1", "w2"])
def test_kernels_that_are_not_known(window: str, x: str, w: str) -> None:
    model = parse(UNKNOWN.format(x=x, w=w, window=window), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    if x == "x2" or "pads" in window:
        assert "Pad" not in op_types(assert_exact_after(PASS, model, feeds=(FEED,)).model)
    else:
        assert "number of its axes" in assert_untouched(PASS, model)["p"]


@pytest.mark.parametrize(("x", "w"), [("x1", "w2"), ("x2", "w1")])
def test_automatic_padding_of_what_is_not_known(x: str, w: str) -> None:
    kernel = ", kernel_shape=[3,3]" if x == "x1" else ""
    window = f'<auto_pad="SAME_UPPER", strides=[2,2]{kernel}>'
    model = parse(UNKNOWN.format(x=x, w=w, window=window), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    assert "shape that is not known" in assert_untouched(PASS, model)["p"]


def test_automatic_padding_of_another_rank_than_that_of_the_kernel() -> None:
    text = 'g (float[1,2,6] x) => (float y) { p = Pad(x, pads)  y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(p, w) }'
    model = parse(text, pads=np.array([0, 0, 1, 0, 0, 1]), w=(2, 2, 3, 3))
    assert "shape that is not known" in assert_untouched(PASS, model)["p"]


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_pools_without_a_kernel(pool: str) -> None:
    text = f"g (float[1,3] x) => (float y) {{ p = Pad(x, pads)  y = {pool}<kernel_shape : ints = []>(p) }}"
    assert "no kernel" in assert_untouched(PASS, parse(text, pads=np.zeros(4, np.int64)))["p"]
