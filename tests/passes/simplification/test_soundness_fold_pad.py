"""fold-pad: what only looks like a Pad, and forms of it that are not known."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import assert_untouched, parse

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
