"""fold-constants: shapes that are only declared, and answers that only look known."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import apply, assert_untouched, op_types, parse, run

from irc.passes.simplification import FoldConstants

ASKED = {
    "Size": "d = Size(y)",
    "Gather": "s = Shape(y) d = Gather(s, first)",
    "Slice": "s = Shape(y) d = Slice(s, zero, one)",
    "Shape": "d = Shape<start=0, end=1>(y)",
}


@pytest.mark.parametrize("nodes", ASKED.values(), ids=ASKED)
def test_what_an_output_declares_is_no_answer(nodes: str) -> None:
    """ONNX Runtime only warns where an output has another shape than it declares, and asks the tensor."""
    text = f"g (float[n,m] x) => (float[2,3] y, int64[k] u) {{ y = Neg(x) {nodes} u = Add(d, hundred) }}"
    constants = {"first": np.array(0), "zero": np.array([0]), "one": np.array([1]), "hundred": np.array([100])}
    model = parse(text, {name: array for name, array in constants.items() if name in nodes + "hundred"})
    outcome = apply(FoldConstants(), model)
    feed = {"x": np.ones((5, 7), np.float32)}
    for expected, found in zip(run(model, feed), run(outcome.model, feed), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert "Neg" in op_types(outcome.model) and "Add" in op_types(outcome.model)


UNKNOWN = {
    "the size of an unknown dimension": ("float[n,3] x) => (int64 y", "y = Size(x)"),
    "an unknown rank": ("float[n,3] x) => (int64[k] y", "z = custom.Op(x)  y = Shape(z)"),
    "an element of what is no shape": ("int64[4] x) => (int64 y", "z = Neg(x)  y = Gather(z, zero)"),
    "a shape between bounds": ("float[n,6,4] x) => (int64[3] y", "s = Shape(x)  y = Clip(s, low, five)"),
    "what another domain calls a shape": ("float[2,3] x) => (int64 y", "typed = custom.Shape(x)  y = Gather(typed, zero)"),
    "an index that is given later": ("float[n,3] x, int64[1] i) => (int64[1] y", "s = Shape(x)  y = Gather(s, i)"),
    "an index out of range": ("float[n,3] x) => (int64 y", "s = Shape(x)  y = Gather(s, five)"),
    "a start that is given later": ("float[n,3] x, int64[1] i) => (int64[k] y", "s = Shape(x)  y = Slice(s, i, two)"),
    "an end that is given later": ("float[n,3] x, int64[1] i) => (int64[k] y", "s = Shape(x)  y = Slice(s, one, i)"),
    "steps that are given later": ("float[n,3] x, int64[1] i) => (int64[k] y", "s = Shape(x)  y = Slice(s, one, two, first, i)"),
    "a slice along no axis": ("float[n,3] x) => (int64[2] y", "s = Shape(x)  y = Slice(s, none, none, none)"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNKNOWN)
def test_no_shape_answers(case: str) -> None:
    signature, nodes = UNKNOWN[case]
    given = {"zero": 0, "low": 1, "five": 5, "first": [0], "one": [1], "two": [2], "none": np.array([], np.int64)}
    weights = {name: np.array(value) for name, value in given.items() if f" {name})" in nodes or f" {name}," in nodes}
    model = parse(f"g ({signature}) <int64[2] typed> {{ {nodes} }}", weights, opset=18)
    assert assert_untouched(FoldConstants(max_bytes=1000), model) == {}
