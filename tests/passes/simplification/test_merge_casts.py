"""merge-casts: one conversion for two, where no value can tell."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from exactness_kit import SPECIAL, assert_exact_after, assert_identical
from pass_kit import apply, assert_untouched, op_types, parse, run

from irc.passes.simplification import MergeCasts
from irc.passes.simplification.merge_casts import keeps_every_value

PASS = MergeCasts()
TYPES = (
    "BOOL",
    "UINT8",
    "INT8",
    "UINT16",
    "INT16",
    "INT32",
    "UINT32",
    "INT64",
    "UINT64",
    "FLOAT16",
    "BFLOAT16",
    "FLOAT",
    "DOUBLE",
)


def _model(first: str, between: str, last: str) -> ir.Model:
    """The chain; numpy knows no bfloat16, which is therefore made from float and read as float."""
    b, c = (ir.DataType[name] for name in (between, last))
    fed, read = ("FLOAT" if name == "BFLOAT16" else name for name in (first, last))
    start = "w = Cast<to=16>(x)  v = Identity(w)" if first == "BFLOAT16" else "v = Identity(x)"
    end = "z = Identity(u)  y = Cast<to=1>(z)" if last == "BFLOAT16" else "y = Identity(u)"
    chain = f"t = Cast<to={b.value}>(v)  u = Cast<to={c.value}>(t)"
    return parse(f"g ({fed.lower()}[n] x) => ({read.lower()}[n] y) {{ {start}  {chain}  {end} }}")


def _numbers(name: str) -> np.ndarray:
    """Extremes, neighbours of powers of two and random bits of a type."""
    dtype = ir.DataType[name].numpy()
    if name == "BOOL":
        return np.array([True, False])
    generator = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        near = [sign * 2**i + d for i in range(64) for d in (-1, 0, 1) for sign in (1, -1)]
        return np.array(
            [v for v in near if info.min <= v <= info.max]
            + generator.integers(info.min, info.max, 500, dtype).tolist(),
            dtype,
        )
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[dtype.itemsize]
    with np.errstate(all="ignore"):
        anything = generator.integers(0, np.iinfo(bits).max, 2000, bits).view(dtype)
        return np.concatenate(
            [np.array(SPECIAL).astype(dtype), anything, np.array(generator.normal(size=500)).astype(dtype)]
        )


@pytest.mark.parametrize("first", TYPES)
def test_every_chain_it_merges_is_one_for_all_values(first: str) -> None:
    merged = 0
    for between, last in itertools.product(TYPES, TYPES):
        if between in (first, last):
            continue
        model = _model(first, between, last)
        outcome = apply(PASS, model)
        if not outcome.rewritten:
            continue
        merged += 1
        feed = {"x": _numbers("FLOAT" if first == "BFLOAT16" else first)}
        assert_identical(run(outcome.model, feed)[0], run(model, feed)[0])
    assert merged > 0 or first in ("INT64", "UINT64", "DOUBLE")


@pytest.mark.parametrize("source", TYPES)
def test_what_is_said_to_keep_every_value_does(source: str) -> None:
    if source == "BFLOAT16":
        pytest.skip("numpy has none")
    values = _numbers(source)
    for target in TYPES:
        kept = keeps_every_value(ir.DataType[source], ir.DataType[target])
        with np.errstate(all="ignore"):
            back = values.astype(ir.DataType[target].numpy()).astype(values.dtype)
            wide = values.astype(ir.DataType[target].numpy()).astype(np.float64) if target != "BOOL" else None
        if kept:
            assert_identical(back, values)
        elif source != "BOOL" and target != "BOOL":
            with np.errstate(all="ignore"):
                assert not np.array_equal(back, values, equal_nan=values.dtype.kind == "f") or not np.array_equal(
                    wide, values.astype(np.float64)
                )


CASES = {
    ("FLOAT16", "FLOAT", "FLOAT16"): 0,
    ("BOOL", "INT64", "BOOL"): 0,
    ("INT32", "DOUBLE", "INT32"): 0,
    ("FLOAT16", "FLOAT", "DOUBLE"): 1,
    ("FLOAT", "DOUBLE", "FLOAT16"): 1,
    ("INT8", "INT64", "INT32"): 1,
    ("INT32", "INT64", "UINT8"): 1,
    ("INT32", "INT64", "FLOAT"): 1,
    ("FLOAT16", "FLOAT", "BOOL"): 1,
    ("BOOL", "INT64", "FLOAT"): 1,
    ("FLOAT", "FLOAT16", "FLOAT"): 2,
    ("FLOAT", "INT64", "FLOAT"): 2,
    ("INT64", "FLOAT", "INT64"): 2,
    ("INT64", "DOUBLE", "INT64"): 2,
    ("INT32", "FLOAT", "INT32"): 2,
    ("UINT8", "FLOAT", "INT8"): 2,
    ("FLOAT", "DOUBLE", "INT32"): 2,
    ("INT8", "UINT8", "INT32"): 2,
    ("FLOAT16", "BFLOAT16", "FLOAT"): 2,
    ("INT32", "INT64", "FLOAT16"): 2,
}


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_how_many_are_left(case: tuple[str, str, str]) -> None:
    outcome = apply(PASS, _model(*case))
    left = [op for op in op_types(outcome.model) if op == "Cast"]
    assert len(left) == CASES[case]
    if CASES[case] == 2:
        assert outcome.skipped["u"]


def test_a_chain_of_three() -> None:
    model = parse(
        "g (float16[n] x) => (float16[n] y) { a = Cast<to=1>(x)  b = Cast<to=11>(a)  c = Cast<to=10>(b)  y = Neg(c) }"
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["Neg"]


def test_what_is_between_may_be_used_by_others_only_if_it_comes_back() -> None:
    back = parse("g (float16[n] x) => (float16[n] y, float[n] z) { z = Cast<to=1>(x)  c = Cast<to=10>(z)  y = Neg(c) }")
    assert op_types(assert_exact_after(PASS, back).model) == ["Cast", "Neg"]
    on = parse("g (float16[n] x) => (double[n] y, float[n] z) { z = Cast<to=1>(x)  y = Cast<to=11>(z) }")
    assert "other users" in assert_untouched(PASS, on)["y"]


def test_types_that_are_not_numbers_stay() -> None:
    model = parse("g (bool[n] x) => (string[n] y) { a = Cast<to=6>(x)  y = Cast<to=8>(a) }")
    assert "STRING" in assert_untouched(PASS, model)["y"]


def test_bodies() -> None:
    model = parse(
        """g (bool c, float16[n] x) => (float16[n] y) { a = Cast<to=1>(x)  y = If (c) <
        then_branch = t () => (float16[n] p) { p = Cast<to=10>(a) }, else_branch = e () => (float16[n] q) { q = Neg(x) }> }"""
    )
    assert op_types(assert_exact_after(PASS, model).model) == ["If", "Identity", "Neg"]
