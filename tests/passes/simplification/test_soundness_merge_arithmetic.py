"""merge-arithmetic: numbers near the ends of a type, and types that are unknown or no numbers."""

from __future__ import annotations

import ml_dtypes
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


@pytest.mark.parametrize("nodes", ["p = Add(h, a)  y = Add(p, b)", "p = Add(a, h)  y = Add(b, p)"])
def test_operands_of_an_unknown_type_stay(nodes: str) -> None:
    text = f"g (float[n] x) => (float[n] y) {{ h = custom.Op(x)  {nodes} }}"
    assert assert_untouched(PASS, parse(text, a=np.float32(2), b=np.float32(3))) == {}
    # Before shapes are inferred the output of a Constant has no type either.
    text = text.replace("  p", "  a = Constant<value = float {2}>()  b = Constant<value = float {3}>()  p")
    assert assert_untouched(PASS, parse(text, raw=True)) == {}


@pytest.mark.parametrize(("kind", "one"), [("bool", np.True_), ("int4", ml_dtypes.int4(1)), ("string", "a")])
def test_what_onnx_does_not_add_stays(kind: str, one: object) -> None:
    text = f"g ({kind}[n] x) => ({kind}[n] y) {{ p = Add(x, a)  y = Add(p, b) }}"
    constant = np.array(one, object if kind == "string" else None)
    assert assert_untouched(PASS, parse(text, opset=21, a=constant, b=constant)) == {}
