"""eliminate-dropout: inference mode in every opset's own spelling."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import apply, assert_equal_after, assert_promises, assert_untouched, op_types, parse

from irc.passes.simplification import EliminateDropout

PASS = EliminateDropout()


@pytest.mark.parametrize(
    ("opset", "dropout"),
    [
        (7, "Dropout<ratio=0.5>(a)"),
        (10, "Dropout(a)"),
        (12, "Dropout(a)"),
        (13, "Dropout(a, ratio)"),
        (13, "Dropout(a, ratio, off)"),
        (17, "Dropout(a, , off)"),
        (22, "Dropout(a, ratio, off)"),
    ],
)
def test_removes_dropout_in_inference_mode(opset: int, dropout: str) -> None:
    model = parse(
        f"g (float[2] x) => (float[2] y) {{ a = Abs(x)  b = {dropout}  y = Neg(b) }}",
        {
            name: array
            for name, array in (("ratio", np.float32(0.5)), ("off", np.array(False)))
            if name in dropout.split("(")[1]
        },
        opset=opset,
    )
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Abs", "Neg"] and outcome.rewritten == ["b"]
    assert not outcome.model.graph.initializers, "what only the dropout used is gone"


def test_an_unused_mask_does_not_keep_it() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Abs(x)  y, mask = Dropout(a) }")
    assert op_types(assert_equal_after(PASS, model).model) == ["Abs"]


def test_between_graph_input_and_output_an_identity_is_left() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y, mask = Dropout(x) }")
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Identity"] and outcome.rewritten == ["y"]


def test_a_ratio_that_others_use_stays() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Dropout(x, r)  y = Mul(a, r) }", r=np.float32(0.5))
    assert list(assert_equal_after(PASS, model).model.graph.initializers) == ["r"]


LEAVES = {
    "mask used": ("g (float[2] x) => (float[2] y, bool[2] n) { y, mask = Dropout(x)  n = Not(mask) }", "its mask is used"),
    "mask is an output": ("g (float[2] x) => (float[2] y, bool[2] mask) { y, mask = Dropout(x) }", "its mask is used"),
    "training": ("g (float[2] x) => (float[2] y) { y = Dropout(x, , on) }", "it is in training mode"),
    "chosen by the caller": ("g (float[2] x, bool on) => (float[2] y) { y = Dropout(x, , on) }", "its training_mode is not constant"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEAVES)
def test_leaves(case: str) -> None:
    source, reason = LEAVES[case]
    model = parse(source, **({"on": np.array(True)} if case == "training" else {}))
    assert assert_untouched(PASS, model) == {"y": reason}


def test_an_overridable_training_mode_is_not_constant() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Dropout(x, , off) }", off=np.array(False))
    model.graph.inputs.append(model.graph.initializers["off"])
    assert assert_untouched(PASS, model) == {"y": "its training_mode is not constant"}


def test_before_opset_7_dropout_trains_unless_told() -> None:
    source = "g (float[2] x) => (float[2] y) { a = Abs(x)  y = Dropout(a) }"
    assert assert_untouched(PASS, parse(source, opset=6)) == {"y": "it is in training mode"}
    model = parse(source.replace("Dropout", "Dropout<is_test=1>"), opset=6)
    outcome = apply(PASS, model)  # no runtime has Dropout of opset 6 any more
    assert_promises(PASS, model, outcome)
    assert op_types(outcome.model) == ["Abs"]
