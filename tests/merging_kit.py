"""What the tests of merge-channels share: networks with channels that are multiples of others, and the pass on copies of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from channel_kit import model_of, random_feeds, random_weight, run
from scaling_kit import Outcome, apply, context, samples

from irc.pass_base import Context
from irc.passes.pruning.merging.merge_channels import MergeChannels

Array = np.ndarray[Any, Any]
PASS = MergeChannels(round_to=1)
BOTH = pytest.mark.parametrize("data", [False, True], ids=["weights", "data"])
CHAIN = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) b = ACT(a) y = Conv<pads=[1,1,1,1]>(b, w1, b1)
}"""
TWO_READERS = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y, float[n, 2] z) {
    a = Conv(x, w0, b0) b = Relu(a) y = Conv<pads=[1,1,1,1]>(b, w1, b1)
    p = GlobalAveragePool(b) q = Flatten(p) z = Gemm<transB=1>(q, w2)
}"""
TWO_INNER = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) b = Relu(a) c = Conv(b, w2, b2) d = Relu(c) y = Conv<pads=[1,1,1,1]>(d, w1, b1)
}"""
RESIDUAL = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, w1, b1) d = Relu(c)
    e = Conv(d, w2, b2) s = Add(r, e) t = Relu(s) y = Conv(t, w3, b3)
}"""
DEPTHWISE = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) b = Relu(a) c = Conv<pads=[1,1,1,1], group=8>(b, w2, b2) d = Relu(c) y = Conv(d, w1, b1)
}"""
GATED = """agraph (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv(x, w0, b0) b = Relu(a) p = GlobalAveragePool(b) q = Conv(p, w2) r = Relu(q) s = Conv(r, w3) t = Sigmoid(s)
    u = Mul(b, t) y = Conv(u, w1, b1)
}"""


def copied(array: Array, copies: Mapping[int, tuple[int, float]], *, axis: int = 0) -> Array:
    """An array with channels that are multiples of others."""
    found = np.moveaxis(array.copy(), axis, 0)
    for channel, (of, factor) in copies.items():
        found[channel] = factor * found[of]
    return np.ascontiguousarray(np.moveaxis(found, 0, axis))


def chain(copies: Mapping[int, tuple[int, float]], act: str = "Relu", text: str = CHAIN, **changed: Array) -> ir.Model:
    """8 channels, some of them made as multiples of others."""
    weights = {
        "w0": copied(random_weight(8, 3, 1, 1), copies),
        "b0": copied(random_weight(8), copies),
        "w1": random_weight(4, 8, *((3, 3) if "pads=[1,1,1,1]>(b, w1" in text else (1, 1))),
        "b1": random_weight(4),
    }
    text = text.replace("ACT", act)
    if act == "PRelu":
        text, weights = (
            text.replace("PRelu(a)", "PRelu(a, slopes)"),
            {**weights, "slopes": np.full((8, 1, 1), 0.1, "f")},
        )
    return model_of(text, {**weights, **changed})


def residual(copies: Mapping[int, tuple[int, float]]) -> ir.Model:
    """A stream of 8 channels, made and read twice."""
    weights = {
        f"w{i}": random_weight(*shape, seed=i)
        for i, shape in enumerate([(8, 3, 1, 1), (6, 8, 3, 3), (8, 6, 1, 1), (4, 8, 1, 1)])
    }
    weights |= {f"b{i}": random_weight(n, seed=9 + i) for i, n in enumerate((8, 6, 8, 4))}
    weights |= {name: copied(weights[name], copies) for name in ("w0", "b0", "w2", "b2")}
    return model_of(RESIDUAL, weights)


def merge(model: ir.Model, pass_: MergeChannels = PASS, *, data: bool | int = False, **more: Any) -> Outcome:
    """The pass on a copy, with random samples or none."""
    ctx = context(samples(model, count=8), target=None) if data else Context()
    return apply(pass_, model, ctx, **more)


def unchanged(model: ir.Model, pass_: MergeChannels = PASS, *, data: bool = False) -> dict[str, str]:
    """Reasons, nothing having been merged."""
    outcome = merge(model, pass_, data=data)
    assert outcome.remarks == {} and pass_kit.text(outcome.model) == pass_kit.text(model)
    return outcome.skipped


def equal(model: ir.Model, small: ir.Model, tolerance: float = 1e-5) -> None:
    """That outputs are equal up to rounding, on fresh inputs."""
    for feed in random_feeds(model, {"n": 2}, {"n": 5}, seed=77):
        for expected, found in zip(run(model, [feed])[0], run(small, [feed])[0], strict=True):
            assert np.abs(expected - found).max() <= tolerance * np.abs(expected).max()


def width(model: ir.Model, name: str = "w0") -> int:
    """Channels that a weight makes."""
    value = model.graph.initializers[name].const_value
    assert value is not None
    return int(value.shape[0])


def error(model: ir.Model, other: ir.Model) -> float:
    """Mean square of what the first output differs by."""
    (feed,) = random_feeds(model, {"n": 64}, seed=5)
    return float(np.square(run(model, [feed])[0][0] - run(other, [feed])[0][0]).mean())
