"""merge-reshapes: forms of other versions, unknown ranks, and zeros that are meant or copied."""

from __future__ import annotations

import numpy as np
import pytest
from exactness_kit import assert_exact_after, constants, initializer_names
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification import MergeReshapes
from irc.passes.simplification.dimensions import Dimensions
from irc.passes.simplification.reshaped_dimensions import reshaped

PASS = MergeReshapes()
TWO = "g (float[{}] x) => (float y) {{ a = {}  b = {}  y = Neg(b) }}"
RANKLESS = "g (float[n] x, int64[k] s) => (float y) {{ r = Reshape(x, s)  h = Abs(r)  a = {}  b = {}  y = Neg(b) }}"


def test_a_reshape_of_opset_12_has_no_axes() -> None:
    for first in ("Unsqueeze<axes=[0]>(x)", "Flatten(x)"):
        model = parse(TWO.format("n,2,6", first, "Reshape(a, t)"), constants(t=[-1, 4]), opset=12)
        outcome = assert_exact_after(PASS, model)
        assert op_types(outcome.model) == ["Reshape", "Neg"]


def test_a_zero_that_the_second_means() -> None:
    text = TWO.format("n,0,4", "Reshape<allowzero=1>(x, s)", "Reshape<allowzero=1>(a, t)")
    model = parse(text, constants(s=[0, 7], t=[0, 3]))
    assert "numbers" in assert_untouched(PASS, model)["b"]


def test_a_copied_number_stands_for_itself_behind_the_other() -> None:
    model = parse(TWO.format("n,6,4", "Reshape(x, s)", "Reshape(a, t)"), constants(s=[-1, 2, 12], t=[0, 0, 3, 4]))
    outcome = assert_exact_after(PASS, model, sizes=({"n": 3}, {"n": 1}))
    assert op_types(outcome.model) == ["Reshape", "Neg"]


def test_axes_of_an_unknown_rank_that_count_from_behind() -> None:
    for first, second in (
        ("Unsqueeze(h, c)", "Unsqueeze(a, d)"),
        ("Unsqueeze(h, d)", "Unsqueeze(a, c)"),
        ("Squeeze(h, c)", "Squeeze(a, d)"),
        ("Squeeze(h, d)", "Squeeze(a, c)"),
        ("Unsqueeze(h, c)", "Squeeze(a, d)"),
        ("Squeeze(h)", "Squeeze(a, d)"),
        ("Squeeze(h, d)", "Squeeze(a)"),
        ("Squeeze(h, c)", "Squeeze(a)"),
    ):
        used = {name: value for name, value in (("c", [0]), ("d", [-1])) if f", {name})" in first + second}
        model = parse(RANKLESS.format(first, second), constants(**used))
        assert "numbers" in assert_untouched(PASS, model)["b"]


def test_axes_of_an_unknown_rank_that_count_from_the_front() -> None:
    feed = {"x": np.arange(4, dtype=np.float32), "s": np.array([1, 1, 4])}
    for operator in ("Unsqueeze", "Squeeze"):
        model = parse(RANKLESS.format(f"{operator}(h, c)", f"{operator}(a, c)"), constants(c=[0]))
        outcome = assert_exact_after(PASS, model, feeds=(feed,))
        assert op_types(outcome.model) == ["Reshape", "Abs", operator, "Neg"]


@pytest.mark.parametrize(
    ("first", "second", "target"),
    [
        ("Unsqueeze(h, c)", "Flatten(a)", None),
        ("Unsqueeze(h, c)", "Reshape(a, t)", [0, -1]),
        ("Flatten(h)", "Reshape(a, t)", [0, 2, -1]),
    ],
)
def test_what_depends_on_dimensions_of_an_unknown_rank_stays(first: str, second: str, target: list[int] | None) -> None:
    used = {"c": [0]} if "c)" in first else {}
    model = parse(RANKLESS.format(first, second), constants(**used, **({"t": target} if target else {})))
    assert "numbers" in assert_untouched(PASS, model)["b"]


