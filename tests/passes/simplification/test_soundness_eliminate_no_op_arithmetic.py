"""eliminate-no-op-arithmetic: what is not known, old versions, and nodes that are no arithmetic at all."""

from __future__ import annotations

import numpy as np
import pytest
from exactness_kit import assert_exact_after
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification import EliminateNoOpArithmetic

PASS = EliminateNoOpArithmetic()


def test_nodes_without_inputs_or_without_the_first() -> None:
    model = parse(
        """g (float[2] x, bool c) => (float[2] y) { r = RandomNormal<shape=[2]>()  l = Loop (, c, x) <body = b
        (int64 i, bool d, float[2] s) => (bool e, float[2] t) { e = Not(d)  t = Neg(s) }>  y = Sub(l, r) }"""
    )
    assert assert_untouched(PASS, model) == {}


def test_a_cast_of_opset_5_names_its_type() -> None:
    model = parse('g (float[n] x) => (float[n] y) { a = Cast<to="FLOAT">(x)  y = Neg(a) }', opset=5, raw=True)
    assert assert_untouched(PASS, model) == {}


def test_types_that_are_not_known_are_not_the_same() -> None:
    model = parse("g (float[n] x) => (float[n] y) { a = custom.F(x)  b = Cast<to=1>(a)  y = Neg(b) }", raw=True)
    assert assert_untouched(PASS, model) == {}
    like = parse(
        "g (float[n] x) => (float[n] y) { a = custom.F(x)  e = custom.F(x)  b = CastLike(a, e)  y = Neg(b) }", raw=True
    )
    assert assert_untouched(PASS, like) == {}
    other = parse("g (float[n] x, double[1] z) => (double[n] y) { b = CastLike(x, z)  y = Neg(b) }")
    assert assert_untouched(PASS, other) == {}


@pytest.mark.parametrize(("x", "axis", "c"), [((2, 3), ", axis=0", (2,)), ((1,), "", (1, 1))])
def test_what_decides_an_and_of_opset_6_may_be_broadcast_otherwise(
    x: tuple[int, ...], axis: str, c: tuple[int, ...]
) -> None:
    type_ = f"bool[{','.join(map(str, x))}]"
    model = parse(
        f"g ({type_} x) => ({type_} y) {{ a = And<broadcast=1{axis}>(x, c)  y = Not(a) }}",
        c=np.zeros(c, bool),
        opset=6,
        raw=True,
    )
    outcome = apply(PASS, model)
    assert outcome.rewritten == []


def test_a_constant_without_elements_decides_nothing_but_an_and_or_or() -> None:
    model = parse("g (float[1] x) => (float y) { a = Reshape(x, c)  y = Neg(a) }", c=np.zeros(0, np.int64))
    assert assert_untouched(PASS, model) == {}


def test_what_decides_must_be_at_least_as_large() -> None:
    for shape in ((), (3,), (1, 3), (2, 3)):
        model = parse("g (bool[2,3] x) => (bool[2,3] y) { a = And(x, c)  y = Not(a) }", c=np.zeros(shape, bool))
        outcome = assert_exact_after(PASS, model)
        assert op_types(outcome.model) == (["Not"] if shape == (2, 3) else ["And", "Not"])


def test_what_decides_does_not_where_the_rank_of_the_other_is_unknown() -> None:
    text = "g (bool[n] x, int64[k] s) => (bool y) { r = Reshape(x, s)  a = And(r, c)  y = Not(a) }"
    assert assert_untouched(PASS, parse(text, c=np.zeros((2, 3), bool))) == {}


def test_powers_of_a_type_that_is_not_known_stay() -> None:
    model = parse(
        "g (float[n] x) => (float[n] y) { a = custom.F(x)  b = Pow(a, c)  y = Neg(b) }", c=np.float32(1), raw=True
    )
    assert "64-bit" in assert_untouched(PASS, model)["b"]


def test_adding_zero_after_a_cast_from_what_is_not_known() -> None:
    text = "g (float[n] x) => (float[n] y) {{ a = {}(x)  b = Cast<to=1>(a)  d = Add(b, c)  y = Neg(d) }}"
    model = parse(text.format("custom.F"), c=np.float32(0), raw=True)
    model.graph[1].outputs[0].shape = model.graph.inputs[0].shape
    assert "-0.0" in assert_untouched(PASS, model)["d"]


def test_strings_and_sequences_are_no_constants_to_compare() -> None:
    model = parse("g (string[n] x) => (bool[n] y) { a = Equal(x, c)  y = Not(a) }", c=np.array(["1"]), opset=19)
    assert assert_untouched(PASS, model) == {}
