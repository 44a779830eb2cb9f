"""fold-batch-norm: what random graphs showed."""

from __future__ import annotations

import numpy as np
from pass_kit import apply, feeds, parse, run

from irc.passes.simplification import FoldBatchNorm


def test_the_epsilon_of_a_double_model_is_that_of_a_float() -> None:
    """1e-5 as a double is off by 1e-8 of itself, which is far above the rounding of doubles."""
    generator = np.random.default_rng(0)
    weights = {name: np.abs(generator.normal(size=3)) + 0.01 for name in ("gamma", "beta", "mean", "var")}
    weights["var"] *= 1e-4
    model = parse(
        "g (double[n,2] x) => (double[n,3] y) { a = MatMul(x, w)  y = BatchNormalization(a, gamma, beta, mean, var) }",
        w=generator.normal(size=(2, 3)),
        **weights,
    )
    outcome = apply(FoldBatchNorm(), model)
    assert outcome.rewritten == ["y"]
    feed = feeds(model)
    (expected,), (found,) = run(model, feed), run(outcome.model, feed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14 * np.abs(expected).max())