@pytest.mark.parametrize("operator", ["Reshape(a, t)", "Reshape<allowzero=1>(a, t)"])
def test_numbers_of_a_shape_hold_behind_an_unknown_rank(operator: str) -> None:
    feed = {"x": np.arange(4, dtype=np.float32), "s": np.array([1, 4])}
    outcome = assert_exact_after(
        PASS, parse(RANKLESS.format("Flatten(h)", operator), constants(t=[-1, 2])), feeds=(feed,)
    )
    assert op_types(outcome.model) == ["Reshape", "Abs", "Reshape", "Neg"]


def test_a_copied_dimension_that_was_elsewhere() -> None:
    model = parse(TWO.format("n", "Unsqueeze(x, c)", "Reshape(a, t)"), constants(c=[0], t=[1, 0, 1]))
    assert op_types(assert_exact_after(PASS, model).model) == ["Reshape", "Neg"]
    empty = TWO.format("2,0", "Reshape<allowzero=1>(x, s)", "Reshape(a, t)")
    assert "numbers" in assert_untouched(PASS, parse(empty, constants(s=[0, 2], t=[0, 5])))["b"]


def test_a_shape_that_is_computed() -> None:
    text = "g (float[n,4] x) => (float y) { a = Unsqueeze(x, i)  s = Shape(x)  d = Gather(s, i)  t = Concat<axis=0>(d, two)  b = Reshape(a, t)  y = Neg(b) }"
    outcome = assert_exact_after(PASS, parse(text, constants(i=[0], two=[2, 2])))
    assert op_types(outcome.model) == ["Reshape", "Neg"] and initializer_names(outcome.model) == ["b.shape"]


NAMED = "g (float[{}] x) => (float y) {{ a = {}  {name} = {}  y = Neg({name}) }}"
NAME_COUNTS = {
    "a pair that goes": ("n,m", "Unsqueeze(x, c)", "Squeeze(a, c)", {"c": [0]}, 17, []),
    "a shape that is there": ("n,3,4", "Flatten(x)", "Reshape(a, c)", {"c": [-1, 2, 6]}, 17, ["c"]),
    "axes as attributes": ("n,m", "Unsqueeze<axes=[0]>(x)", "Unsqueeze<axes=[2]>(a)", {}, 12, []),
    "axes to store": ("n,m", "Unsqueeze(x, c)", "Unsqueeze(a, d)", {"c": [0], "d": [2]}, 17, "axes"),
    "a shape to store": ("n,3,4", "Unsqueeze<axes=[0]>(x)", "Flatten<axis=2>(a)", {}, 12, "shape"),
}


@pytest.mark.parametrize("case", NAME_COUNTS)
def test_a_long_name_matters_only_where_something_is_stored_under_it(case: str) -> None:
    *form, weights, opset, left = NAME_COUNTS[case]
    for name in ("b", "b" * 99):
        model = parse(NAMED.format(*form, name=name), constants(**weights), opset=opset)
        if isinstance(left, str) and name != "b":
            assert "larger" in assert_untouched(PASS, model)[name]
        else:
            outcome = apply(PASS, model)
            assert outcome.rewritten == [name]
            assert initializer_names(outcome.model) == ([f"b.{left}"] if isinstance(left, str) else left)


def test_a_squeeze_without_axes_takes_what_is_of_size_1_when_it_runs() -> None:
    model = parse(RANKLESS.format("Unsqueeze(h, c)", "Squeeze(a)"), constants(c=[0]))
    assert "numbers" in assert_untouched(PASS, model)["b"]
    model = parse(TWO.format("n,m", "Unsqueeze(x, c)", "Squeeze(a)"), constants(c=[0]))
    assert "numbers" in assert_untouched(PASS, model)["b"]
    known = parse(TWO.format("2,3", "Unsqueeze(x, c)", "Squeeze(a)"), constants(c=[0]))
    assert op_types(assert_exact_after(PASS, known).model) == ["Neg"]


