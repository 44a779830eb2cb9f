"""eliminate-identity: nodes go, public names stay."""

from __future__ import annotations

import pytest
from pass_kit import assert_equal_after, assert_untouched, op_types, parse

from irc.passes.simplification import EliminateIdentity

PASS = EliminateIdentity()


def test_removes_a_chain_between_nodes() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Abs(x)  b = Identity(a)  c = Identity(b)  y = Neg(c) }")
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Abs", "Neg"] and outcome.rewritten == ["b", "c"]


def test_the_node_before_a_graph_output_takes_its_name() -> None:
    model = parse("g (float[n] x) => (float[n] y) { a = Abs(x)  b = Neg(a)  y = Identity(a) }")
    outcome = assert_equal_after(PASS, model)
    assert [o.name for node in outcome.model.graph for o in node.outputs] == ["y", "b"]
    assert outcome.model.graph.outputs[0].shape == model.graph.outputs[0].shape


def test_removes_the_identity_of_a_graph_input_and_of_a_weight() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Identity(x)  v = Identity(w)  y = Add(a, v) }", w=(2,))
    assert op_types(assert_equal_after(PASS, model).model) == ["Add"]


def test_users_in_bodies_follow() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) { a = Abs(x)  b = Identity(a)  y = If (c) <
        then_branch = t () => (float[2] p) { p = Neg(b) }, else_branch = e () => (float[2] q) { r = Identity(b)  q = Neg(r) }> }"""
    )
    outcome = assert_equal_after(PASS, model, symbols=(1, 1, 1))
    assert op_types(outcome.model) == ["Abs", "If", "Neg", "Neg"]


NAMING = {
    "of a graph input": "g (float[2] x) => (float[2] y) { y = Identity(x) }",
    "of another graph output": "g (float[2] x) => (float[2] a, float[2] y) { a = Abs(x)  y = Identity(a) }",
    "of a weight": "g (float[2] x) => (float[2] y, float[2] z) { y = Identity(w)  z = Abs(x) }",
}


@pytest.mark.parametrize("case", NAMING)
def test_keeps_an_identity_that_names_a_graph_output(case: str) -> None:
    model = parse(NAMING[case], **({"w": (2,)} if "weight" in case else {}))
    assert assert_untouched(PASS, model) == {"y": "it gives a graph output a name that its input cannot take"}


def test_two_outputs_of_one_value_keep_both_names() -> None:
    model = parse("g (float[2] x) => (float[2] y, float[2] z) { a = Abs(x)  y = Identity(a)  z = Identity(a) }")
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Abs", "Identity"] and outcome.rewritten == ["y"]


def test_says_nothing_of_identities_that_are_outputs_of_a_body() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) { y = If (c) <
        then_branch = t () => (float[2] p) { p = Identity(x) }, else_branch = e () => (float[2] q) { q = Neg(x) }> }"""
    )
    assert assert_untouched(PASS, model) == {}


def test_leaves_other_domains() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = custom.Identity(x)  y = Neg(a) }")
    assert assert_untouched(PASS, model) == {}
