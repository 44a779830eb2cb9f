"""merge-arithmetic: numbers near the ends of a type."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification.merge_arithmetic import MergeArithmetic

PASS = MergeArithmetic()


@pytest.mark.parametrize(
    ("dtype", "large", "back"), [("float", 1e38, -4e37), ("float16", 1e4, -4e3), ("float", -1e38, 4e37)]
)
def test_a_sum_that_may_overflow_in_between_stays(dtype: str, large: float, back: float) -> None:
    kind = {"float": np.float32, "float16": np.float16}[dtype]
    text = f"g ({dtype}[n] x) => ({dtype} y) {{ a = Add(x, c)  y = Add(a, d) }}"
    model = parse(text, c=kind(large), d=kind(back))
    assert "in between" in assert_untouched(PASS, model)["y"]
    assert op_types(apply(PASS, parse(text, c=kind(large), d=kind(-back))).model) == ["Add"]
    assert op_types(apply(PASS, parse(text, c=kind(100), d=kind(-40))).model) == ["Add"]
