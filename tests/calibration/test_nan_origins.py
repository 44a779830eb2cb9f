"""Values that need no check of their own are finite whenever those that are checked are."""

import numpy as np
import pytest
from calibration_models import parse, run_unoptimized

from irc.calibration import FeedList, Observable, Sample, observe
from irc.calibration.nan_origins import needing_a_check
from irc.errors import DataError
from irc.runner import Runner


def checked(text, names, **weights):
    model = parse(text, **weights)
    values = {v.name: v for v in (*model.graph.inputs, *(v for n in model.graph for v in n.outputs))}
    return {value.name for value in needing_a_check([values[name] for name in names])}


def test_behind_a_checked_input_sums_and_products_are_clean():
    text = "g (float[n,3,8,8] x) => (float y) { a = Conv(x, w) r = Relu(a) s = Add(r, a) y = GlobalAveragePool(s) }"
    assert checked(text, ["x", "a", "r", "s"], w=(4, 3, 3, 3)) == {"x"}
    assert checked(text, ["r", "s"], w=(4, 3, 3, 3)) == {"r", "s"}


@pytest.mark.parametrize("operator", ["Sqrt(a)", "Log(a)", "Div(a, a)", "Softmax(a)", "Pow(a, b)", "Exp(a)"])
def test_operators_that_may_give_a_nan_are_checked(operator):
    assert checked(f"g (float[n] a, float[n] b) => (float y) {{ q = {operator} y = Neg(q) }}", ["a", "b", "q"]) == {
        "a", "b", "q",
    }  # fmt: skip


def test_constants_that_are_not_finite_are_not_trusted():
    weight = np.array([1, np.inf], np.float32)
    assert checked("g (float[2] x) => (float y) { a = Mul(x, w) y = Neg(a) }", ["x", "a"], w=weight) == {"x", "a"}
    assert checked("g (float[2] x) => (float y) { a = Mul(x, w) y = Neg(a) }", ["x", "a"], w=weight[:1]) == {"x"}


def test_operators_of_other_domains_are_not_trusted():
    assert checked("g (float[2] x) => (float y) { a = com.microsoft.Gelu(x) y = Neg(a) }", ["x", "a"]) == {"x", "a"}


def test_a_nan_behind_a_relu_that_hides_it_is_found():
    """ONNX Runtime's Relu may turn a NaN into 0, and its Min and Max step over one."""
    model = parse("g (float[n] x) => (float[n] y) { q = Sqrt(x) r = Relu(q) y = Neg(r) }")
    source = FeedList([Sample({"x": np.array([4, -1, 9], np.float32)}, {}, "s0")])
    with Runner(threads=1) as runner, pytest.raises(DataError, match="value 'q' of the model contains NaN"):
        observe(runner, model, source, [Observable("q"), Observable("r")])


def test_overflow_inside_a_sum_is_found():
    model = parse(
        "g (float[1,4] x) => (float[1,1] y) { a = MatMul(x, w) y = Relu(a) }", w=np.full((4, 1), 3e8, np.float32)
    )
    feed = {"x": np.array([[3e38, 3e38, -3e38, -3e38]], np.float32)}
    overflowed = run_unoptimized(model, feed)["y"]
    with Runner(threads=1) as runner:
        source = FeedList([Sample(feed, {}, "s0")])
        if np.isfinite(overflowed).all():
            observe(runner, model, source, [Observable("x")])
        with pytest.raises(DataError, match=r"contains (NaN|infinity)"):
            observe(runner, model, source, [Observable("x"), Observable("a")])
