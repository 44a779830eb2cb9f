"""eliminate-inverse-concat: Concat against Split and Slice."""

from __future__ import annotations

import numpy as np
import pytest
from exactness_kit import assert_exact_after
from pass_kit import assert_untouched, op_types, parse

from irc.passes.simplification.eliminate_inverse_concat import EliminateInverseConcat
from irc.testing import assert_conforms

PASS = EliminateInverseConcat()
SIZES = ({"n": 3, "m": 2, "k": 4, "?": 2}, {"n": 1, "m": 1, "k": 1, "?": 1})
REJOIN = "g (float[n,6] x) => (float y) {{ a, b = Split<axis={split}>(x{sizes})  c = Concat<axis={concat}>({parts})  y = Neg(c) }}"
PART = "g (float[n,{p}] p, float[n,{q}] q) => (float y, float z) {{ c = Concat<axis={concat}>(p, q)  a, b = Split<axis={split}>(c{sizes})  y = Neg(a)  z = Exp(b) }}"
PICK = "g (float[n,{p}] p, float[n,{q}] q, float[n,{r}] r) => (float y) {{ c = Concat<axis=1>(p, q, r)  a = Slice(c, s, e, d)  y = Neg(a) }}"


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(("split", "concat", "sizes"), [(1, 1, ""), (-1, 1, ""), (1, -1, ""), (1, 1, ", s")])
def test_split_and_joined_again(split: int, concat: int, sizes: str) -> None:
    model = parse(
        REJOIN.format(split=split, concat=concat, sizes=sizes, parts="a, b"), **({"s": _ints(2, 4)} if sizes else {})
    )
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["Neg"]
    assert_conforms(PASS, model, must_fire=True)


def test_parts_may_have_other_users() -> None:
    model = parse(
        "g (float[n,6] x) => (float y, float z) { a, b = Split<axis=1>(x)  c = Concat<axis=1>(a, b)  y = Neg(c)  z = Exp(a) }"
    )
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["Split", "Neg", "Exp"]


@pytest.mark.parametrize("parts", ["b, a", "a, a", "a, b, a"])
def test_parts_in_another_order(parts: str) -> None:
    model = parse(REJOIN.format(split=1, concat=1, sizes="", parts=parts))
    assert "all parts" in assert_untouched(PASS, model)["c"]


def test_joined_along_another_axis_or_with_something_else() -> None:
    assert (
        "another axis" in assert_untouched(PASS, parse(REJOIN.format(split=1, concat=0, sizes="", parts="a, b")))["c"]
    )
    assert assert_untouched(PASS, parse(REJOIN.format(split=1, concat=1, sizes="", parts="a, b, x"))) == {}
    two = "g (float[n,6] x) => (float y) { a, b = Split<axis=1>(x)  d, e = Split<axis=1>(x)  c = Concat<axis=1>(a, e)  y = Neg(c) }"
    assert assert_untouched(PASS, parse(two)) == {}


@pytest.mark.parametrize(("p", "q", "sizes"), [(3, 3, None), (2, 4, (2, 4)), (3, 3, (3, 3))])
@pytest.mark.parametrize(("concat", "split"), [(1, 1), (-1, 1), (1, -1)])
def test_joined_and_split_again(p: int, q: int, sizes: tuple[int, ...] | None, concat: int, split: int) -> None:
    text = PART.format(p=p, q=q, concat=concat, split=split, sizes=", s" if sizes else "")
    model = parse(text, {"s": _ints(*sizes)} if sizes else {})
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["Neg", "Exp"]
    assert_conforms(PASS, model, must_fire=True)


def test_sizes_as_an_attribute() -> None:
    text = PART.format(p=2, q=4, concat=1, split=1, sizes="").replace("<axis=1>(c", "<axis=1, split=[SIZES]>(c")
    assert op_types(assert_exact_after(PASS, parse(text.replace("SIZES", "2, 4"), opset=12), sizes=SIZES).model) == [
        "Neg",
        "Exp",
    ]
    assert "not known to be" in assert_untouched(PASS, parse(text.replace("SIZES", "4, 2"), opset=12))["a"]


@pytest.mark.parametrize(
    ("p", "q", "sizes"),
    [("2", "4", None), ("2", "4", (4, 2)), ("k", "4", (2, 4)), ("k", "k", None), ("2", "4", (3, 3))],
)
def test_other_parts(p: str, q: str, sizes: tuple[int, ...] | None) -> None:
    text = PART.format(p=p, q=q, concat=1, split=1, sizes=", s" if sizes else "")
    model = parse(text, {"s": _ints(*sizes)} if sizes else {})
    assert "not known to be" in assert_untouched(PASS, model)["a"]


