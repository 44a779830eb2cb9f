"""Weight-only and dynamic int8: no data, standard operators, the same promises."""

from __future__ import annotations

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest

from irc.backends.tensorrt import TensorRtTarget
from irc.passes.quantization.quantize_dynamic import QuantizeDynamic
from irc.passes.quantization.quantize_weights import QuantizeWeights


@pytest.mark.parametrize("form", ["folded", "dequantized"])
@pytest.mark.parametrize("build", [int8_kit.block, int8_kit.text])
def test_weights_are_stored_as_int8(build, form):
    model = build()
    outcome = int8_kit.quantize(model, pass_=QuantizeWeights(form=form, min_elements=64))
    assert outcome.rewritten and outcome.skipped == {}
    assert 0 < int8_kit.noise(model, outcome.model) < 1e-3
    big = [
        v for v in outcome.model.graph.initializers.values() if len(v.shape or ()) > 1 and int(np.prod(v.shape)) > 200
    ]
    assert big and {v.dtype for v in big} == {ir.DataType.INT8}


def test_folded_weights_cost_nothing_at_run_time(tmp_path):
    model = int8_kit.block()
    outcome = int8_kit.quantize(model, pass_=QuantizeWeights(min_elements=64))
    assert int8_kit.runtime_operators(outcome.model, tmp_path) == int8_kit.runtime_operators(model, tmp_path)


def test_auto_form_is_the_targets():
    outcome = int8_kit.quantize(int8_kit.block(), target=TensorRtTarget(), pass_=QuantizeWeights(min_elements=64))
    assert int8_kit.operators(outcome.model)["DequantizeLinear"] == 4 and "Cast" not in int8_kit.operators(
        outcome.model
    )


def test_transposed_convolution_keeps_its_output_channels():
    model = pass_kit.parse("g (float[1,8,4,4] x) => (float y) { y = ConvTranspose(x, w) }", {"w": (8, 6, 3, 3)})
    outcome = int8_kit.quantize(model, pass_=QuantizeWeights(min_elements=64))
    assert outcome.rewritten == ["y"] and int8_kit.noise(model, outcome.model) < 1e-3


def test_small_weights_stay_float():
    outcome = int8_kit.quantize(int8_kit.block(), pass_=QuantizeWeights())
    assert outcome.skipped == {
        "c3": "its weight has fewer than 1024 elements",
        "y": "its weight has fewer than 1024 elements",
    }


def test_dynamic_products(tmp_path):
    model = int8_kit.text()
    outcome = int8_kit.quantize(model, pass_=QuantizeDynamic())
    assert set(outcome.rewritten) == {"e", "h", "o", "logits"}
    assert int8_kit.noise(model, outcome.model) < 5e-3
    found = int8_kit.runtime_operators(outcome.model, tmp_path)
    assert found["DynamicQuantizeMatMul"] + found["MatMulIntegerToFloat"] == 3


@pytest.mark.parametrize("attributes", ["alpha=0.5", "beta=0.25", "transB=1", "alpha=2.0, beta=0.5, transB=1"])
def test_dynamic_gemm_in_every_form(attributes):
    graph = f"g (float[32,32] x) => (float[32,8] y) {{ y = Gemm<{attributes}>(x, w, b) }}"
    model = pass_kit.parse(graph, {"w": (8, 32) if "transB" in attributes else (32, 8), "b": (8,)})
    outcome = int8_kit.quantize(model, pass_=QuantizeDynamic())
    assert outcome.rewritten == ["y"] and int8_kit.noise(model, outcome.model) < 5e-3


def test_dynamic_readers_share_the_quantizer():
    graph = "g (float[2,32] x) => (float[2,16] y) { a = MatMul(x, q) b = MatMul(x, k) y = Mul(a, b) }"
    outcome = int8_kit.quantize(pass_kit.parse(graph, {"q": (32, 16), "k": (32, 16)}), pass_=QuantizeDynamic())
    assert int8_kit.operators(outcome.model)["DynamicQuantizeLinear"] == 1


def test_dynamic_is_refused_where_scales_must_be_constant():
    outcome = int8_kit.quantize(int8_kit.text(), pass_=QuantizeDynamic(), target=TensorRtTarget())
    assert outcome.rewritten == [] and "constant scales only" in outcome.skipped["h"]


def test_convolutions_are_near_misses_without_data():
    outcome = int8_kit.quantize(int8_kit.block(), pass_=QuantizeDynamic())
    assert outcome.rewritten == ["y"] and "give --data" in outcome.skipped["c1"]


def test_dynamic_then_weights_covers_everything():
    model = int8_kit.block()
    first = int8_kit.quantize(model, pass_=QuantizeDynamic())
    second = int8_kit.quantize(first.model, pass_=QuantizeWeights(min_elements=64))
    assert {*first.rewritten, *second.rewritten} == {"c1", "c2", "c3", "y"}
    assert int8_kit.noise(model, second.model) < 5e-3
