"""Models that hold for one size of an image only, whatever they declare, analysed at others: they are pinned, never an error."""

from __future__ import annotations

import numpy as np
import pytest
from channel_kit import assert_exact, model_of, random_feeds, random_weight

from irc.analysis.channels import channel_groups

GRAPHS = {
    "pooled": "p = AveragePool<kernel_shape=[4,4]>(r) f = Flatten(p) y = MatMul(f, v6)",
    "flattened": "f = Flatten(r) h = MatMul(f, w96) y = MatMul(h, v6)",
    "reshaped": "f = Reshape(r, pixels) t = Transpose<perm=[0,2,1]>(f) h = ReduceMean<keepdims=0>(t, one) y = MatMul(h, v6)",
}
ARRAYS = {
    "k": random_weight(6, 3, 3, 3),
    "v6": random_weight(6, 4),
    "w96": random_weight(96, 6),
    "pixels": np.array([-1, 6, 16]),
    "one": np.array([1]),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_sizes_that_do_not_agree_pin(name: str) -> None:
    text = f"g (float[N,3,H,W] x) => (float[N,4] y) {{ a = Conv(x, k) r = Relu(a) {GRAPHS[name]} }}"
    model = model_of(text, {key: array for key, array in ARRAYS.items() if key in text})
    assert_exact(model, random_feeds(model, {"N": 1, "H": 6, "W": 6}, {"N": 3, "H": 6, "W": 6}))


def test_the_reason_is_told_and_the_right_size_cuts() -> None:
    text = f"g (float[N,3,H,W] x) => (float[N,4] y) {{ a = Conv(x, k) r = Relu(a) {GRAPHS['pooled']} }}"
    model = model_of(text, {key: array for key, array in ARRAYS.items() if key in text})
    assert any("not made for the sizes analysed" in pin.reason.text for pin in channel_groups(model).pinned)
    assert len(channel_groups(model, sizes={"H": 6, "W": 6}).families) == 1
