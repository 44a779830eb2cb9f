"""fold-constants: no model grows by it."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import (
    apply,
    assert_equal_after,
    assert_untouched,
    numbers,
    op_types,
    parse,
)

from irc.ir import size_on_disk, weight_bytes
from irc.passes.simplification import FoldConstants, constant_program, constant_regions

PASS = FoldConstants()
TOO_LARGE = "its value is larger than what it is computed from"


def test_a_matrix_of_zeros_does_not_replace_its_dimensions() -> None:
    model = parse(
        """g (float[1,64,8,8] x) => (float[1,64,8,8] y) {
        d = Concat<axis=0>(c, c, one, one)  z = ConstantOfShape(d)  w = Add(z, half)  y = Conv(x, w) }""",
        c=np.array([64]),
        one=np.array([1]),
        half=np.array([0.5], np.float32),
    )
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    assert op_types(outcome.model) == ["ConstantOfShape", "Add", "Conv"], "only its dimensions are folded"
    assert outcome.rewritten == ["d"] and outcome.skipped == {"w": TOO_LARGE}
    assert weight_bytes(outcome.model) < 100
    generous = apply(FoldConstants(max_bytes=64 * 64 * 4), model)
    assert op_types(generous.model) == ["Conv"]


def test_a_matrix_of_zeros_that_shrinks_again_is_folded() -> None:
    model = parse(
        "g (float[1] x) => (float[1] y) { z = ConstantOfShape(d)  s = ReduceSum<keepdims=0>(z)  y = Add(x, s) }",
        d=np.array([100, 100]),
    )
    assert op_types(assert_equal_after(PASS, model).model) == ["Add"]


def test_an_enormous_value_is_never_made() -> None:
    model = parse(
        "g (float[1] x) => (float[1] y) { z = ConstantOfShape(d)  s = ReduceSum<keepdims=0>(z)  y = Add(x, s) }",
        d=np.array([1 << 20, 1 << 20]),
    )
    outcome = apply(FoldConstants(max_bytes=1 << 62), model)
    assert outcome.rewritten == [] and outcome.skipped == {"z": TOO_LARGE}


def test_what_makes_little_of_much_is_not_called_enormous(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (constant_program, constant_regions):
        monkeypatch.setattr(module, "MAX_GENERATED_BYTES", 4)
    text = "g (float[m,40] x) => (float[m,40] y) { e = Expand(w, s)  n = Neg(e)  y = Add(x, n) }"
    assert op_types(assert_equal_after(PASS, parse(text, w=(40,), s=np.array([1]))).model) == ["Add"]
    unknown = parse("g (float[m,40] x) => (float[k] y) { s = Shape<start=1>(x)  y = Expand(x, s) }")
    assert assert_untouched(PASS, unknown) == {"s": TOO_LARGE}


def test_the_transposed_copy_of_a_shared_weight_is_not_stored() -> None:
    model = parse(
        "g (int64[n] i) => (float[n,64] y) { e = Gather(w, i)  t = Transpose<perm=[1,0]>(w)  y = MatMul(e, t) }",
        w=(64, 32),
    )
    assert assert_untouched(PASS, model) == {"t": TOO_LARGE}
    alone = parse("g (float[n,32] x) => (float[n,64] y) { t = Transpose<perm=[1,0]>(w)  y = MatMul(x, t) }", w=(64, 32))
    assert op_types(assert_equal_after(PASS, alone, rtol=1e-6).model) == ["MatMul"]


def test_parts_of_a_weight_replace_it_together() -> None:
    model = parse(
        """g (float[n,32] x) => (float[n,32] y, float[n,32] z) {
        a = Slice(w, zero, rows, zero)  b = Slice(w, rows, end, zero)
        p = Transpose<perm=[1,0]>(a)  q = Transpose<perm=[1,0]>(b)  y = MatMul(x, p)  z = MatMul(x, q) }""",
        w=(64, 32),
        zero=np.array([0]),
        rows=np.array([32]),
        end=np.array([64]),
    )
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    assert op_types(outcome.model) == ["MatMul", "MatMul"] and outcome.rewritten == ["p", "q"]
    assert weight_bytes(outcome.model) == 64 * 32 * 4


def test_half_precision_storage_stays() -> None:
    model = parse(
        "g (float[n,64] x) => (float[n,64] y) { f = Cast<to=1>(w)  y = MatMul(x, f) }",
        w=numbers("w", (64, 64)).astype(np.float16),
    )
    assert assert_untouched(PASS, model) == {"f": TOO_LARGE}


HALVES = numbers("w", (8, 8)).astype(np.float16)
SIZES = {
    "few bytes for fewer": ("float[n,8] x) => (float[8,8] y", "c = Cast<to=1>(w)  y = Add(x, c)", {"w": HALVES}, False),
    "few bytes for a long name": ("float[n,8] x) => (float[8,8] y", f"c = Cast<to=1>({'w' * 51})  y = Add(x, c)", {"w" * 51: HALVES}, True),
    "long integers, too many for dimensions": ("int64[n] x) => (int64[125] y", "c = Cast<to=7>(w)  y = Add(x, c)", {"w": (125,)}, False),
    "a copy smaller than its node": ("float[n,4] x) => (float[2,4] u, float[4,2] y", "u = Add(x, w)  c = Transpose(w)  v = ReduceSum<keepdims=0>(x)  y = Add(c, v)", {"w": (2, 4)}, True),
    "a copy of many dimensions": ("float[n,4] x) => (float[1,1,1,1,1,1,2,4] u, float[4,2,1,1,1,1,1,1] y", "u = Add(x, w)  c = Transpose(w)  v = ReduceSum<keepdims=0>(x)  y = Add(c, v)", {"w": (1, 1, 1, 1, 1, 1, 2, 4)}, False),
}  # fmt: skip


@pytest.mark.parametrize("case", SIZES)
def test_the_bytes_that_a_file_grows_by_decide(case: str) -> None:
    signature, nodes, weights, folds = SIZES[case]
    model = parse(f"g ({signature}) {{ {nodes} }}", weights)
    if folds:
        assert assert_equal_after(PASS, model, symbols=(1,)).rewritten == ["c"]
    else:
        assert assert_untouched(PASS, model) == {"c": TOO_LARGE}


def test_a_neighbour_that_saves_does_not_pay_for_one_that_shares_a_small_constant() -> None:
    model = parse(
        """g (float[60] x, float z) => (float[60] y, float u) { m = Mul(w, k)  s = ReduceSum<keepdims=0>(m)  u = Add(z, s)
        e = Expand(k, many)  y = Add(x, e) }""",
        w=(100,),
        k=np.array([2.0], np.float32),
        many=np.array([60]),
    )
    outcome = assert_equal_after(FoldConstants(max_bytes=100), model, rtol=1e-6)
    assert outcome.rewritten == ["s"] and outcome.skipped == {"e": TOO_LARGE}
    assert apply(PASS, model).rewritten == ["s", "e"], "without an allowance they count together"


def test_a_constant_that_is_an_output_is_not_freed() -> None:
    elements = ",".join(f"{i}.5" for i in range(40))
    nodes = f"k = Constant<value_floats=[{elements}]>()  n = Neg(k)  y = Add(x, n)"
    model = parse(f"g (float[1] x) => (float[40] y, float[40] k) {{ {nodes} }}")
    assert assert_untouched(PASS, model) == {"n": TOO_LARGE}


def test_a_constant_graph_output_keeps_its_name() -> None:
    model = parse("g (float[2] x) => (float[2] y, float[2] k) { k = Add(w, w)  m = Neg(k)  y = Add(x, m) }", w=(2,))
    outcome = assert_equal_after(FoldConstants(max_bytes=64), model)
    assert sorted(op_types(outcome.model)) == ["Add", "Constant"]
    assert set(outcome.model.graph.initializers) == {"m"}


def test_a_large_constant_graph_output_is_an_initializer_behind_an_identity() -> None:
    model = parse("g (float[1] x) => (float[1] y, float[400] k) { k = Add(w, w)  y = Neg(x) }", w=(400,))
    outcome = assert_equal_after(FoldConstants(max_bytes=64), model)
    assert sorted(op_types(outcome.model)) == ["Identity", "Neg"]
    assert set(outcome.model.graph.initializers) == {"k.value"}


@pytest.mark.parametrize("body", ["k = Shape(x)", "a = Neg(w)  k = Add(a, w)  y = Mul(x, a)"])
def test_small_results_do_not_make_a_model_larger_either(body: str) -> None:
    outputs = "int64[2] k" if "Shape" in body else "float[4,8] y, float[4,8] k"
    model = parse(f"g (float[4,8] x) => ({outputs}) {{ {body} }}", w=(4, 8))
    before = size_on_disk(model)
    outcome = assert_equal_after(PASS, model)
    assert size_on_disk(outcome.model) <= before


def test_one_value_that_is_too_large_does_not_keep_its_neighbours() -> None:
    model = parse(
        """g (float[n,32] x) => (float[n,32] y, float[n,32] z, float[300,64,32] u) {
        a, b = Split<axis=0>(w)  p = Transpose<perm=[1,0]>(a)  q = Transpose<perm=[1,0]>(b)
        y = MatMul(x, p)  z = MatMul(x, q)  e = Expand(w, many)  s = ReduceSum<keepdims=0>(x)  u = Add(e, s) }""",
        w=(64, 32),
        many=np.array([300, 64, 32]),
    )
    outcome = apply(PASS, model)
    assert outcome.skipped["e"] == TOO_LARGE, "w is still needed, so nothing else is stored twice either"
    assert "Expand" in op_types(outcome.model) and weight_bytes(outcome.model) < 64 * 32 * 4 + 100


def test_nothing_is_computed_from_what_is_too_large_on_the_chance_that_it_is_small() -> None:
    model = parse(
        "g (int64[m] x) => (int64[k] y) { z = ConstantOfShape(many)  n = NonZero(z)  y = Add(x, n) }",
        many=np.array([100, 100]),
    )
    assert assert_untouched(PASS, model) == {"z": TOO_LARGE}
