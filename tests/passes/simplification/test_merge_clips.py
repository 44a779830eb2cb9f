"""merge-clips: one clipping for two, bit by bit: NaN, infinities, zeros and their signs, reversed bounds."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from exactness_kit import SPECIAL, assert_exact_after, assert_identical
from pass_kit import apply, assert_untouched, op_types, parse, run

from irc.ir import constant, size_on_disk
from irc.passes.simplification import MergeClips
from irc.testing import assert_conforms, assert_rewrites

PASS = MergeClips()
INF = float("inf")
LONG = "a_name_as_exporters_give_them"
FLOAT_STEPS = (
    "Relu({0})",
    "Clip({0})",
    "Clip({0}, zero)",
    "Clip({0}, minus_zero)",
    "Clip({0}, , six)",
    "Clip({0}, zero, six)",
    "Clip({0}, one, seven)",
    "Clip({0}, minus_two, minus_one)",
    "Clip({0}, minus_two, zero)",
    "Clip({0}, minus_inf, inf)",
    "Clip({0}, minus_two, minus_zero)",
    "Max({0}, zero)",
    "Max({0}, minus_zero)",
    "Max(one, {0})",
    "Max({0}, minus_two)",
    "Min({0}, six)",
    "Min(zero, {0})",
    "Min({0}, minus_one)",
    "Min({0}, inf)",
)
VALUES = {
    "zero": 0.0,
    "minus_zero": -0.0,
    "one": 1.0,
    "six": 6.0,
    "seven": 7.0,
    "minus_one": -1.0,
    "minus_two": -2.0,
    "inf": INF,
    "minus_inf": -INF,
}


@pytest.mark.parametrize("dtype", ["float", pytest.param("double", marks=pytest.mark.slow), "float16"])
def test_every_pair_it_merges_gives_the_same_bits(dtype: str) -> None:
    """All chains of two and of the three most telling, over numbers at and around every bound."""
    numpy_type = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    numbers = [v + d for v in (*SPECIAL, *VALUES.values()) for d in (0, 0.25, -0.25)]
    with np.errstate(over="ignore"):
        feed = {"x": np.array([*numbers, -0.0, -0.0, 0.0, np.nan, 6.5, -INF], numpy_type)}
        weights = {name: np.array(value, numpy_type) for name, value in VALUES.items()}
    merged = 0
    for first, second in itertools.product(FLOAT_STEPS, FLOAT_STEPS):
        chain = f"{LONG} = {first.format('x')}  b = {second.format(LONG)}  y = Identity(b)"
        model = parse(f"g ({dtype}[n] x) => ({dtype}[n] y) {{ {chain} }}", weights)
        outcome = apply(PASS, model)
        if outcome.rewritten:
            merged += 1
            assert_identical(run(outcome.model, feed)[0], run(model, feed)[0])
            assert len(op_types(outcome.model)) == 2, chain
    assert merged > 150


INTEGER_STEPS = ("Clip({0}, zero, six)", "Clip({0}, two)", "Clip({0}, , two)", "Max({0}, two)", "Min(six, {0})", "Max({0}, zero)")  # fmt: skip


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64", "int8", "uint8"])
def test_integers(dtype: str) -> None:
    info = np.iinfo(dtype)
    edges = [info.min, info.min + 1, -1, 0, 1, 2, 3, 5, 6, 7, info.max]
    feed = {"x": np.array([v for v in edges if info.min <= v], dtype)}
    weights = {name: np.array(value, dtype) for name, value in (("zero", 0), ("two", 2), ("six", 6))}
    merged = 0
    for first, second in itertools.product(INTEGER_STEPS, INTEGER_STEPS):
        chain = f"{LONG} = {first.format('x')}  b = {second.format(LONG)}  y = Identity(b)"
        model = parse(f"g ({dtype}[n] x) => ({dtype}[n] y) {{ {chain} }}", weights)
        outcome = apply(PASS, model)
        if outcome.rewritten:
            merged += 1
            expected = feed["x"]
            for step in (first, second):
                expected = _integer_step(step, expected)
            np.testing.assert_array_equal(run(outcome.model, feed)[0], expected)
    assert merged >= (len(INTEGER_STEPS) ** 2 if dtype not in ("int8", "uint8") else 20)


def _integer_step(step: str, x: np.ndarray) -> np.ndarray:
    if step.startswith("Clip"):
        return {"zero, six)": np.clip(x, 0, 6), "two)": np.maximum(x, 2)}.get(
            step.partition("{0}, ")[2], np.minimum(x, 2)
        )
    bound = 2 if "two" in step else 6 if "six" in step else 0
    return np.maximum(x, x.dtype.type(bound)) if step.startswith("Max") else np.minimum(x, x.dtype.type(bound))


REWRITES = {
    "two Relu": ("a = Relu(x)  y = Relu(a)", "y = Relu(x)"),
    "Relu behind a Clip that is within": ("a = Clip(x, one, six)  y = Relu(a)", "y = Clip(x, one, six)"),
    "Clip behind a Relu that is outside": ("a = Relu(x)  y = Clip(a, minus_two, six)", "y = Clip(x, c, six)"),
    "Relu before the same lower bound": ("a = Relu(x)  y = Clip(a, zero, six)", "y = Clip(x, zero, six)"),
    "Relu6": (f"{LONG} = Relu(x)  y = Min({LONG}, six)", "y = Clip(x, c, six)"),
    "Relu6 the other way": (f"{LONG} = Min(six, x)  y = Relu({LONG})", "y = Clip(x, c, six)"),
    "overlapping": ("a = Clip(x, minus_two, six)  y = Clip(a, one, seven)", "y = Clip(x, one, six)"),
    "apart": ("a = Clip(x, minus_two, minus_one)  y = Clip(a, one, seven)", "y = Clip(x, one, one)"),
    "apart the other way": (
        "a = Clip(x, one, seven)  y = Clip(a, minus_two, minus_one)",
        "y = Clip(x, minus_one, minus_one)",
    ),
    "three": ("a = Relu(x)  b = Clip(a, minus_two, seven)  y = Clip(b, zero, six)", "y = Clip(x, zero, six)"),
    "the larger of two": ("a = Max(x, minus_one)  y = Max(a, one)", "y = Max(x, one)"),
    "the smaller of two": ("a = Min(x, minus_one)  y = Min(a, one)", "y = Min(x, minus_one)"),
    "a zero that the second takes away": ("a = Max(x, zero)  y = Clip(a, one, six)", "y = Clip(x, one, six)"),
    "a zero that both leave": ("a = Clip(x, minus_two, zero)  y = Relu(a)", "y = Clip(x, zero, zero)"),
    "a zero below all": ("a = Clip(x, one, six)  y = Max(a, zero)", "y = Clip(x, one, six)"),
    "a zero above all": ("a = Clip(x, minus_two, minus_one)  y = Min(zero, a)", "y = Clip(x, minus_two, minus_one)"),
}


@pytest.mark.parametrize("case", REWRITES)
def test_becomes(case: str) -> None:
    before, after = (f"g (float[2,3] x) => (float[2,3] y) {{ {nodes} }}" for nodes in REWRITES[case])
    assert_rewrites(PASS, before, after, {name: np.float32(value) for name, value in VALUES.items()})


def test_a_clip_without_an_upper_bound_still_clips_infinity() -> None:
    model = parse(
        "g (float[4] x) => (float[4] y) { a = Max(x, one)  y = Clip(a, two) }", one=np.float32(1), two=np.float32(2)
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Clip"]
    assert run(outcome.model, {"x": np.array([INF, 3, -1, 2], np.float32)})[0][0] < INF


def test_two_maxima_leave_infinity() -> None:
    model = parse(
        "g (float[4] x) => (float[4] y) { a = Max(x, one)  y = Min(a, inf) }", one=np.float32(1), inf=np.float32(INF)
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Max"]


def test_before_opset_11_bounds_are_attributes() -> None:
    model = parse("g (float[9] x) => (float[9] y) { a = Relu(x)  y = Clip<min=-1.0, max=6.0>(a) }", opset=9)
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Clip"]
    (clip,) = outcome.model.graph
    assert (clip.attributes.get_float("min"), clip.attributes.get_float("max"), len(clip.inputs)) == (0.0, 6.0, 1)
    implied = parse("g (float[9] x) => (float[9] y) { a = Clip<max=6.0>(x)  y = Relu(a) }", opset=9)
    assert op_types(assert_exact_after(PASS, implied).model) == ["Clip"]


def test_before_opset_8_max_took_equal_shapes() -> None:
    source = "g (float[1] x) => (float[1] y) { a = Max(x, c)  b = Max(a, d)  y = Neg(b) }"
    given = {"c": np.ones(1, np.float32), "d": np.full(1, 2, np.float32)}
    assert_untouched(PASS, parse(source, given, opset=7))
    assert op_types(assert_exact_after(PASS, parse(source, given, opset=8)).model) == ["Max", "Neg"]


def test_bounds_that_both_have_are_not_stored_again() -> None:
    model = parse(
        "g (float[9] x) => (float[9] y, float[9] z) { a = Clip(x, one, nine)  y = Clip(a, zero, six)  z = Clip(x, one, six) }",
        **{name: np.float32(value) for name, value in (("zero", 0), ("one", 1), ("six", 6), ("nine", 9))},
    )
    outcome = assert_exact_after(PASS, model)
    assert set(outcome.model.graph.initializers) == {"one", "six"}


def test_a_bound_that_is_held_with_the_other_sign_of_zero_is_another_one() -> None:
    model = parse(
        "g (float[6] x) => (float[6] y) { a = Clip(x, zero, nine)  y = Clip(a, minus, six) }",
        zero=np.float32(0), minus=np.float32(-0.0), six=np.float32(6), nine=np.float32(9),
    )  # fmt: skip
    (clip,) = assert_exact_after(PASS, model).model.graph
    low = constant(clip.inputs[1])
    assert low is not None and not np.signbit(low)


@pytest.mark.parametrize("length", [1, 2, 4, 6, 8, 10, 12, 16, 24])
@pytest.mark.parametrize("users", [1, 3])
@pytest.mark.parametrize("step", ["Min({0}, six)", "Clip({0}, minus_one, six)", "Clip({0}, , six)"])
def test_the_file_never_gets_larger(step: str, users: int, length: int) -> None:
    names = [f"{'a' * length}{i}" for i in range(users)]
    nodes = "  ".join(f"{name} = Relu(x)  y{i} = {step.format(name)}" for i, name in enumerate(names))
    outputs = ", ".join(f"float[2] y{i}" for i in range(users))
    weights = {name: np.float32(value) for name, value in VALUES.items()}
    outcome = apply(PASS, model := parse(f"g (float[2] x) => ({outputs}) {{ {nodes} }}", weights))
    for value in VALUES:
        for either in (model, outcome.model):
            if not either.graph.initializers[value].uses() if value in either.graph.initializers else False:
                del either.graph.initializers[value]
    assert size_on_disk(outcome.model) <= size_on_disk(model)
    if length >= 12:
        assert op_types(outcome.model) == ["Clip"] * users
    elif length == 1 and step.startswith("Min"):
        assert set(outcome.skipped.values()) == {"the bounds to store are larger than what they replace"}


def test_a_long_name_of_a_bound_that_stays_costs_nothing() -> None:
    bound = 3 * LONG
    model = parse(
        f"g (float[4] x) => (float[4] y, float[4] u) {{ in_between_a = Relu(x)  y = Min(in_between_a, {bound})  u = Mul(x, {bound}) }}",
        {bound: np.float32(6)},
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Clip", "Mul"]


NEIGHBOURS = "what a Clip of float16 makes of infinity without a bound depends on its neighbours"
SHARED = "the output of the Relu before it has other users"
LEFT = {
    "other user": ("float[4] x", "float[4] y, float[4] z", "a = Relu(x)  y = Clip(a, one, six)  z = Neg(a)", "y", SHARED),
    "graph output": ("float[4] x", "float[4] y, float[4] a", "a = Relu(x)  y = Clip(a, one, six)", "y", SHARED),
    "other user, outer enough": ("float[4] x", "float[4] y, float[4] z", "a = Relu(x)  y = Clip(a, zero, six)  z = Neg(a)", "y", SHARED),
    "used in a body": (
        "float[4] x, bool c", "float[4] y, float[4] z",
        """a = Relu(x)  y = Clip(a, one, six)
        z = If (c) <then_branch = t () => (float[4] p) { p = Neg(a) }, else_branch = e () => (float[4] q) { q = Neg(x) }>""",
        "y", SHARED,
    ),
    "computed bound": ("float[4] x, float l", "float[4] y", "a = Relu(x)  y = Clip(a, l, six)", "y", "the bounds of a Clip are not constant"),
    "computed bound before": ("float[4] x, float l", "float[4] y", "a = Clip(x, zero, l)  y = Relu(a)", "y", "the bounds of a Clip are not constant"),
    "reversed bounds": ("float[4] x", "float[4] y", "a = Clip(x, six, one)  y = Relu(a)", "y", "the bounds of a Clip are reversed or NaN"),
    "apart, with a zero": ("float[4] x", "float[4] y", "a = Clip(x, minus_two, minus_one)  y = Clip(a, zero, six)", "y", "all become one zero, and a Clip keeps the sign that a zero has"),
    "apart, with a zero the other way": ("float[4] x", "float[4] y", "a = Max(x, one)  y = Clip(a, minus_two, zero)", "y", "all become one zero, and a Clip keeps the sign that a zero has"),
    "NaN as a bound": ("float[4] x", "float[4] y", "a = Relu(x)  y = Clip(a, nan, one)", "y", "the bounds of a Clip are reversed or NaN"),
    "signs of zero": ("float[4] x", "float[4] y", "a = Max(x, zero)  y = Clip(a, minus_two, six)", "y", "Max or Min with zero decides between 0.0 and -0.0, which Clip does not"),
    "signs of zero behind": ("float[4] x", "float[4] y", "a = Clip(x, minus_two, six)  y = Max(a, zero)", "y", "Max or Min with zero decides between 0.0 and -0.0, which Clip does not"),
    "two signs of zero": ("float[4] x", "float[4] y", "a = Min(x, zero)  y = Min(a, minus_zero)", "y", "Max or Min with zero decides between 0.0 and -0.0, which Clip does not"),
    "bounds that others use": (
        "float[4] x", "float[4] y, float[4] u, float[4] v", "between = Max(x, low)  y = Min(between, high)  u = Mul(x, low)  v = Mul(x, high)",
        "y", "the bounds to store are larger than what they replace",
    ),
    "a large constant that stays": ("", "float[100] y", "a = Relu(table)  y = Min(a, six)", "y", "the bounds to store are larger than what they replace"),
    "constant of higher rank": ("float[4] x", "float[1,4] y", "a = Relu(x)  y = Max(a, ones)", "y", "its constant may enlarge the shape"),
    "half precision without Clip": ("float16[4] x", "float16[4] y", "a = Relu(x)  y = Min(a, half)", "y", "runtimes may have no Clip of FLOAT16 in opset 17"),
    "half precision without an upper bound": ("float16[4] x", "float16[4] y", "a = Relu(x)  y = Clip(a, half)", "y", NEIGHBOURS),
    "half precision without a lower bound": ("float16[4] x", "float16[4] y", "a = Relu(x)  y = Clip(a, , half)", "y", NEIGHBOURS),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_leaves(case: str) -> None:
    inputs, outputs, nodes, site, reason = LEFT[case]
    weights = {name: np.float32(value) for name, value in (*VALUES.items(), ("nan", np.nan))}
    weights |= {"ones": np.ones((1, 1), np.float32), "half": np.float16(6), "table": np.zeros(100, np.float32)}  # type: ignore[dict-item]
    weights |= {"low": np.ones(1, np.float32), "high": np.full(1, 6, np.float32)}  # type: ignore[dict-item]
    model = parse(f"g ({inputs}) => ({outputs}) {{ {nodes} }}", weights)
    assert assert_untouched(PASS, model) == {site: reason}


def test_what_is_no_clipping_is_not_mentioned() -> None:
    model = parse(
        """g (float[4] x, float[4] z) => (float[4] y, float[4] u, float[4] v, float[4] w) {
        a = Relu(x)  y = Max(a, z)  b = Relu(z)  u = Max(b, many)  c = Relu(u)  v = Max(c)  d = Relu(v)  w = Max(d, one, six) }""",
        many=(4,),
        one=np.float32(1),
        six=np.float32(6),
    )
    assert assert_untouched(PASS, model) == {}
    nan = parse("g (float[4] x) => (float[4] y) { a = Relu(x)  y = Max(a, c) }", c=np.float32(np.nan))
    assert assert_untouched(PASS, nan) == {}
    for last in ("custom.Relu(a)", "Add(a, six)", "Div(six, a)", "Max(a, )", "Max(, a)"):
        other = parse(f"g (float[4] x) => (float[4] y) {{ a = Relu(x)  y = {last} }}", six=np.float32(6))
        assert assert_untouched(PASS, other) == {}


def test_integers_have_one_zero() -> None:
    model = parse(
        "g (int32[4] x) => (int32[4] y) { a = Max(x, two)  y = Clip(a, minus_two, zero) }",
        two=np.int32(2), minus_two=np.int32(-2), zero=np.int32(0),
    )  # fmt: skip
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Clip"] and set(outcome.model.graph.initializers) == {"zero"}


def test_bounds_of_a_clip_are_scalars() -> None:
    model = parse(
        f"g (float[4] x) => (float[4] y) {{ {LONG} = Max(x, one)  y = Clip({LONG}, , six) }}",
        one=np.ones(1, np.float32),
        six=np.float32(6),
    )
    (clip,) = assert_exact_after(PASS, model).model.graph
    low = constant(clip.inputs[1])
    assert low is not None and low.shape == () and low == 1


def test_an_unknown_rank_is_clipped_too() -> None:
    model = parse(
        f"g (float[n] x, int64[k] s) => (float y) {{ r = Reshape(x, s)  {LONG} = Relu(r)  b = Min(six, {LONG})  y = Neg(b) }}",
        six=np.float32(6),
    )
    outcome = apply(PASS, model)
    assert op_types(outcome.model) == ["Reshape", "Clip", "Neg"]
    feed = {"x": np.array([-1, 3, 7, np.nan], np.float32), "s": np.array([2, 2])}
    assert_identical(run(outcome.model, feed)[0], run(model, feed)[0])


def test_a_constant_is_clipped_too() -> None:
    model = parse("g () => (float[9] y) { a = Max(table, one)  y = Relu(a) }", table=(9,), one=np.float32(1))
    assert op_types(assert_exact_after(PASS, model).model) == ["Max"]


def test_a_bound_that_callers_may_override_is_not_constant() -> None:
    model = parse("g (float[4] x) => (float[4] y) { a = Relu(x)  y = Clip(a, one) }", one=np.float32(1))
    model.graph.inputs.append(model.graph.initializers["one"])
    assert assert_untouched(PASS, model)["y"] == "the bounds of a Clip are not constant"


def test_a_shared_clip_stays_where_the_second_adds_nothing() -> None:
    model = parse(
        "g (float[4] x) => (float[4] y, float[4] z) { a = Clip(x, one, six)  r = Relu(a)  y = Neg(r)  z = Abs(a) }",
        one=np.float32(1),
        six=np.float32(6),
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Clip", "Neg", "Abs"]


def test_bodies_and_captured_values() -> None:
    model = parse(
        """g (bool c, float[4] x) => (float[4] y, float[4] z) { a = Relu(x)
        y = If (c) <then_branch = t () => (float[4] p) { p = Clip(a, one, six) }, else_branch = e () => (float[4] q) { q = Neg(x) }>
        z = Loop (three, , x) <body = b (int64 i, bool go, float[4] s) => (bool on, float[4] t) {
            r = Relu(s)  t = Clip(r, one, six)  on = Identity(go) }> }""",
        one=np.float32(1), six=np.float32(6), three=np.array(3),
    )  # fmt: skip
    outcome = assert_exact_after(PASS, model)
    assert sorted(op_types(outcome.model)) == ["Clip", "Clip", "Identity", "If", "Loop", "Neg"]


def test_conforms_where_values_have_other_users() -> None:
    weights = {name: np.float32(value) for name, value in VALUES.items()}
    models = {
        name: parse(f"g (float[2,9] x) => (float[2,9] y) {{ {before} }}", weights)
        for name, (before, _) in REWRITES.items()
    }
    assert_conforms(PASS, models, must_fire=True)


@pytest.mark.parametrize("dtype", ["BFLOAT16", "INT4", "UINT4", "BOOL", "STRING", "COMPLEX64"])
def test_types_that_are_no_numbers_of_its_kind_stay(dtype: str) -> None:
    model = parse("g (bfloat16[4] x) => (bfloat16[4] y) { a = Relu(x)  y = Relu(a) }", raw=True)
    for value in (*model.graph.inputs, *(o for n in model.graph for o in n.outputs)):
        value.type, value.shape = ir.TensorType(ir.DataType[dtype]), ir.Shape([4])
    assert assert_untouched(PASS, model) == {}


def test_a_type_that_is_not_known_stays() -> None:
    model = parse("g (float[4] x) => (float y) { a = custom.Op(x)  b = Relu(a)  c = Relu(b)  y = custom.Op(c) }")
    assert assert_untouched(PASS, model) == {}
