"""Reshape, Transpose, Reshape is one Transpose only if the second Reshape undoes the first."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import apply, assert_equal_after, op_types, parse

from irc.ir import refresh_shapes
from irc.passes.simplification.merge_reshaped_transposes import MergeReshapedTransposes

PASS = MergeReshapedTransposes()


def known(text: str, **weights: object) -> ir.Model:
    model = parse(text, **{name: np.array(value, np.int64) for name, value in weights.items()})
    refresh_shapes(model)
    return model


def perms(model: ir.Model) -> list[list[int]]:
    return [list(n.attributes.get_ints("perm")) for n in model.graph.all_nodes() if n.op_type == "Transpose"]


@pytest.mark.parametrize(
    ("shape", "join", "perm", "split", "expected"),
    [
        ("n,3,4,5", [-1, 4, 5], [0, 2, 1], [-1, 3, 5, 4], [0, 1, 3, 2]),
        ("2,3,4,5", [6, 4, 5], [0, 2, 1], [2, 3, 5, 4], [0, 1, 3, 2]),
        ("2,3,4,5", [2, 12, 5], [2, 1, 0], [5, 3, 4, 2], [3, 1, 2, 0]),
        ("2,3,4,5", [2, 3, 20], [1, 0, 2], [3, 2, 4, 5], [1, 0, 2, 3]),
        ("2,3,4,5", [24, 5], [1, 0], [5, 2, 3, 4], [3, 0, 1, 2]),
        ("n,3,4,5", [0, 3, -1], [0, 2, 1], [0, 4, 5, 3], [0, 2, 3, 1]),
    ],
)
def test_one_transpose_of_the_input(
    shape: str, join: list[int], perm: list[int], split: list[int], expected: list[int]
) -> None:
    text = f"g (float[{shape}] x) => (float[a,b,c,d] y) {{ j = Reshape(x, s)  t = Transpose<perm={perm}>(j)  r = Reshape(t, u)  y = Neg(r) }}"
    outcome = assert_equal_after(PASS, known(text, s=join, u=split), symbols=(1, 2))
    assert op_types(outcome.model) == ["Transpose", "Neg"] and perms(outcome.model) == [expected]
    assert not outcome.model.graph.initializers
    assert apply(PASS, outcome.model).rewritten == []


def test_a_permutation_that_is_not_given_reverses() -> None:
    text = "g (float[2,3,4] x) => (float[4,2,3] y) { j = Reshape(x, s)  t = Transpose(j)  y = Reshape(t, u) }"
    outcome = assert_equal_after(PASS, known(text, s=[6, 4], u=[4, 2, 3]))
    assert perms(outcome.model) == [[2, 0, 1]]


def test_a_dimension_of_one_that_comes_and_goes() -> None:
    text = "g (float[n,4] x) => (float[4,m] y) { j = Reshape(x, s)  t = Transpose(j)  y = Reshape(t, u) }"
    outcome = assert_equal_after(PASS, known(text, s=[-1, 1, 4], u=[4, -1]), symbols=(1, 3))
    assert op_types(outcome.model) == ["Transpose"] and perms(outcome.model) == [[1, 0]]


def test_nothing_is_left_where_nothing_moves() -> None:
    text = "g (float[2,3,4] x) => (float[2,3,4] y) { a = Neg(x)  j = Reshape(a, s)  t = Transpose<perm=[0,1]>(j)  r = Reshape(t, u)  y = Abs(r) }"
    outcome = assert_equal_after(PASS, known(text, s=[6, 4], u=[2, 3, 4]))
    assert op_types(outcome.model) == ["Neg", "Abs"]


def test_computed_shapes_with_symbols() -> None:
    """As the exporter of PyTorch writes the transposed keys of attention."""
    text = """g (float[n,h,s,16] x) => (float[a,b,c,d] y) { w = Shape(x)  e = Slice(w, two, three)  f = Slice(w, zero, two)
        j0 = Concat<axis=0>(minus, e, k)  j = Reshape(x, j0)  t = Transpose<perm=[0,2,1]>(j)
        u = Concat<axis=0>(f, k, e)  y = Reshape(t, u) }"""
    model = known(text, zero=[0], two=[2], three=[3], minus=[-1], k=[16])
    outcome = assert_equal_after(PASS, model, symbols=(2, 3, 5, 1))
    assert op_types(outcome.model) == ["Transpose"] and perms(outcome.model) == [[0, 1, 3, 2]]


@pytest.mark.parametrize(
    ("shape", "join", "perm", "split"),
    [
        ("2,3,4,5", [6, 4, 5], [0, 2, 1], [3, 2, 5, 4]),  # split otherwise than joined
        ("2,3,4,5", [6, 4, 5], [0, 2, 1], [2, 3, 4, 5]),  # the elements are not where the dimensions say
        ("2,3,4,5", [6, 20], [1, 0], [4, 5, 2, 3]),  # two are joined
        ("2,6,4,5", [4, 3, 4, 5], [0, 1, 3, 2], [2, 6, 5, 4]),  # not joined but regrouped
        ("n,3,4,5", [-1, 4, 5], [0, 2, 1], [-1, 6, 5, 2]),  # -1 is not all that differs
        ("n,3,4,5", [6, 4, 5], [0, 2, 1], [2, 3, 5, 4]),  # nothing else says that n is 2
        ("n,3,4,5", [6, 4, 5], [0, 2, 1], [-1, 3, 5, 4]),
        ("2,3,4,5", [6, 4, 5], [0, 2, 1], [30, 4, 1, 1]),
    ],
)
def test_what_moves_elements_otherwise_stays(shape: str, join: list[int], perm: list[int], split: list[int]) -> None:
    text = f"g (float[{shape}] x) => (float[a,b,c,d] y) {{ j = Reshape(x, s)  t = Transpose<perm={perm}>(j)  y = Reshape(t, u) }}"
    assert apply(PASS, known(text, s=join, u=split)).rewritten == []


def test_a_dimension_that_only_looks_right_does_not_count() -> None:
    """m may differ from n: only a -1 follows from the other dimensions."""
    text = """g (float[n,3,4] x, float[m] z) => (float[a,b,c] y) { w = Shape(z)  j = Reshape(x, s)  t = Transpose<perm=[1,0]>(j)
        u = Concat<axis=0>(k, w, three)  y = Reshape(t, u) }"""
    assert apply(PASS, known(text, s=[-1, 4], k=[4], three=[3])).rewritten == []


@pytest.mark.parametrize("other", ["z = Neg(j)", "z = Neg(t)"])
def test_values_in_between_that_others_use_are_not_lost(other: str) -> None:
    text = f"g (float[2,3,4] x) => (float[4,2,3] y, float[a,b] z) {{ j = Reshape(x, s)  t = Transpose(j)  y = Reshape(t, u)  {other} }}"
    outcome = apply(PASS, known(text, s=[6, 4], u=[4, 2, 3]))
    assert outcome.rewritten == [] and outcome.skipped == {"y": "what it is computed from has other users"}


def test_values_in_between_that_are_outputs_stay() -> None:
    text = "g (float[2,3,4] x) => (float[4,2,3] y, float[4,6] t) { j = Reshape(x, s)  t = Transpose(j)  y = Reshape(t, u) }"
    assert apply(PASS, known(text, s=[6, 4], u=[4, 2, 3])).rewritten == []


def test_in_a_body() -> None:
    text = """g (bool c, float[2,3,4] x) => (float[4,2,3] y) { y = If (c) <
        then_branch = p () => (float[4,2,3] o) { j = Reshape(x, s)  t = Transpose(j)  o = Reshape(t, u) },
        else_branch = q () => (float[4,2,3] v) { v = Transpose<perm=[2,0,1]>(x) }> }"""
    outcome = assert_equal_after(PASS, known(text, s=[6, 4], u=[4, 2, 3]))
    assert perms(outcome.model) == [[2, 0, 1], [2, 0, 1]] and op_types(outcome.model).count("Reshape") == 0
