"""eliminate-no-op-arithmetic: bit by bit the same, signs of zeros, NaN and shapes included."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from exactness_kit import assert_exact_after, constants, initializer_names
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification import EliminateNoOpArithmetic

PASS = EliminateNoOpArithmetic()
FLOATS = {"float": np.float32, "double": np.float64, "float16": np.float16}
INTS = {"int32": np.int32, "int64": np.int64}
NEUTRAL = {"Add(x, c)": -0.0, "Add(c, x)": -0.0, "Sub(x, c)": 0, "Mul(x, c)": 1, "Mul(c, x)": 1, "Div(x, c)": 1, "Pow(x, c)": 1}  # fmt: skip


def _between(operator: str, type_: str, weights: dict | None = None, *, opset: int = 17):
    """The operator between two others, so that only provability decides."""
    dtype = type_.partition("[")[0]
    source = f"g ({type_} x0) => ({dtype} y) {{ x = Identity(x0)  z = {operator}  y = Identity(z) }}"
    return parse(source, constants(**(weights or {})), opset=opset)


def _gone(model) -> None:
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Identity", "Identity"] and outcome.rewritten == ["z"]
    assert initializer_names(outcome.model) == [], "what only the no-op used stays"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("operator", NEUTRAL)
def test_neutral_floats(operator: str, dtype: str) -> None:
    for shape in ((), (1,), (1, 1), (4,), (3, 4)):
        _gone(_between(operator, f"{dtype}[3,4]", {"c": np.full(shape, NEUTRAL[operator], FLOATS[dtype])}))
    _gone(_between(operator, f"{dtype}[n,m]", {"c": np.full((1, 1), NEUTRAL[operator], FLOATS[dtype])}))


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("operator", NEUTRAL)
def test_neutral_integers(operator: str, dtype: str) -> None:
    model = _between(operator, f"{dtype}[n,4]", {"c": np.full((4,), NEUTRAL[operator], INTS[dtype])})
    if operator.startswith("Pow") and dtype == "int64":
        assert "64-bit" in assert_untouched(PASS, model)["z"]
    else:
        _gone(model)


def test_a_scalar_is_neutral_for_any_rank() -> None:
    model = parse(
        "g (float[n] x, int64[k] s) => (float y) { r = Reshape(x, s)  z = Mul(r, c)  y = Neg(z) }", c=np.float32(1)
    )
    assert op_types(
        assert_exact_after(PASS, model, feeds=({"x": np.ones(6, np.float32), "s": np.array([2, 3])},)).model
    ) == ["Reshape", "Neg"]
    for c in (np.ones(1, np.float32), np.ones((1, 1, 1), np.float32)):
        model = parse("g (float[n] x, int64[k] s) => (float y) { r = Reshape(x, s)  z = Mul(r, c)  y = Neg(z) }", c=c)
        assert "enlarge" in assert_untouched(PASS, model)["z"]


BOOLS = {"And(x, c)": True, "And(c, x)": True, "Or(x, c)": False, "Or(c, x)": False, "Xor(x, c)": False}


@pytest.mark.parametrize("operator", BOOLS)
def test_neutral_truth_values(operator: str) -> None:
    _gone(_between(operator, "bool[n,2]", {"c": np.array([BOOLS[operator]] * 2)}))
    assert assert_untouched(PASS, _between(operator, "bool[n,2]", {"c": np.array([True, False])})) == {}


def test_truth_values_that_decide() -> None:
    for operator, decides in (("And(x, c)", False), ("Or(c, x)", True)):
        model = _between(operator, "bool[1,2]", {"c": np.array([[decides, decides]] * 3)})
        outcome = assert_exact_after(PASS, model)
        assert op_types(outcome.model) == ["Identity"] and initializer_names(outcome.model) == ["c"]
        for type_ in ("bool[n,2]", "bool[1,1,2]"):
            assert assert_untouched(PASS, _between(operator, type_, {"c": np.array([[decides, decides]] * 3)})) == {}
        some = np.array([decides, not decides])
        assert assert_untouched(PASS, _between(operator, "bool[2]", {"c": some})) == {}


SAME = {
    "cast": ("Cast<to=1>(x)", "float[n]"),
    "cast of truth values": ("Cast<to=9>(x)", "bool[n]"),
    "cast like": ("CastLike(x, x)", "float16[n]"),
    "max of one": ("Max(x)", "float[n]"),
    "min of one": ("Min(x)", "double[n]"),
    "sum of one": ("Sum(x)", "float[n]"),
    "mean of one": ("Mean(x)", "float[n]"),
    "max of the same": ("Max(x, x, x)", "float[n]"),
    "min of the same": ("Min(x, x)", "int64[n]"),
    "and of the same": ("And(x, x)", "bool[n]"),
    "or of the same": ("Or(x, x)", "bool[n]"),
}


@pytest.mark.parametrize("case", SAME)
def test_returns_its_input_whatever_it_is(case: str) -> None:
    _gone(_between(*SAME[case]))


OTHERS = {
    "add of one": ("Add(x, c)", "float[n]", {"c": np.float32(1)}),
    "some ones": ("Mul(x, c)", "float[2]", {"c": np.array([1, 2], np.float32)}),
    "nearly one": ("Mul(x, c)", "float[n]", {"c": np.nextafter(np.float32(1), np.float32(2))}),
    "zero times": ("Mul(x, c)", "float[n]", {"c": np.float32(0)}),
    "from zero": ("Sub(c, x)", "float[n]", {"c": np.float32(0)}),
    "one by x": ("Div(c, x)", "float[n]", {"c": np.float32(1)}),
    "one to the x": ("Pow(c, x)", "float[n]", {"c": np.float32(1)}),
    "cast": ("Cast<to=10>(x)", "float[n]", {}),
    "cast to a type of the same size": ("Cast<to=12>(x)", "int32[n]", {}),
    "sum of the same": ("Sum(x, x)", "float[n]", {}),
    "xor of the same": ("Xor(x, x)", "bool[n]", {}),
    "other domain": ("custom.Mul(x, c)", "float[n]", {"c": np.float32(1)}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_leaves(case: str) -> None:
    assert assert_untouched(PASS, _between(*OTHERS[case])) == {}


BROADCASTS = {
    "a larger rank": ("float[n]", (1, 1)),
    "what may be of size 1": ("float[n]", (3,)),
    "what is of size 1": ("float[1]", (3,)),
    "what has no name": ("float[?]", (3,)),
}


@pytest.mark.parametrize("case", BROADCASTS)
def test_a_constant_that_may_enlarge_the_shape_stays(case: str) -> None:
    type_, shape = BROADCASTS[case]
    for operator, neutral in NEUTRAL.items():
        skipped = assert_untouched(PASS, _between(operator, type_, {"c": np.full(shape, neutral, np.float32)}))
        assert "enlarge" in skipped["z"]


# --- the sign of zero


@pytest.mark.parametrize("dtype", FLOATS)
def test_adding_zero_is_no_no_op_for_minus_zero(dtype: str) -> None:
    for operator, zero in (("Add(x, c)", 0.0), ("Add(c, x)", 0.0), ("Sub(x, c)", -0.0)):
        reason = f"{'adding 0.0' if operator.startswith('Add') else 'subtracting -0.0'} turns -0.0 into 0.0"
        for size, c in (("n", FLOATS[dtype](zero)), ("2", np.array([zero, -zero], FLOATS[dtype]))):
            model = _between(operator, f"{dtype}[{size}]", {"c": c})
            assert assert_untouched(PASS, model) == {"z": reason}


NEVER_MINUS_ZERO = {
    "Abs(x)": "float",
    "Exp(x)": "float",
    "Cast<to=1>(x)": "int32",
    "Cast <to=1>(x)": "bool",
    "Add(x, one)": "float",
    "Add(zero, x)": "float",
    "Sub(x, minus_zero)": "float",
    "Sub(x, one)": "float",
}
MAYBE_MINUS_ZERO = {
    "Relu(x)": "float",
    "Neg(x)": "float",
    "Cast<to=1>(x)": "float16",
    "Add(x, minus_zero)": "float",
    "Sub(x, zero)": "float",
    "Sub(minus_zero, x)": "float",
    "Mul(x, one)": "float",
    "Add(x, x)": "float",
    "Add(x, some_minus_zeros)": "float",
    "Sub(x, some_zeros)": "float",
    "custom.Abs(x)": "float",
}
CONSTANTS = {
    "zero": np.float32(0),
    "minus_zero": np.float32(-0.0),
    "one": np.float32(1),
    "some_zeros": np.array([0, 1], np.float32),
    "some_minus_zeros": np.array([-0.0, 1], np.float32),
}


def _adding_zero_to(operator: str, type_: str):
    used = {name: array for name, array in CONSTANTS.items() if f" {name}" in operator or f"({name}" in operator}
    return parse(
        f"g ({type_}[n] x) => (float[n] y) {{ z = {operator}  a = Add(z, positive)  y = Identity(a) }}",
        used,
        positive=np.float32(0),
    )


@pytest.mark.parametrize("operator", NEVER_MINUS_ZERO)
def test_adding_zero_to_what_is_never_minus_zero(operator: str) -> None:
    outcome = assert_exact_after(PASS, _adding_zero_to(operator, NEVER_MINUS_ZERO[operator]))
    assert "a" in outcome.rewritten and len(op_types(outcome.model)) == 2


@pytest.mark.parametrize("operator", MAYBE_MINUS_ZERO)
def test_adding_zero_to_what_may_be_minus_zero(operator: str) -> None:
    model = _adding_zero_to(operator, MAYBE_MINUS_ZERO[operator])
    if "custom" in operator or operator in ("Sub(x, zero)", "Mul(x, one)", "Add(x, minus_zero)"):
        outcome = apply(PASS, model)
        assert "a" not in outcome.rewritten and "-0.0" in outcome.skipped["a"]
    else:
        assert "-0.0" in assert_untouched(PASS, model)["a"]


def test_of_two_added_zeros_the_second_goes() -> None:
    model = parse("g (float[n] x) => (float[n] y) { a = Add(x, c)  b = Add(a, c)  y = Neg(b) }", c=np.float32(0))
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Add", "Neg"] and outcome.rewritten == ["b"]


# --- what counts as known


def test_a_constant_that_callers_may_override_stays() -> None:
    model = parse("g (float[n] x, float[1] c) => (float[n] y) { z = Mul(x, c)  y = Neg(z) }", c=np.ones(1, np.float32))
    assert assert_untouched(PASS, model) == {}


def test_operators_that_broadcast_by_attribute_stay() -> None:
    model = _between("Mul<broadcast=1, axis=0>(x, c)", "float[2,3]", {"c": np.ones(2, np.float32)}, opset=6)
    assert "opset 7" in assert_untouched(PASS, model)["z"]


def test_weights_are_not_read() -> None:
    def read() -> None:
        raise AssertionError("the weight was read")

    model = parse("g (float[600,600] x) => (float y) { z = Mul(x, c)  y = Neg(z) }", c=np.ones((600, 600), np.float32))
    model.graph.initializers["c"].const_value = ir.LazyTensor(
        read, dtype=ir.DataType.FLOAT, shape=ir.Shape([600, 600]), name="c"
    )
    assert list(PASS.sites(model, None)) == []


def test_a_shared_constant_stays_for_the_others() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y, float[2] u) { a = Mul(x, c)  y = Neg(a)  u = Add(x, c) }",
        c=np.ones(2, np.float32),
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Neg", "Add"] and initializer_names(outcome.model) == ["c"]


# --- names


def test_outputs_keep_their_names() -> None:
    model = parse(
        "g (float[n] x) => (float[n] a, float[n] b, float[n] y) { a = Mul(x, c)  t = Abs(x)  b = Div(t, c)  y = Sub(t, z) }",
        c=np.float32(1),
        z=np.float32(0),
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Identity", "Abs", "Identity"] and initializer_names(outcome.model) == []


def test_bodies_and_captured_values() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { a = Mul(x, one)  y = Loop (two, , a) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) {
        d = And(c, true)  r = Cast<to=1>(s)  t = Add(r, a) }> }""",
        {"true": np.array(True)},
        one=np.float32(1),
        two=np.array(2),
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Loop", "Identity", "Add"] and initializer_names(outcome.model) == ["two"]
