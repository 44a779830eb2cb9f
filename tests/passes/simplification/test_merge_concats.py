"""merge-concats: one Concat for two along the same axis."""

from __future__ import annotations

import pytest
from exactness_kit import assert_exact_after
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification import merge_concats
from irc.passes.simplification.merge_concats import MAX_INPUTS, MergeConcats
from irc.testing import assert_conforms, assert_rewrites

PASS = MergeConcats()


@pytest.mark.parametrize(("first", "second"), [(1, 1), (-1, 1), (1, -1), (-1, -1), (-2, 0)])
def test_merges_and_keeps_the_order(first: int, second: int) -> None:
    text = "g (float[n,k] x, float[n,k] z, float[n,k] v) => (float y) {{ {nodes}  y = Neg(q) }}"
    two = f"p = Concat<axis={first}>(x, z)  q = Concat<axis={second}>(v, p, x)"
    assert_rewrites(PASS, text.format(nodes=two), text.format(nodes=f"q = Concat<axis={second}>(v, x, z, x)"))


def test_two_and_a_chain() -> None:
    model = parse(
        "g (float[n,k] x) => (float y) { a = Neg(x)  p = Concat<axis=1>(x, a)  q = Concat<axis=1>(a, a)  r = Concat<axis=1>(p, q)  y = Concat<axis=1>(r, x) }"
    )
    outcome = assert_exact_after(PASS, model)
    assert op_types(outcome.model) == ["Neg", "Concat"]
    assert [v.name for v in list(outcome.model.graph)[-1].inputs] == ["x", "a", "a", "a", "x"]


def test_another_axis() -> None:
    for first, second in ((0, 1), (-1, 0), (1, -2)):
        model = parse(
            f"g (float[n,n] x) => (float y) {{ p = Concat<axis={first}>(x, x)  q = Concat<axis={second}>(p, p2)  y = Neg(q) }}".replace(
                "p2", "p"
            )
        )
        assert assert_untouched(PASS, model) == {}


def test_others_use_what_is_between() -> None:
    text = "g (float[n,k] x) => (float y{out}) {{ p = Concat<axis=1>(x, x)  y = Concat<axis=1>(p, {second})  z = Abs({z}) }}"
    for out, second, z in ((", float p", "x", "x"), (", float z", "x", "p"), (", float z", "p", "x")):
        assert "'p' has other users" in assert_untouched(PASS, parse(text.format(out=out, second=second, z=z)))["y"]


def test_conforms() -> None:
    model = parse(
        "g (float[n,k] x) => (float y) { a = Neg(x)  p = Concat<axis=1>(x, a)  q = Concat<axis=1>(p, x)  y = Neg(q) }"
    )
    assert_conforms(PASS, model, must_fire=True, sharing="refuse")


def test_works_in_bodies() -> None:
    model = parse(
        """g (bool c, float[n,k] x) => (float y) { p = Concat<axis=1>(x, x)  y = If (c) <
        then_branch = t () => (float q) { q = Concat<axis=1>(p, x) },
        else_branch = e () => (float r) { k = Concat<axis=1>(x, x)  r = Concat<axis=1>(x, k) }> }"""
    )
    assert op_types(assert_exact_after(PASS, model, sizes=({"n": 2, "k": 3, "?": 1},)).model) == [
        "If",
        "Concat",
        "Concat",
    ]


def test_inputs_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 128
    assert most < MAX_INPUTS
    monkeypatch.setattr(merge_concats, "MAX_INPUTS", most)
    count = most + 100
    steps = "  ".join(f"v{i + 1} = Concat<axis=0>(v{i}, x)" for i in range(count))
    model = parse(f"g (float[1] x) => (float y) {{ v0 = Concat<axis=0>(x, x)  {steps}  y = Neg(v{count}) }}")
    outcome = apply(PASS, model)
    inputs = [len(node.inputs) for node in outcome.model.graph]
    assert max(inputs) <= most and len(inputs) < 6


def test_leaves_other_domains() -> None:
    for text in (
        "p = custom.Concat<axis=0>(x, x)  y = Concat<axis=0>(p, x)",
        "p = Concat<axis=0>(x, x)  y = custom.Concat<axis=0>(p, x)",
    ):
        assert assert_untouched(PASS, parse(f"g (float[n] x) => (float y) {{ {text} }}")) == {}
