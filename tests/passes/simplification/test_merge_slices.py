"""merge-slices: one Slice for two, against numpy's own slicing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from exactness_kit import assert_exact_after
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification.merge_slices import MergeSlices
from irc.passes.simplification.slicing import Cut, both
from irc.testing import assert_conforms

PASS = MergeSlices()
SIZES = tuple({"n": n, "m": m, "?": 3} for n, m in ((12, 12), (4, 5), (1, 2)))


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _two(shape: str, first: tuple, second: tuple, **more) -> object:
    names = ("s", "e", "a", "t")
    weights = {
        f"{n}{i}": np.atleast_1d(np.array(v, np.int64))
        for i, c in enumerate((first, second))
        for n, v in zip(names, c, strict=False)
    }
    calls = [", ".join(f"{n}{i}" for n, _ in zip(names, c, strict=False)) for i, c in enumerate((first, second))]
    return parse(
        f"g (float[{shape}] x) => (float y) {{ p = Slice(x, {calls[0]})  q = Slice(p, {calls[1]})  y = Neg(q) }}",
        weights,
        **more,
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((2, 10, 1), (1, 3, 1), ([3], [5], [1])),
        ((2, 10, 1), (1, 2**62, 1), ([3], [10], [1])),
        ((2, -1, 1), (1, 2**63 - 1, 1), ([3], [-1], [1])),
        ((0, 2**63 - 1, 0), (3, 4, 0), ([3], [4])),
        ((2, 10, 1), (1, 3, 0), ([1, 2], [3, 10])),
        ((-2, 2**63 - 1, 0), (-3, -1, 1), ([-2, -3], [2**63 - 1, -1])),
    ],
)
def test_whatever_the_size(first: tuple, second: tuple, expected: tuple) -> None:
    outcome = assert_exact_after(PASS, _two("n,m", first, second), sizes=SIZES)
    assert op_types(outcome.model) == ["Slice", "Neg"]
    (node,) = [n for n in outcome.model.graph if n.op_type == "Slice"]
    found = tuple(outcome.model.graph.initializers[v.name].const_value.numpy().tolist() for v in node.inputs[1:])
    assert found == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((-5, -1, 0), (1, 2, 0)),
        ((2, 9, 0), (-2, 2**63 - 1, 0)),
        ((8, 0, 0, -2), (1, 3, 0)),
        ((0, 9, 0, 2), (3, -99, 0, -1)),
        ((9, -99, 0, -1), (9, -99, 0, -3)),
        ((0, 2, 0), (5, 9, 0)),
        ((1, 9, -2, 3), (0, 2, 1)),
        ((1, 9, -2, 3), (1, 3, -2)),
    ],
)
def test_where_the_size_is_known(first: tuple, second: tuple) -> None:
    outcome = assert_exact_after(PASS, _two("10,3", first, second), sizes=({},))
    assert op_types(outcome.model) == ["Slice", "Neg"]


def test_all_small_cuts_are_those_of_python() -> None:
    bounds = (-9, -2, -1, 0, 1, 3, 9)
    steps = (-2, -1, 1, 2)
    axis = list(range(5))
    for a, b, s in itertools.product(bounds, bounds, steps):
        for c, d, t in itertools.product((-4, -1, 0, 1, 4), (-4, -1, 1, 4, 9), steps):
            one = both(Cut(a, b, s), Cut(c, d, t), 5)
            assert one is not None and axis[one.start : one.end : one.step] == axis[a:b:s][c:d:t]
    for a, b, c, d in itertools.product(bounds, (*bounds, 2**63 - 1), bounds, (*bounds, 2**63 - 1)):
        one = both(Cut(a, b), Cut(c, d), None)
        for size in range(8) if one is not None else ():
            axis = list(range(size))
            assert axis[one.start : one.end] == axis[a:b][c:d]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((-3, 2**63 - 1, 0), (1, 2, 0)),
        ((1, -1, 0), (1, 3, 0)),
        ((1, 9, 0), (-2, 9, 0)),
        ((0, 9, 0, 2), (1, 3, 0)),
        ((0, 9, 0), (1, 3, 0, 2)),
        ((1, 9, 0), (1, -1, 0)),
    ],
)
def test_where_the_size_matters_and_is_not_known(first: tuple, second: tuple) -> None:
    assert "depends on its size" in assert_untouched(PASS, _two("n,3", first, second))["q"]


def test_before_opset_10_bounds_are_attributes() -> None:
    model = parse(
        "g (float[n,6] x) => (float y) { p = Slice<starts=[1], ends=[5], axes=[1]>(x)  q = Slice<starts=[1,1], ends=[9,3]>(p)  y = Neg(q) }",
        opset=9,
    )
    outcome = assert_exact_after(PASS, model, sizes=SIZES)
    (node,) = [n for n in outcome.model.graph if n.op_type == "Slice"]
    assert list(node.attributes.get_ints("starts")) == [1, 2] and list(node.attributes.get_ints("ends")) == [9, 4]


def test_conforms_also_where_others_use_what_is_between() -> None:
    assert_conforms(PASS, _two("n,m", (2, 10, 1), (1, 3, 0)), must_fire=True, sharing="refuse")
    text = "g (float[n,m] x) => (float y{out}) {{ p = Slice(x, a, b)  q = Slice(p, a, b)  y = Neg(q)  z = Abs({z}) }}"
    for out, z in ((", float p", "x"), (", float z", "p")):
        assert "other users" in assert_untouched(PASS, parse(text.format(out=out, z=z), a=_ints(1), b=_ints(9)))["q"]


def test_bounds_that_are_not_constant() -> None:
    for given in ("int64[1] b", "int64[1] a", "int64[1] c"):
        name = given[-1]
        weights = {"a": _ints(1), "b": _ints(9), "c": _ints(2)}
        text = f"g (float[n] x, {given}) => (float y) {{ p = Slice(x, a, b)  q = Slice(p, c, b)  y = Neg(q) }}"
        model = parse(text, {k: v for k, v in weights.items() if k != name})
        assert "not constant" in assert_untouched(PASS, model)["q"]
        assert "not constant" in assert_untouched(PASS, parse(text, weights))["q"]


def test_negative_axes_of_unknown_rank() -> None:
    text = "g (float[n] x, int64[k] s) => (float y) {{ r = Reshape(x, s)  p = Slice(r, a, b, {axis})  q = Slice(p, a, b, {axis})  y = Neg(q) }}"
    weights = {"a": _ints(1), "b": _ints(9), "front": _ints(0), "back": _ints(-1)}
    assert "unknown rank" in assert_untouched(PASS, parse(text.format(axis="back"), weights))["q"]
    assert op_types(apply(PASS, parse(text.format(axis="front"), weights)).model) == ["Reshape", "Slice", "Neg"]


def test_what_is_stored_is_not_larger_than_before() -> None:
    model = parse(
        "g (float[n,9,9,9] x) => (float y, float u, float v) { p = Slice(x, a, b, c)  q = Slice(p, a, b, d)  y = Neg(q)  u0 = Slice(x, a, b)  u = Slice(u0, a, b, c)  v = Slice(u0, a, b, d) }",
        a=_ints(1),
        b=_ints(7),
        c=_ints(1),
        d=_ints(2),
    )
    assert "larger" in assert_untouched(PASS, model)["q"]


def test_works_in_bodies() -> None:
    model = parse(
        """g (bool c, float[n,m] x) => (float y) { p = Slice(x, a0, b0)  y = If (c) <
        then_branch = t () => (float q) { q = Slice(p, a1, b1) },
        else_branch = e () => (float r) { k = Slice(x, a2, b2)  l = Slice(k, a3, b3)  r = Neg(l) }> }""",
        {f"{name}{i}": _ints(value) for name, value in (("a", 1), ("b", 9)) for i in range(4)},
    )
    outcome = assert_exact_after(PASS, model, sizes=SIZES)
    assert op_types(outcome.model) == ["If", "Slice", "Slice", "Neg"]


def test_leaves_other_domains() -> None:
    for text in ("p = custom.Slice(x, a, b)  y = Slice(p, a, b)", "p = Slice(x, a, b)  y = custom.Slice(p, a, b)"):
        assert (
            assert_untouched(PASS, parse(f"g (float[n,m] x) => (float y) {{ {text} }}", a=_ints(1), b=_ints(9))) == {}
        )
