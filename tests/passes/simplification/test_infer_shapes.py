"""infer-shapes: stale shapes are replaced, declared interfaces stay, contradictions are said."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
from pass_kit import apply, assert_equal_after, assert_untouched, parse

from irc.passes.simplification import InferShapes
from irc.passes.simplification.infer_shapes import _changed

PASS = InferShapes()
SOURCE = "g (float[n,6] x) => (float[n,4] y) { h = MatMul(x, w)  y = Relu(h) }"


def test_fills_in_what_is_missing_and_finds_nothing_more() -> None:
    model = parse(SOURCE, w=(6, 4), raw=True)
    outcome = assert_equal_after(PASS, model)
    (product, _) = outcome.model.graph
    assert product.outputs[0].dtype == ir.DataType.FLOAT
    assert [d if isinstance(d, int) else d.value for d in product.outputs[0].shape or ()] == ["n", 4]


def test_replaces_what_is_stale() -> None:
    model = parse(SOURCE, w=(6, 4))
    product = next(iter(model.graph))
    product.outputs[0].shape = ir.Shape([7, 9])
    outcome = assert_equal_after(PASS, model)
    assert [str(d) for d in next(iter(outcome.model.graph)).outputs[0].shape or ()][1] == "4"


def test_sees_into_bodies() -> None:
    model = parse(
        """g (bool c, float[2,3] x) => (float[3,2] y) { y = If (c) <
        then_branch = t () => (float[3,2] p) { a = Neg(x)  p = Transpose(a) }, else_branch = e () => (float[3,2] q) { q = Transpose(x) }> }""",
        raw=True,
    )
    outcome = assert_equal_after(PASS, model)
    inner = [node for node in outcome.model.graph.all_nodes() if node.op_type == "Neg"]
    assert list(inner[0].outputs[0].shape or ()) == [2, 3]


def test_says_nothing_to_do() -> None:
    assert assert_untouched(PASS, parse(SOURCE, w=(6, 4))) == {"<model>": "nothing to do"}


def test_a_contradiction_is_reported_and_does_not_stop_the_build() -> None:
    model = parse("g (float[2,6] x) => (float[2,4] y) { h = MatMul(x, w)  y = Relu(h) }", w=(5, 4))
    outcome = apply(PASS, model)
    assert outcome.rewritten == [] and "Incompatible dimensions" in outcome.skipped["<model>"]
    again = parse(
        "g (float[2,6] x) => (float[2,4] y) { a = Neg(x)  h = MatMul(a, w)  y = Relu(h) }", w=(5, 4), raw=True
    )
    assert apply(PASS, again).rewritten == ["<model>"], "what comes before the contradiction is still learnt"


def test_unknown_operators_are_passed_over() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Neg(x)  b = custom.Op(a)  y = Neg(b) }", raw=True)
    outcome = apply(PASS, model)
    assert outcome.rewritten == ["<model>"]
    assert list(next(iter(outcome.model.graph)).outputs[0].shape or ()) == [2]


TWO_COUNTS = "g (float[n] x) => (int64[a,b] y) { i = NonZero(x)  j = NonZero(i)  k = Neg(j)  y = Abs(k) }"


def test_other_symbols_for_the_same_unknown_dimensions_are_no_change() -> None:
    """onnx numbers them anew whenever it infers."""
    model = parse(TWO_COUNTS)
    first, second, third, _ = model.graph
    first.outputs[0].shape = ir.Shape([1, "unk__7"])
    for node in (second, third):
        node.outputs[0].shape = ir.Shape([2, "unk__3"])
    assert apply(PASS, model).rewritten == []


def test_dimensions_that_turn_out_equal_or_different_are_a_change() -> None:
    for symbols in (("unk__1", "unk__2", "unk__3"), ("unk__1", "unk__1", "unk__1")):
        model = parse(TWO_COUNTS)
        for node, rank, symbol in zip(model.graph, (1, 2, 2), symbols, strict=False):
            node.outputs[0].shape = ir.Shape([rank, symbol])
        assert apply(PASS, model).rewritten == ["<model>"]


@pytest.mark.parametrize(
    ("was", "now", "changed"),
    [
        (None, None, False),
        (None, [2], True),
        ([2], None, True),
        ([2], [2, 3], True),
        ([2, 3], [2], True),
        ([], None, True),
        ([2, "n"], [2, "n"], False),
        ([2, "n"], [2, "m"], True),
        ([2, "unk__0"], [2, "unk__7"], False),
        (["unk__0", "unk__0"], ["unk__7", "unk__7"], False),
        (["unk__0", "unk__0"], ["unk__7", "unk__8"], True),
        (["unk__0", "unk__1"], ["unk__7", "unk__7"], True),
        (["unk__0"], ["n"], True),
        (["n"], ["unk__0"], True),
        (["unk__0"], [4], True),
        ([4], ["unk__0"], True),
        ([None], [None], False),
    ],
)
def test_what_counts_as_a_change(was: list[Any] | None, now: list[Any] | None, changed: bool) -> None:
    value = ir.Value(name="v", type=ir.TensorType(ir.DataType.FLOAT), shape=None if now is None else ir.Shape(now))
    before = (value, value.type, None if was is None else ir.Shape(was))
    assert _changed([before]) is changed
    other = ir.Value(name="w", type=ir.TensorType(ir.DataType.INT64), shape=value.shape)
    assert _changed([(other, value.type, None if was is None else ir.Shape(was))])
