"""merge-reshapes: forms of other versions, unknown ranks, and zeros that are meant or copied."""

from __future__ import annotations

import numpy as np
from exactness_kit import assert_exact_after, constants
from pass_kit import assert_untouched, op_types, parse

from irc.passes.simplification import MergeReshapes

PASS = MergeReshapes()
TWO = "g (float[{}] x) => (float y) {{ a = {}  b = {}  y = Neg(b) }}"
RANKLESS = "g (float[n] x, int64[k] s) => (float y) {{ r = Reshape(x, s)  h = Abs(r)  a = {}  b = {}  y = Neg(b) }}"


def test_a_reshape_of_opset_12_has_no_axes() -> None:
    for first in ("Unsqueeze<axes=[0]>(x)", "Flatten(x)"):
        model = parse(TWO.format("n,2,6", first, "Reshape(a, t)"), constants(t=[-1, 4]), opset=12)
        outcome = assert_exact_after(PASS, model)
        assert op_types(outcome.model) == ["Reshape", "Neg"]


def test_a_zero_that_the_second_means() -> None:
    text = TWO.format("n,0,4", "Reshape<allowzero=1>(x, s)", "Reshape<allowzero=1>(a, t)")
    model = parse(text, constants(s=[0, 7], t=[0, 3]))
    assert "numbers" in assert_untouched(PASS, model)["b"]


def test_a_copied_number_stands_for_itself_behind_the_other() -> None:
    model = parse(TWO.format("n,6,4", "Reshape(x, s)", "Reshape(a, t)"), constants(s=[-1, 2, 12], t=[0, 0, 3, 4]))
    outcome = assert_exact_after(PASS, model, sizes=({"n": 3}, {"n": 1}))
    assert op_types(outcome.model) == ["Reshape", "Neg"]


def test_axes_of_an_unknown_rank_that_count_from_behind() -> None:
    for first, second in (
        ("Unsqueeze(h, c)", "Unsqueeze(a, d)"),
        ("Unsqueeze(h, d)", "Unsqueeze(a, c)"),
        ("Squeeze(h, c)", "Squeeze(a, d)"),
        ("Squeeze(h, d)", "Squeeze(a, c)"),
        ("Unsqueeze(h, c)", "Squeeze(a, d)"),
        ("Squeeze(h)", "Squeeze(a, d)"),
        ("Squeeze(h, d)", "Squeeze(a)"),
        ("Squeeze(h, c)", "Squeeze(a)"),
    ):
        used = {name: value for name, value in (("c", [0]), ("d", [-1])) if f", {name})" in first + second}
        model = parse(RANKLESS.format(first, second), constants(**used))
        assert "numbers" in assert_untouched(PASS, model)["b"]


def test_axes_of_an_unknown_rank_that_count_from_the_front() -> None:
    feed = {"x": np.arange(4, dtype=np.float32), "s": np.array([1, 1, 4])}
    for operator in ("Unsqueeze", "Squeeze"):
        model = parse(RANKLESS.format(f"{operator}(h, c)", f"{operator}(a, c)"), constants(c=[0]))
        outcome = assert_exact_after(PASS, model, feeds=(feed,))
        assert op_types(outcome.model) == ["Reshape", "Abs", operator, "Neg"]


def test_a_squeeze_without_axes_takes_what_is_of_size_1_when_it_runs() -> None:
    model = parse(RANKLESS.format("Unsqueeze(h, c)", "Squeeze(a)"), constants(c=[0]))
    assert "numbers" in assert_untouched(PASS, model)["b"]
    model = parse(TWO.format("n,m", "Unsqueeze(x, c)", "Squeeze(a)"), constants(c=[0]))
    assert "numbers" in assert_untouched(PASS, model)["b"]
    known = parse(TWO.format("2,3", "Unsqueeze(x, c)", "Squeeze(a)"), constants(c=[0]))
    assert op_types(assert_exact_after(PASS, known).model) == ["Neg"]


def test_axes_given_by_the_caller() -> None:
    text = "g (float[n,m] x, int64[1] c) => (float y) { a = Unsqueeze(x, d)  b = Squeeze(a, c)  y = Neg(b) }"
    assert "numbers" in assert_untouched(PASS, parse(text, constants(d=[0])))["b"]
