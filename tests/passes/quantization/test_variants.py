"""Every variant of a site that quantize offers computes what the float operator does, as far as its integers allow."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest

from irc import targets
from irc.calibration.data import FeedList, Sample
from irc.pass_base import Context
from irc.pass_manager import PassManager
from irc.passes.quantization.quantize import Quantize
from irc.runner import Runner

GRAPH = """g (float[n,64] x) => (float[n,16] y) {
    a = MatMul(x, w0) b = Relu(a) t = Transpose<perm=[1,0]>(v) c = MatMul(b, t) d = Relu(c) y = Gemm<transB=1>(d, w2, bias)
}"""
SHAPES = {"w0": (64, 32), "v": (48, 32), "w2": (16, 48), "bias": (16,)}
SITES = ("a", "c", "y")
LOSS = {
    "min-max": 0.03,
    "mean": 0.12,
    "percentile": 0.03,
    "entropy": 0.05,
    "dynamic": 0.03,
    "weight-only": 0.02,
    "float16": 2e-3,
}


@pytest.fixture(scope="module")
def runner():
    with Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def model():
    return pass_kit.parse(GRAPH, SHAPES)


def feeds():
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal((4, 64)).astype(np.float32)} for _ in range(12)]


def context(runner, **options):
    source = FeedList([Sample(feed, {}, str(i)) for i, feed in enumerate(feeds())])
    return Context(target=targets.parse("ort"), data=source, runner=runner, **options)


def build(model, runner, choices):
    return PassManager([Quantize()], verify=False).run(model, context(runner, choices=choices))


def outputs(runner, model):
    with runner.open(model, optimization="none") as opened:
        return np.stack([opened.run(feed)["y"] for feed in feeds()])


def test_every_weighted_operator_has_every_variant(model, runner):
    prepared = PassManager(["raise-opset", "infer-shapes"], verify=False).run(model, context(runner)).model
    found = Quantize(calibrator="entropy").variants(prepared, context(runner))
    names = ("min-max", "mean", "percentile", "mse", "dynamic", "weight-only", "float16")
    assert found == dict.fromkeys(SITES, names)


def test_a_runtime_that_folds_nothing_stores_nothing(model, runner):
    prepared = PassManager(["raise-opset", "infer-shapes"], verify=False).run(model, context(runner)).model
    ctx = dataclasses.replace(context(runner), target=targets.parse("tensorrt"))
    assert Quantize().variants(prepared, ctx) == dict.fromkeys(SITES, ("min-max", "mean", "percentile", "entropy"))


@pytest.mark.parametrize("name", LOSS)
def test_a_variant_is_close_to_float(model, runner, name):
    result = build(model, runner, {f"quantize/{site}": name for site in SITES})
    assert {entry.site for entry in result.ledger["quantize"].rewritten} == set(SITES)
    before, after = outputs(runner, model), outputs(runner, result.model)
    error = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert 0 < error < LOSS[name]


def test_variants_mix_in_one_model(model, runner):
    result = build(model, runner, {"quantize/a": "dynamic", "quantize/y": "float16"})
    operators = [node.op_type for node in result.model.graph]
    assert operators.count("MatMulInteger") == 1 and operators.count("QuantizeLinear") == 1
    halves = [v for v in result.model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT16]
    assert [list(v.shape) for v in halves] == [[16, 48]]
    before, after = outputs(runner, model), outputs(runner, result.model)
    assert np.linalg.norm(after - before) < 0.05 * np.linalg.norm(before)


def test_one_value_has_one_range_where_sites_that_read_it_differ(runner):
    text = "g (float[n,64] x) => (float[n,16] y, float[n,16] z) { y = MatMul(x, u) z = MatMul(x, v) }"
    model = pass_kit.parse(text, {"u": (64, 16), "v": (64, 16)})
    first = build(model, runner, {"quantize/y": "min-max", "quantize/z": "percentile"})
    same = build(model, runner, {"quantize/y": "min-max", "quantize/z": "min-max"})
    assert sum(node.op_type == "QuantizeLinear" for node in first.model.graph) == 1
    scales = [
        [v.const_value.numpy().tolist() for v in m.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
        for m in (first.model, same.model)
    ]
    assert scales[0] == scales[1]


def test_a_weight_beyond_float16_is_skipped_with_the_figure(runner):
    model = pass_kit.parse("g (float[n,64] x) => (float[n,16] y) { y = MatMul(x, u) }", {"u": (64, 16)})
    weight = model.graph.initializers["u"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1e6), name="u")
    result = build(model, runner, {"quantize/y": "float16"})
    (skipped,) = result.ledger["quantize"].skipped
    assert "float16 holds 65504" in skipped.reason
