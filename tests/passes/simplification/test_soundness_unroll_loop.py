"""unroll-loop: which conditions tell that there is no second round."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import assert_equal_after, assert_untouched, op_types, parse

from irc.passes.simplification import UnrollLoop

PASS = UnrollLoop()
TEXT = """g (float[3] x, bool flag) => (float[3] y) {{
    y, last = Loop(five, true, x, {first}) <body = b (int64 i, bool c, float[3] s, int64 k) => (bool d, float[3] t, int64 l) {{
        {condition} t = Neg(s) l = Add(k, one) }}> }}"""
WEIGHTS = {"five": np.array(5), "true": np.array(True), "one": np.array(1)}


def model(condition: str, first: str = "one") -> object:
    return parse(TEXT.format(condition=condition, first=first), WEIGHTS)


@pytest.mark.parametrize("condition", ["d = Less(k, one)", "d = Greater(one, k)", "e = Sub(k, one) d = Greater(e, i)"])
def test_what_is_carried_counts_with_its_first_value(condition: str) -> None:
    assert op_types(assert_equal_after(PASS, model(condition)).model).count("Loop") == 0


def test_a_carried_value_that_goes_on() -> None:
    assert_untouched(PASS, model("d = LessOrEqual(k, one)"))


@pytest.mark.parametrize(
    "condition",
    ["d = Not(flag)", "d = custom.Not(c)", "d = Xor(c, c)", "n = Neg(k) d = Greater(n, one)", "d = And(c, flag)"],
)
def test_what_is_fed_or_not_understood(condition: str) -> None:
    assert_untouched(PASS, model(condition))


def test_a_first_value_that_is_computed() -> None:
    text = TEXT.format(condition="d = Less(k, one)", first="f").replace("bool flag)", "bool flag, int64 f)")
    assert_untouched(PASS, parse(text, WEIGHTS))
