"""bfloat16: for targets that have it, judged by the reference evaluator, since ONNX Runtime's CPU provider cannot run it."""

from __future__ import annotations

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from half_kit import casts, context, reduced, skipped, weight_types
from onnx.reference import ReferenceEvaluator

import irc
from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.ir import save as irc_save
from irc.passes.precision.reduce_precision import ReducePrecision
from irc.testing.conformance import shared_runner

BFLOAT16 = ReducePrecision(type="bfloat16")
WIDE = "g (float[2,16] x) => (float[2,4] y) { a = MatMul(x, w) q = Mul(a, huge) r = Mul(q, tiny) y = MatMul(r, v) }"
WIDE_WEIGHTS = {"w": (16, 8), "huge": np.float32(1e30), "tiny": np.float32(1e-30), "v": (8, 4)}


def test_it_has_the_range_of_float32_and_less_precision():
    model = pass_kit.parse(WIDE, WIDE_WEIGHTS)
    feeds = [pass_kit.feeds(model, seed=s) for s in range(3)]
    outcome = reduced(model, feeds=feeds, pass_=BFLOAT16)
    assert outcome.rewritten == ["a", "q", "r", "y"] and skipped(outcome) == {}
    assert weight_types(outcome.model) == {"BFLOAT16": 4}
    assert casts(outcome.model) == [("FLOAT", "BFLOAT16"), ("BFLOAT16", "FLOAT")]
    evaluator = ReferenceEvaluator(ir.to_proto(outcome.model))
    for feed in feeds:
        (found,), (expected,) = evaluator.run(None, feed), pass_kit.run(model, feed)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=3e-2 * np.abs(expected).max())


def test_constants_are_rounded_to_nearest_even():
    w = np.array([[1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-9, -1 - 2**-8]], np.float32)
    model = pass_kit.parse("g (float[2,1] x) => (float[2,4] y) { y = MatMul(x, w) }", {"w": w})
    (stored,) = reduced(model, pass_=BFLOAT16).model.graph.initializers.values()
    np.testing.assert_array_equal(stored.const_value.numpy().astype(np.float32), [[1, 1 + 2**-6, 1, -1]])


def test_the_lowest_float32_masks_a_softmax():
    text = "g (float[2,4] x, bool[2,4] keep) => (float[2,4] y) { t = Neg(x) s = Where(keep, t, low) y = Softmax(s) }"
    model = pass_kit.parse(text, {"low": np.float32(-3.4028235e38)})
    outcome = reduced(model, pass_=BFLOAT16)
    assert skipped(outcome) == {}
    feed = {**pass_kit.feeds(model), "keep": np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)}
    (found,), (expected,) = ReferenceEvaluator(ir.to_proto(outcome.model)).run(None, feed), pass_kit.run(model, feed)
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_targets_without_it_are_told_why():
    refused = reduced(int8_kit.block(), pass_=BFLOAT16, ctx=context(target=OrtTarget()))
    assert refused.rewritten == []
    assert refused.skipped == {"<model>": "ort: its CPU provider has no bfloat16 kernels for Conv, MatMul or Softmax"}
    old = reduced(int8_kit.block(), pass_=BFLOAT16, ctx=context(target=TensorRtTarget(sm=(75, 89))))
    assert old.skipped == {"<model>": "tensorrt: compute capability 75 has no bfloat16; it begins with 80"}
    assert reduced(int8_kit.block(), pass_=BFLOAT16, ctx=context(target=TensorRtTarget(sm=(80,)))).rewritten


@pytest.mark.parametrize("type_", ["float16", "bfloat16"])
def test_errors_are_those_of_the_format(type_):
    model = int8_kit.text()
    feeds = [pass_kit.feeds(model, seed=s) for s in range(2)]
    pass_ = ReducePrecision(type=type_)
    outcome = reduced(model, feeds=feeds, pass_=pass_)
    errors = pass_.site_errors(model, outcome.model, outcome.rewritten, context(feeds))
    unit = 2.0**-11 if type_ == "float16" else 2.0**-8
    assert set(errors) == set(outcome.rewritten)
    assert all(error < 4 * unit**2 for error in errors.values())
    assert all(error > 0.02 * unit**2 for site, error in errors.items() if site in ("h", "logits", "k"))


@pytest.mark.parametrize("build", [int8_kit.block, int8_kit.text, lambda: pass_kit.parse(WIDE, WIDE_WEIGHTS)])
def test_the_runner_judges_it_as_the_reference_evaluator_does(build):
    model = build()
    feeds = [pass_kit.feeds(model, seed=s, symbol=1) for s in range(2)]
    outcome = reduced(model, feeds=feeds, pass_=BFLOAT16)
    evaluator = ReferenceEvaluator(ir.to_proto(outcome.model))
    with shared_runner().open(outcome.model) as opened:
        for feed in feeds:
            (found,), (expected,), (float_,) = (
                opened.run(feed).values(),
                evaluator.run(None, feed),
                pass_kit.run(model, feed),
            )
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, atol=3e-2 * scale)
            assert np.abs(found - float_).max() > 1e-4 * scale


def test_an_artifact_for_a_gpu_is_judged(tmp_path):
    model = int8_kit.text()
    path = tmp_path / "model.onnx"
    irc_save(model, path)
    feeds = [pass_kit.feeds(model, seed=s) for s in range(8)]
    for index, feed in enumerate(feeds):
        np.savez(tmp_path / f"{index}.npz", **feed)
    report = irc.optimize(
        path, data=tmp_path, passes="reduce-precision{type=bfloat16}", target="tensorrt", output=tmp_path / "out.onnx"
    )
    assert report.exit_code == 0 and len(report.ledger["reduce-precision"].rewritten) == 9
    assert report.accuracy is not None and 0 <= report.accuracy.loss < 0.05
