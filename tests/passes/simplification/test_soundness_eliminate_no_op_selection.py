"""eliminate-no-op-selection: shapes of which not even the rank is known."""

from __future__ import annotations

import numpy as np
from pass_kit import apply, assert_untouched, op_types, parse

from irc.passes.simplification.eliminate_no_op_selection import EliminateNoOpSelection

PASS = EliminateNoOpSelection()
WHERE = "g (float[n] x, float[n] z, int64[k] s) => (float y) {{ r = Reshape(x, s)  a = Where(c, {}, {})  y = Neg(a) }}"


def test_another_input_of_unknown_rank_may_enlarge_the_one_that_is_taken() -> None:
    assert "enlarge" in assert_untouched(PASS, parse(WHERE.format("z", "r"), c=np.array(True)))["a"]


def test_what_is_taken_must_be_of_known_rank() -> None:
    assert "enlarge" in assert_untouched(PASS, parse(WHERE.format("r", "r"), c=np.ones(1, bool)))["a"]
    assert "enlarge" in assert_untouched(PASS, parse(WHERE.format("r", "z"), c=np.array(True)))["a"]
    scalar = parse(WHERE.format("r", "v"), c=np.array(True), v=np.float32(1))
    assert "enlarge" in assert_untouched(PASS, scalar)["a"]


def test_a_gather_of_a_tensor_of_unknown_rank_or_size_stays() -> None:
    text = "g (float[n] x, int64[k] s) => (float y) { r = Reshape(x, s)  a = Gather(r, i)  y = Neg(a) }"
    assert assert_untouched(PASS, parse(text, i=np.arange(3))) == {}
    vector = text.replace("int64[k]", "int64[1]")
    assert op_types(apply(PASS, parse(vector, i=np.arange(3))).model) == ["Reshape", "Gather", "Neg"]
