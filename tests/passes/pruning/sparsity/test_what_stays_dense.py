"""Where sparsify keeps away, its options, and its promises."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from sparsity_kit import (
    applied,
    image,
    product,
    text,
    zeros,
)

from irc.application import apply_pass
from irc.errors import UsageError
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.pruning.sparsity.sparsify import Sparsify
from irc.passes.quantization.quantize_weights import QuantizeWeights
from irc.pipeline import Step
from irc.selection import Selection
from irc.testing import assert_conforms

BODY = """b (bool c, float[4,32] x) => (float[4,40] y) {
  y = If<then_branch = t () => (float[4,40] u) { u = MatMul(x, w) }, else_branch = e () => (float[4,40] v) { v = MatMul(x, z) }>(c)
}"""
BOTH = """b (bool c, float[4,32] x) => (float[4,40] y, float[4,40] z) {
  z = MatMul(x, w)
  y = If<then_branch = t () => (float[4,40] u) { u = MatMul(x, w) }, else_branch = e () => (float[4,40] v) { v = Neg(z) }>(c)
}"""


@pytest.mark.parametrize(
    ("model", "site", "reason"),
    [
        (product("p (float[N,32] x) => (float[N,40] y, float[32,40] w) { y = MatMul(x, w) }"), "y", "its weight is an output"),
        (product("p (float[N,32] x, float[32,40] w) => (float[N,40] y) { y = MatMul(x, w) }"), None, None),
        (product("p (float[N,32] x, float[40,32] w) => (float[N,40] y) { y = Gemm<transB=1>(x, w) }", w=(40, 32)), "y", "not const"),
        (product("p (float[N,8] x) => (float[N,40] y) { y = MatMul(x, w) }", w=(8, 40)), "y", "320 elements, and the minimum is 1024"),
        (product(w=np.where(np.eye(32, 40) > 0, np.inf, 1).astype("f")), "y", "NaN or infinity"),
        (product(w=np.where(np.eye(32, 40) > 0, np.nan, 1).astype("f")), "y", "NaN or infinity"),
        (product("p (float[N,32] x) => (float[N,40] y, float[N,32,40] z) { y = MatMul(x, w) n = Unsqueeze(x, one) z = Mul(n, w) }",
                 w=(32, 40), one=np.array([2])), "y", "also used by Mul 'z'"),
        (product("p (float[N,32] x, int64[N] i) => (float[N,40] y, float[N,40] z) { y = MatMul(x, w) z = Gather(w, i) }"), "y", "Gather"),
        (product(BODY, w=(32, 40), z=(32, 40)), "u", "it is in a body"),
        (product(BOTH, w=(32, 40)), "z", "also used in a body"),
        (product("p (float[N,32] x, float[N,32] u) => (float[N,32] y, float[N,32] z) {"
                 " y = Gemm<transB=1>(x, w) z = MatMul(u, w) }", w=(32, 32)), "y", "the other way round"),
    ],
)  # fmt: skip
def test_reasons_to_leave_a_weight_alone(model, site, reason):
    skipped = pass_kit.assert_untouched(Sparsify(), model)
    assert reason is None or reason in skipped[site]


def test_too_few_inputs_for_a_pattern():
    text = "d (float[1,64,6,6] x) => (float y) { y = Conv<group=32>(x, w) }"
    skipped = pass_kit.assert_untouched(Sparsify(pattern="2:4"), product(text, w=(64, 2, 3, 3)))
    assert skipped == {"y": "it has 2 inputs, fewer than the 4 of the pattern"}


def test_what_is_quantized_stays():
    quantized = pass_kit.apply(QuantizeWeights(), product()).model
    assert pass_kit.assert_untouched(Sparsify(), quantized) == {"y": "its weight is already quantized"}


def test_weights_with_several_readers_are_decided_once_for_all(runner):
    shared = """s (float[N,32] x) => (float[N,32] y) {
      a = MatMul(x, w)
      b = Tanh(a)
      y = MatMul(b, w)
    }"""
    model = product(shared, w=(32, 32))
    outcome = applied(Sparsify(), model, runner)
    assert outcome.rewritten == ["a"] and outcome.skipped["y"] == "its weight is that of 'a', where it is decided"
    assert zeros(outcome.model, "w") == 512 and len(outcome.model.graph.initializers) == 1
    refused = applied_excluding("y", model)
    assert refused.rewritten == [] and "its weight is also that of 'y'" in refused.skipped["a"]
    assert applied_excluding("a", model).rewritten == []


def applied_excluding(site: str, model: ir.Model):
    copy = snapshot(model)
    record = apply_pass(Step(Sparsify(), Selection.of(exclude=[f"name:{site}"])), copy, Context()).record
    return pass_kit.Outcome(copy, record)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "4:4"}, "write N:M with 0 < N < M"),
        ({"pattern": "2/4"}, "write N:M"),
        ({"pattern": "2:4", "sparsity": 0.5}, "exclude each other"),
        ({"pattern": "2:4", "scope": "global"}, "scope=global goes with sparsity"),
        ({"sparsity": 1.0}, "above 0 and below 1"),
        ({"sparsity": 0.0}, "above 0 and below 1"),
        ({"minimum": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Sparsify(**options)


@pytest.mark.parametrize("criterion", ["obs", "wanda"])
def test_criteria_that_need_data_say_so(criterion):
    with pytest.raises(UsageError, match="give --data"):
        list(Sparsify(criterion=criterion).sites(product(), Context()))


def test_it_conforms():
    models = {"text": text(), "image": image()}
    assert_conforms(Sparsify(sparsity=0.1, minimum=100), models, must_fire=True)
    assert_conforms(Sparsify(pattern="3:4", minimum=100), models, must_fire=True)
