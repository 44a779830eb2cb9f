"""fold-reshape-shape: what must not be taken for a dimension."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import apply, assert_untouched, parse

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


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        ("int64[1] d", "custom.Op(d)"),
        ("int64 d", "Abs(d)"),
        ("int64[2,1] d", "Abs(d)"),
        ("int64[65] d", "Abs(d)"),
        ("int64[1] d", "Concat<axis=0>(, d)"),
    ],
)
def test_what_is_no_vector_of_a_known_few_elements(given: str, computed: str) -> None:
    text = f"g (float[n] x, {given}) => (float y) {{ s = {computed}  y = Reshape(x, s) }}"
    assert assert_untouched(PASS, parse(text)) == {}


@pytest.mark.parametrize(
    ("types", "steps"),
    [
        ("", "c = Concat<axis=0>(d, k)  b = Cast<to=9>(c)  s = Cast<to=7>(b)"),
        ("", "c = Concat<axis=0>(d, k)  h = Cast<to=10>(c)  s = Cast<to=7>(h)"),
        ("", "c = Concat<axis=0>(d, large)  i = Cast<to=6>(c)  s = Cast<to=7>(i)"),
        (
            "",
            "w = Shape(x)  o = Slice(w, zero, one)  c = Concat<axis=0>(o, large)  i = Cast<to=6>(c)  s = Cast<to=7>(i)",
        ),
        ("<int64[2] s>", "s = custom.Concat<axis=0>(d, k)"),
        ("<int64[2] s>", "c = Concat<axis=0>(d, k)  s = custom.Identity(c)"),
    ],
)
def test_steps_that_may_change_numbers(types: str, steps: str) -> None:
    weights = {"k": np.array([4]), "large": np.array([2**32 + 4]), "zero": np.array([0]), "one": np.array([1])}
    model = parse(f"g (float[n,4] x, int64[1] d) => (float y) {types} {{ {steps}  y = Reshape(x, s) }}", weights)
    assert list(assert_untouched(PASS, model)) == ["y"]


def test_a_dimension_below_what_stands_for_the_rest() -> None:
    text = "g (float[n,4] x, int64[1] d) => (float y) { s = Concat<axis=0>(d, k)  y = Reshape(x, s) }"
    assert list(assert_untouched(PASS, parse(text, k=np.array([-2])))) == ["y"]


@pytest.mark.parametrize("step", ["Identity", "Concat<axis=0>"])
def test_more_steps_than_functions_may_call_each_other(step: str) -> None:
    steps = "  ".join(f"s{i + 1} = {step}(s{i})" for i in range(1200))
    text = f"g (float[n,4] x, int64[1] d) => (float y) {{ s0 = Concat<axis=0>(d, k)  {steps}  y = Reshape(x, s1200) }}"
    assert list(assert_untouched(PASS, parse(text, k=np.array([4])))) == ["y"]


@pytest.mark.parametrize(("size", "rewritten"), [(0, ["y"]), (1, [])])
def test_a_vector_that_is_joined_with_itself_over_and_over(size: int, rewritten: list[str]) -> None:
    """Each step doubles the ways there."""
    steps = "  ".join(f"s{i + 1} = Concat<axis=0>(s{i}, s{i})" for i in range(18))
    text = f"g (float x, int64[{size}] d) => (float y) {{ s0 = Abs(d)  {steps}  y = Reshape(x, s18) }}"
    assert apply(PASS, parse(text)).rewritten == rewritten


def test_a_shape_that_a_body_or_an_output_also_uses() -> None:
    text = "g (float[n,4] x, int64[1] d) => (float y, int64[2] s) { s = Concat<axis=0>(d, k)  y = Reshape(x, s) }"
    assert "other users" in assert_untouched(PASS, parse(text, k=np.array([4])))["y"]
    inner = """g (bool c, float[n,4] x, int64[1] d) => (float y, int64 z) { s = Concat<axis=0>(d, k)  y = Reshape(x, s)
        z = If (c) <then_branch = t () => (int64 p) { p = Neg(s) }, else_branch = e () => (int64 q) { q = Abs(d) }> }"""
    assert "other users" in assert_untouched(PASS, parse(inner, k=np.array([4])))["y"]
