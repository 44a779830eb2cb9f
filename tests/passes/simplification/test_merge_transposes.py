"""merge-transposes: one permutation for two."""

from __future__ import annotations

import pytest
from exactness_kit import assert_exact_after
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification import MergeTransposes

PASS = MergeTransposes()
SIZES = ({"n": 2, "m": 3, "k": 5, "?": 4}, {"n": 1, "m": 2, "k": 0, "?": 3})


def _perms(model) -> list[list[int]]:
    return [list(n.attributes.get_ints("perm")) for n in model.graph.all_nodes() if n.op_type == "Transpose"]


def test_merges_two_that_do_not_commute() -> None:
    model = parse("g (float[n,m,k] x) => (float y) { a = Transpose<perm=[1,0,2]>(x)  y = Transpose<perm=[0,2,1]>(a) }")
    outcome = assert_exact_after(PASS, model, sizes=SIZES)
    assert _perms(outcome.model) == [[1, 2, 0]] and outcome.rewritten == ["y"]


@pytest.mark.parametrize(
    "perms", [("", "<perm=[1,2,0]>"), ("<perm=[1,2,0]>", ""), ("<perm=[2,0,1]>", "<perm=[2,0,1]>")]
)
def test_merges_reversals_without_perm(perms: tuple[str, str]) -> None:
    first, second = perms
    model = parse(
        f"g (float[n,m,k] x) => (float y) {{ a = Transpose{first}(x)  b = Transpose{second}(a)  y = Neg(b) }}"
    )
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["Transpose", "Neg"]


@pytest.mark.parametrize(
    "perms", [("[1,2,0]", "[2,0,1]"), ("[0,2,1]", "[0,2,1]"), ("[2,1,0]", None), (None, "[2,1,0]"), (None, None)]
)
def test_removes_inverse_pairs(perms: tuple[str | None, str | None]) -> None:
    first, second = (f"<perm={p}>" if p else "" for p in perms)
    model = parse(
        f"g (float[n,m,k] x) => (float y) {{ a = Transpose{first}(x)  b = Transpose{second}(a)  y = Neg(b) }}"
    )
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["Neg"]


def test_two_reversals_of_unknown_rank() -> None:
    model = parse(
        "g (float[n] x, int64[k] s) => (float y) { r = Reshape(x, s)  a = Transpose(r)  b = Transpose(a)  y = Neg(b) }"
    )
    assert op_types(apply(PASS, model).model) == ["Reshape", "Neg"]


def test_a_chain_becomes_one_or_none() -> None:
    text = "g (float[n,m,k] x) => (float y) {{ a = Transpose<perm=[1,2,0]>(x)  b = Transpose<perm=[1,2,0]>(a)  c = Transpose<perm={p}>(b)  y = Neg(c) }}"
    assert op_types(assert_exact_after(PASS, parse(text.format(p="[1,2,0]")), sizes=SIZES).model) == ["Neg"]
    assert _perms(assert_exact_after(PASS, parse(text.format(p="[0,2,1]")), sizes=SIZES).model) == [[2, 1, 0]]


def test_what_is_between_may_be_used_by_others_only_if_the_pair_is_inverse() -> None:
    text = "g (float[n,m] x) => (float y, float z{out}) {{ a = Transpose(x)  b = Transpose<perm={p}>(a)  y = Neg(b)  z = Abs(a) }}"
    outcome = assert_exact_after(PASS, parse(text.format(p="[1,0]", out="")), sizes=SIZES)
    assert op_types(outcome.model) == ["Transpose", "Neg", "Abs"]
    outcome = assert_exact_after(PASS, parse(text.format(p="[1,0]", out=", float a")), sizes=SIZES)
    assert op_types(outcome.model) == ["Transpose", "Neg", "Abs"]
    three = "g (float[n,m,k] x) => (float y, float z{out}) {{ a = Transpose<perm=[1,0,2]>(x)  y = Transpose<perm=[0,2,1]>(a)  z = {z} }}"
    for out, z in (("", "Abs(a)"), (", float a", "Abs(x)")):
        assert "other users" in assert_untouched(PASS, parse(three.format(out=out, z=z)))["y"]


def test_a_use_in_a_body_is_a_use() -> None:
    model = parse(
        """g (bool c, float[n,m,k] x) => (float y, float z) { a = Transpose<perm=[1,0,2]>(x)  y = Transpose<perm=[0,2,1]>(a)  z = If (c) <
        then_branch = t () => (float[m,n,k] p) { p = Neg(a) }, else_branch = e () => (float[m,n,k] q) { q = Abs(a) }> }"""
    )
    assert "other users" in assert_untouched(PASS, model)["y"]


def test_pairs_across_and_within_bodies() -> None:
    model = parse(
        """g (bool c, float[n,m] x) => (float y) { a = Transpose(x)  y = If (c) <
        then_branch = t () => (float[n,m] p) { p = Transpose(a) },
        else_branch = e () => (float[n,m] q) { b = Transpose(x)  d = Transpose(b)  q = Neg(d) }> }"""
    )
    outcome = assert_exact_after(PASS, model, sizes=SIZES)
    assert op_types(outcome.model) == ["If", "Identity", "Neg"]


def test_into_a_body_one_is_left() -> None:
    model = parse(
        """g (bool c, float[n,m,k] x) => (float y) { a = Transpose<perm=[1,0,2]>(x)  y = If (c) <
        then_branch = t () => (float[m,k,n] p) { p = Transpose<perm=[0,2,1]>(a) },
        else_branch = e () => (float[m,k,n] q) { q = Transpose<perm=[1,2,0]>(x) }> }"""
    )
    outcome = assert_exact_after(PASS, model, sizes=SIZES)
    assert op_types(outcome.model) == ["If", "Transpose", "Transpose"] and _perms(outcome.model) == [[1, 2, 0]] * 2


def test_between_input_and_output_an_identity_stays() -> None:
    model = parse("g (float[n,m] x) => (float[n,m] y) { a = Transpose(x)  y = Transpose(a) }")
    assert op_types(assert_exact_after(PASS, model, sizes=SIZES).model) == ["Identity"]


def test_leaves_other_domains() -> None:
    for text in ("a = custom.Transpose(x)  y = Transpose(a)", "a = Transpose(x)  y = custom.Transpose(a)"):
        assert assert_untouched(PASS, parse(f"g (float[n,m] x) => (float y) {{ {text} }}")) == {}
