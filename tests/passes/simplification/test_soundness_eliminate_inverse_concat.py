"""eliminate-inverse-concat: axes and sizes that are not known."""

from __future__ import annotations

import numpy as np
import pytest
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
        assert "not known to be" in assert_untouched(PASS, parse(text))["a"]
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
    model = parse(
        """g (float[2] x, bool c) => (float[2] y) { l = Loop (, c, x) <body = b
        (int64 i, bool d, float[2] s) => (bool e, float[2] t) { e = Not(d)  t = Neg(s) }>  y = Neg(l) }"""
    )
    assert assert_untouched(PASS, model) == {}


def test_inputs_that_are_left_out() -> None:
    model = parse(
        "g (float[n,6] x) => (float y) { a, b = Split<axis=1>(x)  c = Concat<axis=1>(a, , b)  y = Neg(c) }", raw=True
    )
    assert assert_untouched(PASS, model) == {}
    model = parse(
        "g (float[n,2] p, float[n,2] q) => (float y, float z) { c = Concat<axis=1>(p, q)  a, b = Split<axis=1>(c)  y = Neg(a)  z = Abs(b) }"
    )
    model.graph[1].resize_inputs(2)
    assert model.graph[1].inputs[1] is None
    assert op_types(assert_exact_after(PASS, model).model) == ["Neg", "Abs"]


@pytest.mark.parametrize(
    "nodes",
    [
        "c = Gather<axis=0>(p, i)  y = Slice(c, zero, two)",
        "c = Concat<axis=0>(p, q)  y = ScatterElements(c, zero, two)",
        "c = Concat<axis=0>(p, q)  y = custom.Slice(c, zero, two)",
        "c = custom.Concat<axis=0>(p, q)  y = Slice(c, zero, two)",
    ],
)
def test_only_a_slice_of_a_concat_picks_a_part(nodes: str) -> None:
    model = parse(
        f"g (int64[2] p, int64[2] q, int64[4] i) => (int64 y) {{ {nodes} }}", zero=np.array([0]), two=np.array([2])
    )
    assert assert_untouched(PASS, model) == {}


def test_parts_of_too_small_a_rank() -> None:
    text = (
        "g (float[2] p, float[n,2] q) => (float y, float z) {{ c = Concat<axis=1>(p, q)  {}  y = Neg(a)  z = Abs(a) }}"
    )
    model = parse(text.format("a, b = Split<axis=1>(c)"))
    assert "not known to be" in assert_untouched(PASS, model)["a"]
    bounds = {"s": np.array([0]), "e": np.array([2]), "d": np.array([1])}
    assert assert_untouched(PASS, parse(text.format("a = Slice(c, s, e, d)"), bounds)) == {}
