"""fold-constants: shapes that are only declared, and answers that only look known."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import apply, op_types, parse, run

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
