"""merge-pads: forms that only look alike, and values that nothing reads."""

from __future__ import annotations

import numpy as np
from exactness_kit import assert_exact_after
from pass_kit import assert_untouched, op_types, parse

from irc.passes.simplification.merge_pads import MergePads

PASS = MergePads()


def test_pads_of_opset_1_stay() -> None:
    text = "g (float[n] x) => (float y) { p = Pad<paddings=[1,0]>(x)  q = Pad<paddings=[2,0]>(p)  y = Neg(q) }"
    assert assert_untouched(PASS, parse(text, raw=True, opset=1)) == {}


def test_the_pads_of_the_first_must_be_constant_too() -> None:
    text = "g (float[n] x, int64[2] a) => (float y) { p = Pad(x, a)  q = Pad(p, b)  y = Neg(q) }"
    assert "not constant" in assert_untouched(PASS, parse(text, b=np.array([1, 0])))["q"]
    assert "not constant" in assert_untouched(PASS, parse(text, b=np.array([1, 0]), a=np.array([1, 0])))["q"]


def test_edges_have_no_use_for_a_value() -> None:
    text = 'g (float[n] x) => (float y) { p = Pad<mode="edge">(x, a, v)  q = Pad<mode="edge">(p, b, w)  y = Neg(q) }'
    weights = {"a": np.array([1, 0]), "b": np.array([0, 2]), "v": np.float32(1), "w": np.float32(2)}
    assert op_types(assert_exact_after(PASS, parse(text, weights)).model) == ["Pad", "Neg"]
