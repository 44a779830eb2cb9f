"""fold-batch-norm: what random graphs showed, and what only looks as if it could be folded."""

from __future__ import annotations

import numpy as np
import pytest
from pass_kit import apply, assert_untouched, feeds, op_types, parse, run, statistics

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


CONV = "g (float[1,3,4,4] x) => (float[1,4,2,2] y) { h = Conv(x, w) y = BatchNormalization(h, gamma, beta, mean, var) }"


@pytest.mark.parametrize("op_type", ["Conv", "BatchNormalization"])
def test_operators_of_other_domains_only_have_the_name(op_type: str) -> None:
    model = parse(CONV.replace(op_type, f"custom.{op_type}"), w=(4, 3, 3, 3), **statistics(4))
    assert_untouched(FoldBatchNorm(), model)


def test_a_bias_that_overflows_is_left() -> None:
    half = {"gamma": 1.0, "beta": 60000.0, "mean": -60000.0, "var": 1.0}
    model = parse(
        CONV.replace("float[", "float16["),
        w=np.ones((4, 3, 3, 3), np.float16),
        **{name: np.full(4, value, np.float16) for name, value in half.items()},
    )
    assert assert_untouched(FoldBatchNorm(), model)["y"] == "the folded weight or bias does not fit FLOAT16"


def test_a_stack_of_matrices_is_no_matrix() -> None:
    text = "g (float[4,3] x) => (float[5,4,4] y) { h = MatMul(x, w) y = BatchNormalization(h, gamma, beta, mean, var) }"
    model = parse(text, w=(5, 3, 4), **statistics(4))
    assert "product of two matrices" in assert_untouched(FoldBatchNorm(), model)["y"]


@pytest.mark.parametrize("known", [True, False])
def test_the_rank_of_a_product_is_that_of_its_input_or_its_result(known: bool) -> None:
    text = """g (float[n,3] x) => (float[n,4] y) {
    a = Neg(x) h = MatMul(a, w) y = BatchNormalization(h, gamma, beta, mean, var) }"""
    model = parse(text, w=(3, 4), **statistics(4))
    product = next(node for node in model.graph if node.op_type == "MatMul")
    product.inputs[0].shape = None
    if not known:
        product.outputs[0].shape = None
    expected = ["Neg", "Gemm"] if known else ["Neg", "MatMul", "BatchNormalization"]
    assert op_types(apply(FoldBatchNorm(), model).model) == expected