def test_another_axis_number_or_sizes_of_parts() -> None:
    assert assert_untouched(PASS, parse(PART.format(p=4, q=4, concat=1, split=0, sizes=""))) == {}
    three = "g (float[n,2] p, float[n,4] q) => (float y) { c = Concat<axis=1>(p, q)  a, b, d = Split<axis=1>(c)  y = Sum(a, b, d) }"
    assert assert_untouched(PASS, parse(three)) == {}
    given = PART.format(p=3, q=3, concat=1, split=1, sizes=", s").replace("float[n,3] q)", "float[n,3] q, int64[2] s)")
    assert "not constant" in assert_untouched(PASS, parse(given))["a"]
    assert "not constant" in assert_untouched(PASS, parse(given, s=_ints(3, 3)))["a"]


def test_graph_outputs_keep_their_names_without_more_nodes() -> None:
    text = "g (float[n,3] x, float[n,3] z) => (float[n,3] a, float y) {{ {p}  c = Concat<axis=1>(p, z)  a, b = Split<axis=1>(c)  y = Neg(b) }}"
    outcome = assert_exact_after(PASS, parse(text.format(p="p = Exp(x)")), sizes=SIZES)
    assert op_types(outcome.model) == ["Exp", "Neg"]
    model = parse(text.format(p="p0 = Exp(x)").replace("Concat<axis=1>(p, z)", "Concat<axis=1>(x, z)"))
    assert "cannot take" in assert_untouched(PASS, model)["a"]
    twice = "g (float[n,3] x) => (float[n,3] a, float[n,3] b) { p = Exp(x)  c = Concat<axis=1>(p, p)  a, b = Split<axis=1>(c) }"
    assert "one value" in assert_untouched(PASS, parse(twice))["a"]


@pytest.mark.parametrize(
    ("p", "q", "r", "start", "end", "found"),
    [
        (2, 3, "k", 0, 2, "p"),
        (2, 3, "k", 2, 5, "q"),
        (2, 3, 4, 5, 9, "r"),
        (2, 3, 4, 5, 2**63 - 1, "r"),
        (2, 3, 4, -4, 2**31 - 1, "r"),
        (2, 3, 4, -7, -4, "q"),
        (2, 3, 4, -99, 2, "p"),
    ],
)
def test_one_part_picked(p: object, q: object, r: object, start: int, end: int, found: str) -> None:
    model = parse(PICK.format(p=p, q=q, r=r), s=_ints(start), e=_ints(end), d=_ints(1))
    outcome = assert_exact_after(PASS, model, sizes=SIZES)
    assert op_types(outcome.model) == ["Neg"] and next(iter(outcome.model.graph)).inputs[0].name == found
    assert_conforms(PASS, model, must_fire=True)


@pytest.mark.parametrize(
    ("p", "q", "r", "start", "end", "axis"),
    [
        (2, 3, 4, 0, 3, 1),
        (2, 3, 4, 1, 2, 1),
        (2, 3, 4, 2, 9, 1),
        (2, "k", 4, 2, 5, 1),
        ("k", 3, 4, 0, 3, 1),
        (2, 3, "k", 5, 2**63 - 1, 1),
        (2, 3, 4, 0, 2, 0),
        (2, 3, "k", -4, 5, 1),
    ],
)
def test_something_else_picked(p: object, q: object, r: object, start: int, end: int, axis: int) -> None:
    model = parse(PICK.format(p=p, q=q, r=r), s=_ints(start), e=_ints(end), d=_ints(axis))
    assert assert_untouched(PASS, model) == {}


def test_two_axes_or_steps() -> None:
    model = parse(PICK.format(p=2, q=2, r=2), s=_ints(1, 0), e=_ints(9, 2), d=_ints(0, 1))
    assert assert_untouched(PASS, model) == {}
    stepped = PICK.format(p=2, q=2, r=2).replace("s, e, d", "s, e, d, t")
    assert assert_untouched(PASS, parse(stepped, s=_ints(0), e=_ints(2), d=_ints(1), t=_ints(2))) == {}


def test_empty_parts_are_not_picked() -> None:
    model = parse(PICK.format(p=0, q=3, r=4), s=_ints(0), e=_ints(0), d=_ints(1))
    assert assert_untouched(PASS, model) == {}


def test_works_in_bodies_and_leaves_other_domains() -> None:
    model = parse(
        """g (bool c, float[n,6] x) => (float y) { a, b = Split<axis=1>(x)  y = If (c) <
        then_branch = t () => (float q) { d = Concat<axis=1>(a, b)  q = Exp(d) }, else_branch = e () => (float r) { r = Abs(x) }> }"""
    )
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["If", "Exp", "Abs"]
    text = REJOIN.format(split=1, concat=1, sizes="", parts="a, b")
    for other in (text.replace("Concat", "custom.Concat"), text.replace("Split", "custom.Split")):
        assert assert_untouched(PASS, parse(other)) == {}