def test_axes_given_by_the_caller() -> None:
    text = "g (float[n,m] x, int64[1] c) => (float y) { a = Unsqueeze(x, d)  b = Squeeze(a, c)  y = Neg(b) }"
    assert "numbers" in assert_untouched(PASS, parse(text, constants(d=[0])))["b"]


# input, operator, what it asks for, its dimensions; y0 is what nothing else explains
DIMENSIONS = [
    ("n,4", "Reshape(x, c)", [0, 2, 2], ("n", 2, 2)),
    ("n,4", "Reshape(x, c)", [2, 2, 0], None),
    ("0,4", "Reshape<allowzero=1>(x, c)", [2, 2, 0], (2, 2, 0)),
    ("n,4", "Reshape(x, c)", [4, -1], (4, "n")),
    ("n,m", "Reshape(x, c)", [0, -1], ("n", "m")),
    ("n,m,4", "Reshape(x, c)", [0, -1], ("n", "y1")),
    ("n,4", "Reshape(x, c)", [-1], ("y0",)),
    ("n,4", "Reshape(x, c)", [-1, 2], ("y0", 2)),
    ("2,6", "Reshape(x, c)", [3, -1], (3, 4)),
    ("2,6", "Reshape(x, c)", [5, -1], (5, "y1")),
    ("0,4", "Reshape(x, c)", [0, -1], (0, "y1")),
    ("n", "w = Shape(z)  s = Concat<axis=0>(w, c)  y = Reshape(x, s)", [-1], ("m", "y1")),
    ("n", "Reshape(x, d)", None, None),
    ("n,3,4", "Flatten(x)", None, ("n", 12)),
    ("n,m,4", "Flatten<axis=2>(x)", None, ("y0", 4)),
    ("n,m", "Flatten<axis=-1>(x)", None, ("n", "m")),
    ("n,m", "Flatten<axis=0>(x)", None, (1, "y1")),
    ("n,1", "Squeeze(x, c)", [1], ("n",)),
    ("n,1,m", "Squeeze(x, c)", [-2], ("n", "m")),
    ("n,1", "Squeeze(x)", None, None),
    ("2,1", "Squeeze(x)", None, (2,)),
    ("2,1", "Squeeze(x, d)", None, None),
    ("", "Squeeze(x, c)", [0], None),
    ("n", "Unsqueeze(x, c)", [0], (1, "n")),
    ("n", "Unsqueeze(x, c)", [-1, 0], (1, "n", 1)),
    ("n", "Unsqueeze(x, c)", [0, 0], None),
    ("n", "Unsqueeze(x, d)", None, None),
]


@pytest.mark.parametrize(("shape", "nodes", "asked", "expected"), DIMENSIONS)
def test_dimensions_behind_a_regrouping(
    shape: str, nodes: str, asked: list[int] | None, expected: tuple[int | str, ...] | None
) -> None:
    """As y is an output, its own declaration is not believed."""
    nodes = nodes if "y =" in nodes else f"y = {nodes}"
    type_ = f"float[{shape}]" if shape else "float"
    text = f"g ({type_} x, float[m] z, int64[1] d) => (float y) {{ {nodes} }}"
    model = parse(text, {} if asked is None else constants(c=asked))
    dims, node = Dimensions(model), model.graph[-1]
    found = reshaped(node, dims.of(node.inputs[0]), dims, 17)
    own = {(node.outputs[0], axis): f"y{axis}" for axis in range(3)}
    assert (None if found is None else tuple(own.get(dim, dim) for dim in found)) == expected  # type: ignore[call-overload]


def test_axes_may_be_left_out_by_an_empty_name() -> None:
    model = parse("g (float[2,3] x) => (float y) { a = Unsqueeze(x, c)  y = Squeeze(a, c) }", constants(c=[0]))
    model.graph[-1].replace_input_with(1, None)  # as onnx says; ONNX Runtime does not take it
    assert op_types(apply(PASS, model).model) == ["Identity"]
