"""Attention products, MatMul of two activations: integer when asked for, and only then."""

from __future__ import annotations

import int8_kit
import pass_kit
import pytest

import irc
from irc.backends.tensorrt import TensorRtTarget
from irc.ir import save
from irc.passes.quantization.quantize import Quantize

ATTENTION = """g (float[1,16,32] x) => (float[1,16,32] y) {
  q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
  t = Transpose<perm=[0,2,1]>(k) scores = MatMul(q, t) p = Softmax<axis=-1>(scores) y = MatMul(p, v) }"""
WEIGHTS = {"wq": (32, 32), "wk": (32, 32), "wv": (32, 32)}
LIMIT = 5e-3


def attention():
    """Scores and their use, every value a few units large."""
    return pass_kit.parse(ATTENTION, {name: pass_kit.numbers(name, shape) * 0.3 for name, shape in WEIGHTS.items()})


@pytest.mark.parametrize("target", [None, TensorRtTarget()], ids=str)
def test_products_are_integer_when_asked_for(target, tmp_path):
    model = attention()
    outcome = int8_kit.quantize(model, pass_=Quantize(products=True), target=target)
    assert outcome.rewritten == ["q", "k", "v", "scores", "y"]
    assert 0 < int8_kit.noise(model, outcome.model) < (LIMIT if target is None else 3e-2)
    if target is None:
        found = int8_kit.runtime_operators(outcome.model, tmp_path)
        assert found["QLinearMatMul"] == 3 and found["MatMulIntegerToFloat"] == 2
    assert int8_kit.quantize(outcome.model, pass_=Quantize(products=True)).rewritten == []


def test_products_are_float_by_default():
    outcome = int8_kit.quantize(attention())
    assert outcome.rewritten == ["q", "k", "v"] and outcome.skipped == {}


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ("g (float[2,1,32] x, float[2,32,8] z) => (float y) { y = MatMul(x, z) }", "is a vector"),
        ("g (float[32] x, float[2,32,8] z) => (float y) { y = MatMul(x, z) }", "is a vector"),
        ("g (double[2,8,32] x, double[2,32,8] z) => (double y) { y = MatMul(x, z) }", "not known to be FLOAT"),
    ],
)
def test_near_misses_say_why(graph, reason):
    outcome = int8_kit.quantize(pass_kit.parse(graph), pass_=Quantize(products=True))
    assert outcome.rewritten == [] and reason in outcome.skipped["y"]


def test_coverage_counts_them_as_integer(tmp_path):
    model = attention()
    save(model, tmp_path / "m.onnx")
    samples = [pass_kit.feeds(model, seed=seed) for seed in range(4)]
    report = irc.optimize(
        tmp_path / "m.onnx",
        passes="quantize{products=true}",
        data=samples,
        output=tmp_path / "o.onnx",
        measure=False,
        threads=1,
    )
    assert report.coverage.count() == (5, 5)
