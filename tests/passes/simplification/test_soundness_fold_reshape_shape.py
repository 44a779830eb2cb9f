"""fold-reshape-shape: what must not be taken for a dimension."""

from __future__ import annotations

import numpy as np
from pass_kit import assert_untouched, parse

from irc.passes.simplification.fold_reshape_shape import FoldReshapeShape

PASS = FoldReshapeShape()


def test_other_operators_and_domains() -> None:
    weights = {"k": np.array([4])}
    text = "g (float[n,4] x, int64[1] d) => (float y) {{ s = Concat<axis=0>(d, k)  y = {}(x, s) }}"
    for operator in ("Expand", "custom.Reshape"):
        assert assert_untouched(PASS, parse(text.format(operator), weights)) == {}


def test_a_shape_of_unknown_length() -> None:
    text = "g (float[n,4] x, int64[m] d) => (float y) { s = Concat<axis=0>(d, k)  y = Reshape(x, s) }"
    assert assert_untouched(PASS, parse(text, k=np.array([4]))) == {}
    given = "g (float[n,4] x, int64[2] d) => (float y) { y = Reshape(x, d) }"
    assert assert_untouched(PASS, parse(given)) == {}


def test_a_shape_that_a_body_or_an_output_also_uses() -> None:
    text = "g (float[n,4] x, int64[1] d) => (float y, int64[2] s) { s = Concat<axis=0>(d, k)  y = Reshape(x, s) }"
    assert "other users" in assert_untouched(PASS, parse(text, k=np.array([4])))["y"]
    inner = """g (bool c, float[n,4] x, int64[1] d) => (float y, int64 z) { s = Concat<axis=0>(d, k)  y = Reshape(x, s)
        z = If (c) <then_branch = t () => (int64 p) { p = Neg(s) }, else_branch = e () => (int64 q) { q = Abs(d) }> }"""
    assert "other users" in assert_untouched(PASS, parse(inner, k=np.array([4])))["y"]
