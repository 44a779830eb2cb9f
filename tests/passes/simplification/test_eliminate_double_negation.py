"""eliminate-double-negation."""

from __future__ import annotations

import pytest
from exactness_kit import assert_exact_after
from pass_kit import assert_untouched, op_types, parse

from irc.passes.simplification.eliminate_double_negation import EliminateDoubleNegation
from irc.testing import assert_conforms

PASS = EliminateDoubleNegation()


@pytest.mark.parametrize(
    ("op", "kind", "last"),
    [("Neg", "float", "Abs"), ("Neg", "int64", "Abs"), ("Not", "bool", "Identity"), ("BitwiseNot", "int32", "Abs")],
)
def test_removes_two(op: str, kind: str, last: str) -> None:
    model = parse(f"g ({kind}[n] x) => ({kind}[n] y) {{ a = {op}(x)  b = {op}(a)  y = {last}(b) }}", opset=18)
    assert op_types(assert_exact_after(PASS, model).model) == [last]
    assert_conforms(PASS, model, must_fire=True)


def test_of_three_one_stays_and_of_four_none() -> None:
    text = "g (float[n] x) => (float[n] y) {{ a = Neg(x)  b = Neg(a)  c = Neg(b)  d = {}  y = Abs(d) }}"
    assert op_types(assert_exact_after(PASS, parse(text.format("Relu(c)"))).model) == ["Neg", "Relu", "Abs"]
    assert op_types(assert_exact_after(PASS, parse(text.format("Neg(c)"))).model) == ["Abs"]


def test_what_is_between_may_have_other_users() -> None:
    for out, z in ((", float a", "x"), (", float z", "a")):
        model = parse(f"g (float[n] x) => (float y{out}) {{ a = Neg(x)  b = Neg(a)  y = Abs(b)  z = Exp({z}) }}")
        assert op_types(assert_exact_after(PASS, model).model).count("Neg") == 1


def test_from_input_to_output_an_identity_stays() -> None:
    model = parse("g (float[n] x) => (float[n] y) { a = Neg(x)  y = Neg(a) }")
    assert op_types(assert_exact_after(PASS, model).model) == ["Identity"]


def test_other_operators_and_domains_stay() -> None:
    for text in (
        "a = Neg(x)  y = Abs(a)",
        "a = Abs(x)  y = Neg(a)",
        "a = Reciprocal(x)  y = Reciprocal(a)",
        "a = custom.Neg(x)  y = Neg(a)",
        "a = Neg(x)  y = custom.Neg(a)",
    ):
        assert assert_untouched(PASS, parse(f"g (float[n] x) => (float y) {{ {text} }}")) == {}


def test_works_in_bodies() -> None:
    model = parse(
        """g (bool c, float[n] x) => (float y) { p = Neg(x)  y = If (c) <
        then_branch = t () => (float q) { a = Neg(p)  q = Exp(a) }, else_branch = e () => (float r) { r = Abs(x) }> }"""
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["If", "Exp", "Abs"]
