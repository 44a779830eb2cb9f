"""merge-arithmetic: one operator for two with constants."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import apply, assert_equal_after, assert_untouched, op_types, parse, run

from irc.passes.simplification.merge_arithmetic import MergeArithmetic
from irc.testing import assert_conforms, assert_rewrites

PASS = MergeArithmetic()
A, B = np.float32(1.5), np.float32(0.4)
GRAPH = "g (float[n,k] x) => (float[n,k] y) {{ {} }}"

FORMS = {
    "Add(x, a)": lambda x, c: x + c,
    "Add(a, x)": lambda x, c: c + x,
    "Sub(x, a)": lambda x, c: x - c,
    "Sub(a, x)": lambda x, c: c - x,
    "Mul(x, a)": lambda x, c: x * c,
    "Mul(a, x)": lambda x, c: c * x,
    "Div(x, a)": lambda x, c: x / c,
}
ADDITIVE = [f for f in FORMS if f[:3] in ("Add", "Sub")]
MULTIPLICATIVE = [f for f in FORMS if f[:3] in ("Mul", "Div")]
PAIRS = [(f, g) for kind in (ADDITIVE, MULTIPLICATIVE) for f in kind for g in kind]


def _pair(first: str, second: str, a, b, kind: str = "float", **more):
    text = f"p = {first}  q = {second.replace('x', 'p').replace('a', 'b')}  y = Abs(q)"
    return parse(GRAPH.replace("float", kind).format(text), {"a": np.asarray(a), "b": np.asarray(b)}, **more)


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("negative", [False, True])
def test_every_pair_computes_what_both_did(first: str, second: str, negative: bool) -> None:
    # Of the constants of a difference none may be near the other: they would cancel.
    a, b = (np.float32(-4), B) if negative else (A, np.float32(0.4))
    outcome = assert_equal_after(PASS, _pair(first, second, a, b), rtol=1e-6, symbols=(3, 1))
    assert outcome.rewritten == ["q"] and len(op_types(outcome.model)) == 2
    x = np.array([[0.3, -2.0, 7.0]], np.float32)
    expected = abs(FORMS[second](FORMS[first](x, a), b))
    np.testing.assert_allclose(run(outcome.model, {"x": x})[0], expected, rtol=1e-6)


def test_in_text() -> None:
    assert_rewrites(
        PASS,
        GRAPH.format("p = Add(x, a)  q = Sub(p, b)  r = Mul(q, c)  s = Div(r, d)  y = Abs(s)"),
        GRAPH.format("q = Add(x, e)  s = Mul(q, f)  y = Abs(s)"),
        a=A,
        b=np.float32(-3),
        c=A,
        d=B,
    )


def test_a_chain_becomes_one() -> None:
    steps = "  ".join(f"v{i + 1} = Mul(v{i}, c{i})" for i in range(6))
    model = parse(
        GRAPH.format(f"v0 = Neg(x)  {steps}  y = Abs(v6)"), {f"c{i}": np.float32(1.1 + i / 10) for i in range(6)}
    )
    assert op_types(assert_equal_after(PASS, model, rtol=1e-6).model) == ["Neg", "Mul", "Abs"]


def test_constants_of_other_shapes_broadcast_as_before() -> None:
    row, column = np.array([1, 2, 3], np.float32), np.array([[4], [5]], np.float32)
    same = _pair("Add(x, a)", "Add(x, a)", row, row * 2)
    same.graph.inputs[0].shape = same.graph.outputs[0].shape = None
    outcome = apply(PASS, same)
    assert outcome.rewritten == ["q"]
    assert (
        "larger"
        in assert_untouched(PASS, _pair("Add(x, a)", "Add(x, a)", np.tile(row, 40), np.tile(column, (40, 1))))["q"]
    )
    scalar = parse(
        "g (float[1] x) => (float[2,3] y) { p = Add(x, a)  q = Add(p, b)  y = Abs(q) }",
        a=row,
        b=np.tile(column, (1, 3)),
    )
    outcome = apply(PASS, scalar)
    assert outcome.rewritten == ["q"]
    np.testing.assert_allclose(run(outcome.model, {"x": np.ones(1, np.float32)})[0], 1 + row + np.tile(column, (1, 3)))


@pytest.mark.parametrize("kind", ["int8", "int32", "int64"])
@pytest.mark.parametrize(
    ("first", "second"), [("Add(x, a)", "Sub(x, a)"), ("Sub(a, x)", "Sub(a, x)"), ("Mul(x, a)", "Mul(a, x)")]
)
def test_integers_wrap_around_the_same_way(kind: str, first: str, second: str) -> None:
    if kind == "int8":
        kind, most = "int32", np.iinfo(np.int32).max
    else:
        most = np.iinfo(kind).max
    model = _pair(first, second, np.dtype(kind).type(most), np.dtype(kind).type(most - 5), kind)
    outcome = assert_equal_after(PASS, model)
    assert outcome.rewritten == ["q"]
    feed = {"x": np.array([[3, -7, most]], kind)}
    np.testing.assert_array_equal(run(outcome.model, feed)[0], run(model, feed)[0])


def test_integers_are_not_divided() -> None:
    for first, second in (("Div(x, a)", "Div(x, a)"), ("Mul(x, a)", "Div(x, a)"), ("Div(x, a)", "Mul(x, a)")):
        assert assert_untouched(PASS, _pair(first, second, np.int32(3), np.int32(2), "int32")) == {}


def test_a_constant_over_x_is_no_multiple_of_x() -> None:
    for text in (
        "p = Div(a, x)  y = Mul(p, b)",
        "p = Mul(x, a)  y = Div(b, p)",
        "p = Add(x, a)  y = Mul(p, b)",
        "p = Mul(x, a)  y = Add(p, b)",
    ):
        assert assert_untouched(PASS, parse(GRAPH.format(text), a=A, b=B)) == {}


@pytest.mark.parametrize(("a", "b"), [(1e8, -1e8), (1e8, -0.9e8), (-2.0, 2.0), (5.0, -4.0)])
def test_what_cancels_stays(a: float, b: float) -> None:
    model = _pair("Add(x, a)", "Add(x, a)", np.float32(a), np.float32(b))
    assert "cancel" in assert_untouched(PASS, model)["q"]


@pytest.mark.parametrize(
    ("first", "second", "a", "b"),
    [
        ("Mul(x, a)", "Mul(x, a)", 1e30, 1e-30),
        ("Mul(x, a)", "Div(x, a)", 1e-25, 1e-25),
        ("Mul(x, a)", "Mul(x, a)", 1e15, 1e15),
        ("Div(x, a)", "Div(x, a)", 1e-15, 1e-15),
        ("Mul(x, a)", "Div(x, a)", 2.0, 0.0),
        ("Mul(x, a)", "Mul(x, a)", 2.0, np.inf),
        ("Mul(x, a)", "Mul(x, a)", 2.0, np.nan),
    ],
)
def test_what_could_overflow_in_between_or_after_stays(first: str, second: str, a: float, b: float) -> None:
    assert "too large or small" in assert_untouched(PASS, _pair(first, second, np.float32(a), np.float32(b)))["q"]


def test_a_sum_that_overflows_stays() -> None:
    model = _pair("Add(x, a)", "Add(x, a)", np.float32(3e38), np.float32(3e38))
    assert "more than FLOAT holds" in assert_untouched(PASS, model)["q"]
    assert (
        "too large or small for FLOAT16"
        in assert_untouched(PASS, _pair("Mul(x, a)", "Mul(x, a)", np.float16(300), np.float16(2), "float16"))["q"]
    )
    assert apply(PASS, _pair("Mul(x, a)", "Mul(x, a)", np.float16(3), np.float16(2), "float16")).rewritten == ["q"]


def test_others_use_what_is_between() -> None:
    for out, z in ((", float p", "x"), (", float z", "p")):
        model = parse(f"g (float[n] x) => (float y{out}) {{ p = Add(x, a)  y = Add(p, b)  z = Abs({z}) }}", a=A, b=B)
        assert "other users" in assert_untouched(PASS, model)["y"]
    assert_conforms(PASS, _pair("Add(x, a)", "Sub(x, a)", A, np.float32(-3)), must_fire=True, sharing="refuse")


def test_a_constant_that_callers_may_override() -> None:
    for given in ("a", "b"):
        text = f"g (float[n] x, float[1] {given}) => (float y) {{ p = Add(x, a)  q = Add(p, b)  y = Abs(q) }}"
        assert assert_untouched(PASS, parse(text, a=np.array([A]), b=np.array([B]))) == {}


def test_constants_of_both_inputs_are_for_fold_constants() -> None:
    assert assert_untouched(PASS, parse(GRAPH.format("p = Add(a, b)  q = Add(p, a)  y = Add(q, x)"), a=A, b=B)) == {}


def test_large_constants_are_weights() -> None:
    model = _pair("Add(x, a)", "Add(x, a)", np.ones((1, (1 << 18) + 1), np.float32), B)
    assert assert_untouched(PASS, model) == {}


def test_before_opset_7_an_attribute_says_how_to_broadcast() -> None:
    model = parse(GRAPH.format("p = Add<broadcast = 1>(x, a)  y = Add<broadcast = 1>(p, b)"), opset=6, a=A, b=B)
    assert assert_untouched(PASS, model) == {}


def test_works_in_bodies() -> None:
    model = parse(
        """g (bool c, float[n] x) => (float y) { p = Mul(x, a)  y = If (c) <
        then_branch = t () => (float q) { q = Mul(p, b) }, else_branch = e () => (float r) { r = Neg(x) }> }""",
        a=A,
        b=B,
    )
    assert op_types(assert_equal_after(PASS, model, rtol=1e-6).model) == ["If", "Mul", "Neg"]


def test_leaves_other_domains() -> None:
    for text in ("p = custom.Add(x, a)  y = Add(p, b)", "p = Add(x, a)  y = custom.Add(p, b)"):
        assert assert_untouched(PASS, parse(GRAPH.format(text), a=A, b=B)) == {}
