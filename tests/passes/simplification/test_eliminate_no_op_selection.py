"""eliminate-no-op-selection: Where and Gather that return an input."""

from __future__ import annotations

import numpy as np
import pytest
from exactness_kit import assert_exact_after
from pass_kit import assert_equal_after, assert_untouched, op_types, parse

from irc.passes.simplification.eliminate_no_op_selection import MAX_BYTES, EliminateNoOpSelection
from irc.testing import assert_conforms

PASS = EliminateNoOpSelection()
WHERE = "g (float[{x}] x, float[{z}] z) => (float y) {{ a = Where(c, x, z)  y = Neg(a) }}"
GATHER = "g (float[{x}] x) => (float y) {{ a = Gather<axis={axis}>(x, i)  y = Neg(a) }}"
SIZES = ({"n": 3, "m": 2, "k": 4, "?": 2}, {"n": 1, "m": 1, "k": 1, "?": 1})


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize(
    ("x", "z", "c"), [("n,4", "n,4", ()), ("n,4", "n,4", (4,)), ("n,4", "n,4", (1, 1)), ("3,4", "3,4", (3, 4))]
)
def test_a_condition_that_is_always_the_same(value: bool, x: str, z: str, c: tuple[int, ...]) -> None:
    model = parse(WHERE.format(x=x, z=z), c=np.full(c, value))
    outcome = assert_equal_after(PASS, model, symbols=(3, 1)) if value else assert_exact_after(PASS, model, sizes=SIZES)
    assert op_types(outcome.model) == ["Neg"]
    assert next(iter(outcome.model.graph)).inputs[0].name == ("x" if value else "z")
    assert_conforms(PASS, model, must_fire=True)


@pytest.mark.parametrize(
    ("x", "z", "fires"),
    [
        ("n,4", "4", True),
        ("n,4", "1,1", True),
        ("n,4", "", True),
        ("4", "n,4", False),
        ("n,4", "m,4", False),
        ("1,4", "n,4", False),
        ("n,4", "1,n,4", False),
    ],
)
def test_the_other_input_must_not_enlarge_it(x: str, z: str, fires: bool) -> None:
    model = parse(WHERE.format(x=x, z=z).replace("float[] z", "float z"), c=np.array(True))
    if not z:
        model.graph.inputs[1].shape = type(model.graph.inputs[0].shape)([])
    if fires:
        assert op_types(assert_equal_after(PASS, model, symbols=(3, 1)).model) == ["Neg"]
    else:
        assert "enlarge" in assert_untouched(PASS, model)["a"]


def test_the_condition_must_not_enlarge_it() -> None:
    for shape in ((3, 1), (1, 1, 1), (2, 4)):
        model = parse(WHERE.format(x="1,4", z="1,4"), c=np.ones(shape, bool))
        assert "enlarge" in assert_untouched(PASS, model)["a"]


def test_both_inputs_the_same() -> None:
    text = "g (bool[{c}] c, float[n,4] x) => (float y) {{ a = Where(c, x, x)  y = Neg(a) }}"
    assert op_types(assert_equal_after(PASS, parse(text.format(c="n,4")), symbols=(3, 1)).model) == ["Neg"]
    assert "enlarge" in assert_untouched(PASS, parse(text.format(c="m,4")))["a"]
    assert "enlarge" in assert_untouched(PASS, parse(text.format(c="k,n,4")))["a"]


def test_unnamed_dimensions_are_not_equal() -> None:
    model = parse(WHERE.format(x="n,4", z="m,4"), c=np.array(True))
    for value in model.graph.inputs:
        value.shape = type(value.shape)([None, 4])
    assert "enlarge" in assert_untouched(PASS, model)["a"]


def test_a_condition_that_selects_is_empty_or_may_be_overridden() -> None:
    for c in (np.array([True, False, True, True]), np.zeros((0,), bool)):
        model = parse(WHERE.format(x="n,4" if c.size else "n,1", z="n,4" if c.size else "n,1"), c=c)
        assert assert_untouched(PASS, model) == {}
    model = parse(WHERE.format(x="n,4", z="n,4").replace("x,", "x, bool[1] c,", 1), c=np.array([True]))
    assert assert_untouched(PASS, model) == {}


@pytest.mark.parametrize(
    ("x", "axis", "indices"),
    [("n,3", 1, [0, 1, 2]), ("n,3", -1, [0, 1, 2]), ("3,n", 0, [0, -2, -1]), ("n,1,2", 1, [0]), ("n,1,2", -2, [-1])],
)
def test_a_gather_of_everything_in_order(x: str, axis: int, indices: list[int]) -> None:
    model = parse(GATHER.format(x=x, axis=axis), i=np.array(indices, np.int64))
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["Neg"]
    assert_conforms(PASS, model, must_fire=True)


@pytest.mark.parametrize(
    ("x", "axis", "indices"),
    [
        ("n,3", 1, [0, 2, 1]),
        ("n,3", 1, [0, 1]),
        ("n,3", 1, [0, 1, 1]),
        ("n,2", 1, [0, 1, 1]),
        ("n,3", 1, [[0, 1, 2]]),
        ("n,1", 1, 0),
        ("3,n", 1, [0, 1, 2]),
        ("n,3", 0, [0, 1, 2]),
    ],
)
def test_a_gather_of_something_else(x: str, axis: int, indices: object) -> None:
    assert assert_untouched(PASS, parse(GATHER.format(x=x, axis=axis), i=np.array(indices, np.int64))) == {}


def test_indices_that_callers_may_override_or_too_large_to_read() -> None:
    text = "g (float[n,3] x, int64[3] i) => (float y) { a = Gather<axis=1>(x, i)  y = Neg(a) }"
    assert assert_untouched(PASS, parse(text, i=np.arange(3))) == {}
    count = MAX_BYTES // 8 + 1
    assert assert_untouched(PASS, parse(GATHER.format(x=f"n,{count}", axis=1), i=np.arange(count))) == {}


def test_an_output_whose_declared_shape_nobody_checks() -> None:
    model = parse(
        "g (float[n,3] x, int64[2] s) => (float[n,3] r, float y) { r = Reshape(x, s)  a = Gather<axis=1>(r, i)  y = Neg(a) }",
        i=np.arange(3),
    )
    assert assert_untouched(PASS, model) == {}


def test_works_in_bodies_and_leaves_other_domains() -> None:
    model = parse(
        """g (bool c, float[n,3] x) => (float y) { y = If (c) <
        then_branch = t () => (float q) { a = Gather<axis=1>(x, i)  q = Exp(a) }, else_branch = e () => (float r) { r = Abs(x) }> }""",
        i=np.arange(3),
    )
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["If", "Exp", "Abs"]
    assert (
        assert_untouched(PASS, parse(GATHER.format(x="n,3", axis=1).replace("Gather", "custom.Gather"), i=np.arange(3)))
        == {}
    )


def test_from_input_to_output_an_identity_stays() -> None:
    model = parse("g (float[n,3] x) => (float[n,3] y) { y = Gather<axis=1>(x, i) }", i=np.arange(3))
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["Identity"]


def test_other_operators_with_such_a_constant_stay() -> None:
    for op in ("Add", "Sub"):
        model = parse(f"g (int64[3,3] x) => (int64[3,3] y) {{ a = {op}(x, i)  y = Neg(a) }}", i=np.arange(3))
        assert assert_untouched(PASS, model) == {}
