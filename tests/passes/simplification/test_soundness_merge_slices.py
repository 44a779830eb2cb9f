"""merge-slices: bounds of the smaller integer type, and steps that decide what is stored."""

from __future__ import annotations

import numpy as np
from exactness_kit import assert_exact_after
from pass_kit import assert_equal_after, assert_untouched, op_types, parse

from irc.passes.simplification.merge_slices import MergeSlices

PASS = MergeSlices()
SIZES = tuple({"n": n, "m": m, "?": 3} for n, m in ((12, 12), (4, 5), (1, 2)))


def test_bounds_of_32_bits_are_not_mixed_with_new_ones() -> None:
    model = parse(
        "g (float[n,m] x) => (float y) { p = Slice(x, a, b, d)  q = Slice(p, c, b, d)  y = Neg(q) }",
        a=np.array([2], np.int32),
        b=np.array([10], np.int32),
        c=np.array([1], np.int32),
        d=np.array([1], np.int32),
    )
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["Slice", "Neg"]


def test_steps_stay_where_only_one_has_them_and_axes_where_they_are_all() -> None:
    weights = {"a": [1], "b": [99], "c": [0], "d": [1], "t": [2]}
    model = parse(
        "g (float[n,m] x) => (float y) { p = Slice(x, a, b, c, t)  q = Slice(p, a, b, d)  y = Neg(q) }",
        {name: np.array(value, np.int64) for name, value in weights.items()},
    )
    assert op_types(assert_equal_after(PASS, model, symbols=(7, 1)).model) == ["Slice", "Neg"]


def test_other_operators_before_and_after() -> None:
    weights = {"a": np.array([1]), "b": np.array([9])}
    for nodes in ("p = Neg(x)  q = Slice(p, a, b)", "p = Slice(x, a, b)  q = Neg(p)", "q = Slice(x, a, b)"):
        used = weights if "Slice" in nodes else {}
        model = parse(f"g (float[n,m] x) => (float y) {{ {nodes}  y = Abs(q) }}", used)
        assert assert_untouched(PASS, model) == {}


def test_an_unknown_rank_with_axes_counted_from_the_front() -> None:
    text = "g (float[n] x, int64[k] s) => (float y) {{ r = Reshape(x, s)  p = Slice(r, a, b, {0})  q = Slice(p, {1}, b, {0})  y = Neg(q) }}"
    weights = {"a": np.array([2]), "b": np.array([9]), "c": np.array([1]), "d": np.array([0]), "e": np.array([-1])}
    feed = {"x": np.arange(12, dtype=np.float32), "s": np.array([6, 2])}
    ahead = {k: v for k, v in weights.items() if k not in ("c", "e")}
    outcome = assert_exact_after(PASS, parse(text.format("d", "a"), ahead), feeds=(feed,))
    assert op_types(outcome.model) == ["Reshape", "Slice", "Neg"]
    back = {k: v for k, v in weights.items() if k not in ("c",)}
    assert "depends on its size" in assert_untouched(PASS, parse(text.format("d", "e"), back))["q"]


def test_an_axis_from_behind_where_the_rank_is_known_before_or_after_the_first() -> None:
    text = (
        "g (float[n,m] x) => (float y{out}) {{ h = Abs(x)  p = Slice(h, a, b, a)  q = Slice(p, a, b, e)  y = Neg(q) }}"
    )
    weights = {"a": np.array([1]), "b": np.array([9]), "e": np.array([-2])}
    feed = {"x": np.arange(132, dtype=np.float32).reshape(12, 11)}
    # Before shapes are inferred only the input has one; of an output of the model nothing is believed.
    for model in (
        parse(text.format(out="").replace("h = Abs(x)  ", "").replace("(h,", "(x,"), weights, raw=True),
        parse(text.format(out=", float[n,m] h"), weights),
    ):
        outcome = assert_exact_after(PASS, model, feeds=(feed,))
        assert op_types(outcome.model)[-2:] == ["Slice", "Neg"] and op_types(outcome.model).count("Slice") == 1


def test_an_axis_that_is_not_there() -> None:
    text = "g (float[n,m] x) => (float y) { p = Slice(x, a, b, c)  q = Slice(p, a, b, c)  y = Neg(q) }"
    model = parse(text, a=np.array([-2]), b=np.array([9]), c=np.array([2]))
    assert "depends on its size" in assert_untouched(PASS, model)["q"]
