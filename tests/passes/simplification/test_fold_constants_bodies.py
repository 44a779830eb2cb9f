"""fold-constants in bodies, and branches that are known to be taken."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import (
    apply,
    assert_equal_after,
    assert_untouched,
    op_types,
    parse,
)

from irc.passes.simplification import FoldConstants

PASS = FoldConstants()
BODY = """g (bool c, float[2] x) => (float[2] y) {{ k = Neg(w)  y = If ({condition}) <
    then_branch = t () => (float[2] p) {{ m = Add(k, w)  p = Mul(x, m) }},
    else_branch = e () => (float[2] q) {{ q = Abs(k) }}> }}"""


def test_folds_in_bodies_and_over_captured_values() -> None:
    model = parse(BODY.format(condition="c"), w=(2,))
    outcome = assert_equal_after(FoldConstants(max_bytes=64), model, symbols=(1, 1, 1, 1))
    assert op_types(outcome.model) == ["If", "Mul", "Constant"]
    names = {graph.name: list(graph.initializers) for graph in (outcome.model.graph, *outcome.model.graph.subgraphs())}
    assert names["t"] == ["m"] and names["e"] == []


@pytest.mark.parametrize(("taken", "left"), [(True, ["Mul"]), (False, ["Constant"])])
def test_an_if_with_a_known_condition_becomes_its_branch(taken: bool, left: list[str]) -> None:
    model = parse(BODY.format(condition="on"), w=(2,), on=np.array(taken))
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == left
    assert len(outcome.model.graph.initializers) == int(taken), "the other branch let go of what it captured"


@pytest.mark.parametrize("outer", [True, False])
def test_branches_are_inlined_in_bodies_with_their_constants_and_outputs(outer: bool) -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y, float[2] z, float[2] u) {
        y, z, u = If (c) <then_branch = t () => (float[2] p, float[2] q, float[2] r) {
            a = Neg(x)
            p, q, r = If (on) <then_branch = tt () => (float[2] pp, float[2] qq, float[2] rr) { h = Add(a, k)  pp = Abs(h)  qq = Identity(x)  rr = Identity(a) },
                               else_branch = te () => (float[2] ep, float[2] eq, float[2] er) { ep = Neg(a)  eq = Abs(x)  er = Exp(x) }> },
        else_branch = e () => (float[2] s, float[2] v, float[2] o) { s = Exp(x)  v = Neg(x)  o = Abs(x) }> }""",
        k=(2,),
        **({"on": np.array(True)} if outer else {"on": np.array(False)}),
    )
    outcome = assert_equal_after(PASS, model, symbols=(1, 1, 1, 1))
    assert op_types(outcome.model).count("If") == 1


CHOICE = """g (float[2] x) => (float[k] y) {{ z = {op} (on) <then_branch = t () => (float[2] p) {{ p = Neg(x) }},
    else_branch = e () => (float[3] q) {{ q = Concat<axis=0>(x, one) }}>  y = Exp(z) }}"""


@pytest.mark.parametrize(("op", "on"), [("custom.If", True), ("If", [True, True]), ("If", [])])
def test_what_chooses_otherwise_is_left(op: str, on: bool | list[bool]) -> None:
    model = parse(CHOICE.format(op=op), on=np.array(on, bool), one=np.array([1], np.float32))
    assert assert_untouched(PASS, model) == {}


def test_what_a_branch_gives_keeps_what_is_known_of_it() -> None:
    weights = {"on": np.array(True), "one": np.array([1], np.float32)}
    inferred = parse(CHOICE.format(op="If"), weights)  # the other branch gives another shape
    raw = parse(CHOICE.format(op="If"), weights, raw=True)  # the type of the output is not said
    same = CHOICE.format(op="If").replace("float[3] q", "float[2] q").replace("Concat<axis=0>(x, one)", "Abs(x)")
    silent = parse(same, weights)
    for branch in silent.graph.subgraphs():
        for value in branch.outputs:
            value.type = value.shape = None  # files need not say them
    for model in (inferred, raw, silent):
        outcome = apply(PASS, model)
        assert op_types(outcome.model) == ["Neg", "Exp"]
        (given,) = outcome.model.graph[0].outputs
        assert given.dtype == ir.DataType.FLOAT and given.shape == [2]


def test_what_is_in_a_branch_that_is_not_taken_is_no_site() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { y = If (off) <
        then_branch = t () => (float[2] p) { k = Constant<value_float=2.0>()  p = If (off) <
            then_branch = tt () => (float[2] a) { a = Add(x, k) }, else_branch = te () => (float[2] b) { b = Neg(k) }> },
        else_branch = e () => (float[2] q) { q = Abs(x) }> }""",
        off=np.array(False),
        raw=True,
    )
    outcome = assert_equal_after(PASS, model)
    assert outcome.rewritten == ["y"] and op_types(outcome.model) == ["Abs"]


def test_the_body_of_a_loop_is_left_to_run() -> None:
    model = parse(
        """g (float[2] x) => (float[2] y) { y = Loop (n, on, x) <
        body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) { k = Neg(w)  t = Add(s, k)  d = Identity(c) }> }""",
        n=np.array(3),
        on=np.array(True),
        w=(2,),
    )
    outcome = assert_equal_after(PASS, model, rtol=1e-6)
    assert op_types(outcome.model) == ["Loop", "Add", "Identity"]
