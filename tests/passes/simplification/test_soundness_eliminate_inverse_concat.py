"""eliminate-inverse-concat: axes and sizes that are not known."""

from __future__ import annotations

import numpy as np
from exactness_kit import assert_exact_after
from pass_kit import assert_untouched, op_types, parse

from irc.passes.simplification.eliminate_inverse_concat import EliminateInverseConcat

PASS = EliminateInverseConcat()
FEED = {"x": np.arange(12, dtype=np.float32), "s": np.array([3, 4])}
UNKNOWN = "g (float[n] x, int64[k] s) => (float y, float z) {{ r = Reshape(x, s)  {} }}"


def test_parts_of_an_unknown_rank_joined_again() -> None:
    nodes = "a, b = Split<axis={}>(r)  c = Concat<axis={}>(a, b)  y = Neg(c)  z = Abs(c)"
    for axes in ((-1, -1), (1, 1)):
        outcome = assert_exact_after(PASS, parse(UNKNOWN.format(nodes.format(*axes))), feeds=(FEED,))
        assert op_types(outcome.model) == ["Reshape", "Neg", "Abs"]
    for axes in ((1, -1), (-1, 1)):
        assert "another axis" in assert_untouched(PASS, parse(UNKNOWN.format(nodes.format(*axes))))["c"]


def test_parts_of_an_unknown_rank_have_unknown_sizes() -> None:
    for axis in (-1, 1):
        text = UNKNOWN.format(f"c = Concat<axis={axis}>(r, r)  a, b = Split<axis={axis}>(c)  y = Neg(a)  z = Abs(b)")
        assert not any("Split" in key for key in assert_untouched(PASS, parse(text)))
        text = UNKNOWN.format(f"c = Concat<axis={axis}>(r, r)  a = Slice(c, b, e, d)  y = Neg(a)  z = Abs(a)")
        weights = {"b": np.array([0]), "e": np.array([2]), "d": np.array([axis])}
        assert assert_untouched(PASS, parse(text, weights)) == {}


def test_outputs_of_a_split_that_nothing_uses() -> None:
    model = parse(
        "g (float[n,2] p, float[n,3] q) => (float y) { c = Concat<axis=1>(p, q)  a, b = Split<axis=1>(c, s)  y = Neg(b) }",
        s=np.array([2, 3]),
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Neg"]


def test_the_same_part_twice() -> None:
    model = parse(
        "g (float[n,2] x) => (float y, float z) { p = Exp(x)  c = Concat<axis=1>(p, p)  a, b = Split<axis=1>(c)  y = Neg(a)  z = Abs(b) }"
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Exp", "Neg", "Abs"]


def test_empty_parts() -> None:
    model = parse(
        "g (float[n,0] p, float[n,0] q) => (float y, float z) { c = Concat<axis=1>(p, q)  a, b = Split<axis=1>(c, s)  y = Neg(a)  z = Abs(b) }",
        s=np.array([0, 0]),
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Neg", "Abs"]


def test_nodes_without_inputs_or_producers() -> None:
    model = parse(
        "g (float[2] x) => (float[4] y) { r = RandomNormal<shape=[2]>()  a, b = Split<axis=0>(x)  c = Concat<axis=0>(r, a, b)  y = Neg(c) }"
    )
    assert assert_untouched(PASS, model) == {}
