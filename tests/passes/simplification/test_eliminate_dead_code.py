"""eliminate-dead-code: what no output needs goes, in bodies too; the interface stays."""

from __future__ import annotations

from pass_kit import apply, assert_equal_after, assert_untouched, op_types, parse

from irc.ir import check
from irc.passes.simplification import EliminateDeadCode

PASS = EliminateDeadCode()


def test_removes_nodes_and_their_weights() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y) { a = Add(x, u)  b = Neg(a)  y = Add(x, w)  z = Exp(y) }", u=(2,), w=(2,)
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Add"] and list(outcome.model.graph.initializers) == ["w"]
    assert outcome.rewritten == ["<model>"]


def test_an_if_that_nobody_needs_lets_go_of_what_it_captured() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) { a = Add(x, w)  q = If (c) <
        then_branch = t () => (float[2] p) { p = Neg(a) },
        else_branch = e () => (float[2] r) { r = If (c) <
            then_branch = tt () => (float[2] u) { u = Exp(a) }, else_branch = te () => (float[2] v) { v = Abs(w) }> }>
        y = Neg(x) }""",
        w=(2,),
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Neg"] and not outcome.model.graph.initializers


def test_removes_in_bodies() -> None:
    model = parse(
        """g (bool c, float[2] x) => (float[2] y) { a = Exp(x)  y = If (c) <
        then_branch = t () => (float[2] p) { d = Neg(a)  p = Neg(x) }, else_branch = e () => (float[2] q) { q = Abs(x) }> }"""
    )
    assert op_types(assert_equal_after(PASS, model, symbols=(1, 1, 1)).model) == ["If", "Neg", "Abs"]


def test_removes_outputs_that_nobody_asked_for() -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,4] y) { y, mean, deviation = LayerNormalization(x, scale) }", scale=(4,)
    )
    outcome = assert_equal_after(PASS, model)
    assert [o.name for o in next(iter(outcome.model.graph)).outputs] == ["y"]


def test_unused_graph_inputs_stay_even_with_a_default() -> None:
    model = parse("g (float[2] x, float[2] u) => (float[2] y) { y = Neg(x) }", d=(2,))
    model.graph.inputs.append(model.graph.initializers["d"])
    outcome = apply(PASS, model)
    assert [value.name for value in outcome.model.graph.inputs] == ["x", "u", "d"]


def test_removes_imports_of_unused_domains() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    assert set(model.graph.opset_imports) == {"", "custom"}
    outcome = assert_equal_after(PASS, model)
    assert set(outcome.model.graph.opset_imports) == {""}


def test_a_model_without_dead_code_is_left_alone() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = custom.Op(x)  y = Neg(a) }")
    assert assert_untouched(PASS, model) == {"<model>": "nothing to do"}


def test_outputs_that_put_batch_normalization_into_training_mode_stay() -> None:
    model = parse(
        "g (float[2,4] x) => (float[2,4] y) { y, m, v, sm, sv = BatchNormalization(x, a, b, c, d)  z = custom.Op(y) }",
        {name: (4,) for name in "abcd"},
        opset=9,
    )
    outcome = apply(PASS, model)
    check(outcome.model)
    assert [o.name for o in next(iter(outcome.model.graph)).outputs] == ["y", "m", "v", "sm", "sv"]
