"""merge-concats: axes of tensors whose rank is not known, and the first form of the operator."""

from __future__ import annotations

import numpy as np
from exactness_kit import assert_exact_after
from pass_kit import assert_untouched, op_types, parse

from irc.passes.simplification.merge_concats import MergeConcats

PASS = MergeConcats()
TEXT = "g (float[n] x, int64[k] s) => (float y) {{ r = Reshape(x, s)  p = Concat<axis={}>(r, r)  q = Concat<axis={}>(p, r)  y = Neg(q) }}"


def test_axes_of_an_unknown_rank_are_the_same_only_if_written_the_same() -> None:
    feed = {"x": np.arange(4, dtype=np.float32), "s": np.array([2, 2])}
    for axis in (1, -1):
        outcome = assert_exact_after(PASS, parse(TEXT.format(axis, axis)), feeds=(feed,))
        assert op_types(outcome.model) == ["Reshape", "Concat", "Neg"]
    for axes in ((1, -1), (-1, 1), (0, -2)):
        assert assert_untouched(PASS, parse(TEXT.format(*axes))) == {}


def test_before_opset_4_the_axis_is_1_where_it_is_not_given() -> None:
    text = "g (float[n,k] x) => (float y) {{ p = Concat(x, x)  q = Concat{}(p, x)  y = Neg(q) }}"
    assert assert_untouched(PASS, parse(text.format("<axis=0>"), opset=3, raw=True)) == {}
