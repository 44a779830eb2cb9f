"""eliminate-dropout: operators and inputs that only look like training mode."""

from __future__ import annotations

import numpy as np
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification import EliminateDropout

PASS = EliminateDropout()


def test_the_dropout_of_another_domain_stays() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = custom.Dropout(x)  y = Relu(a) }", raw=True)
    assert assert_untouched(PASS, model) == {}


def test_before_opset_12_a_third_input_would_mean_nothing() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y) { a = Dropout(x)  y = Relu(a) }", {"on": np.array(True)}, opset=10, raw=True
    )
    model.graph[0].resize_inputs(3)
    model.graph[0].replace_input_with(2, model.graph.initializers["on"])
    assert apply(PASS, model).rewritten == ["a"]


def test_a_missing_training_mode_is_inference() -> None:
    model = parse("g (float[2] x, bool[2] k) => (float[2] y) { a = Dropout(x)  y = Relu(a) }", raw=True)
    model.graph[0].resize_inputs(3)
    outcome = apply(PASS, model)
    assert outcome.rewritten == ["a"] and op_types(outcome.model) == ["Relu"]


def test_where_an_identity_would_be_as_long_it_stays() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Dropout(x) }")
    assert list(assert_untouched(PASS, model)) == ["y"]
