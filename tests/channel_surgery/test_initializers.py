"""Initializers in unusual places: sliced by an irregular step, given out as an output of the model."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import assert_exact, model_of, random_feeds, random_weight

from irc.analysis.channels import channel_groups

STRIDED = "c = Slice(b, i0, i12, i0, i2) d = Slice(b, i1, i12, i0, i2) s = Add(a, c) m = Mul(s, d)"
GATHERED = "c = Gather(b, places) m = Add(a, c)"
PADDED = "c = Pad(b4, pads) m = Add(a, c)"
ARRAYS = {
    "w": random_weight(8, 6),
    "v": random_weight(6, 4),
    "b": random_weight(12),
    "b4": random_weight(4),
    "places": np.array([5, 3, 11, 0, 7, 3]),
    "pads": np.array([1, 1]),
    **{f"i{i}": np.array([i]) for i in (0, 1, 2, 12)},
}


@pytest.mark.parametrize("nodes", [STRIDED, GATHERED, PADDED])
def test_what_is_picked_of_a_small_initializer_is_cut_with_it(nodes: str) -> None:
    text = f"g (float[N,8] x) => (float[N,4] y) {{ a = MatMul(x, w) {nodes} r = Relu(m) y = MatMul(r, v) }}"
    model = model_of(text, {name: array for name, array in ARRAYS.items() if f"{name})" in text or f"{name}," in text})
    assert_exact(model, random_feeds(model, {"N": 1}, {"N": 5}))


def test_an_initializer_that_is_an_output_stays_as_it_is() -> None:
    text = (
        "g (float[N,8] x) => (float[N,4] y, float[6] z) { a = MatMul(x, w) s = Add(a, z) r = Relu(s) y = MatMul(r, v) }"
    )
    model = model_of(text, {"w": ARRAYS["w"], "z": random_weight(6), "v": ARRAYS["v"]})
    assert_exact(model, random_feeds(model, {"N": 1}, {"N": 5}), families=0)
    assert any("output" in pin.reason.text and pin.slot.name == "z" for pin in channel_groups(model).pinned)
