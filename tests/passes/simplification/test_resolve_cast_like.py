"""CastLike becomes Cast where its type is known."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import apply, assert_equal_after, op_types, parse

from irc.ir import refresh_shapes
from irc.passes.simplification.resolve_cast_like import ResolveCastLike
from irc.testing import assert_conforms

PASS = ResolveCastLike()


@pytest.mark.parametrize(
    ("kind", "dtype"), [("float16", "FLOAT16"), ("int32", "INT32"), ("bool", "BOOL"), ("double", "DOUBLE")]
)
def test_the_type_of_the_second_input_is_written_down(kind: str, dtype: str) -> None:
    model = parse(f"g (float[3] x, {kind}[n] l) => ({kind}[3] y) {{ y = CastLike(x, l) }}")
    outcome = assert_equal_after(PASS, model, symbols=(2,))
    (node,) = outcome.model.graph
    assert node.op_type == "Cast" and node.attributes.get_int("to") == ir.DataType[dtype].value
    assert [value.name for value in outcome.model.graph.inputs] == ["x", "l"]
    assert_conforms(PASS, model)


def test_what_only_gave_the_type_goes() -> None:
    model = parse("g (float[3] x) => (int32[3] y) { k = Neg(w)  y = CastLike(x, k) }", w=np.array([1], np.int32))
    refresh_shapes(model)
    outcome = assert_equal_after(PASS, model)
    assert op_types(outcome.model) == ["Cast"] and not outcome.model.graph.initializers


def test_an_unknown_type_and_other_domains_stay() -> None:
    model = parse("g (float[3] x) => (float[3] y) { l = custom.Odd(x)  y = CastLike(x, l) }")
    outcome = apply(PASS, model)
    assert outcome.rewritten == [] and outcome.skipped == {"y": "the type of its second input is not known"}
    outcome = apply(PASS, parse("g (float[3] x, int32[1] l) => (float[3] y) { y = custom.CastLike(x, l) }"))
    assert outcome.rewritten == [] and outcome.skipped == {}


@pytest.mark.parametrize("kind", ["float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"])
def test_float8_stays(kind: str) -> None:
    model = parse(f"g (float[3] x, {kind}[1] l) => ({kind}[3] y) {{ y = CastLike(x, l) }}", opset=19)
    assert "float8" in apply(PASS, model).skipped["y"]


def test_how_to_round_stays_and_what_only_float8_has_goes() -> None:
    text = 'g (float[3] x, int32[1] l) => (int32[3] y) { y = CastLike<saturate=0, round_mode="down">(x, l) }'
    (node,) = apply(PASS, parse(text, opset=24)).model.graph
    assert set(node.attributes) == {"to", "round_mode"} and node.attributes.get_string("round_mode") == "down"


def test_in_a_body_with_a_captured_value() -> None:
    model = parse(
        """g (bool c, float[3] x, double[n] l) => (double[3] y) { y = If (c) <
        then_branch = t () => (double[3] p) { p = CastLike(x, l) }, else_branch = e () => (double[3] q) { a = Neg(x)  q = CastLike(a, l) }> }"""
    )
    assert op_types(assert_equal_after(PASS, model, symbols=(1,)).model) == ["If", "Cast", "Neg", "Cast"]
