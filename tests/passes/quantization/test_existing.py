"""A model that somebody quantized already: recognised in every spelling, left alone, unharmed by the lossless level."""

from __future__ import annotations

import int8_kit
import numpy as np
import onnx
import onnx_ir as ir
import pass_kit
import pytest
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import irc
from irc.backends.ort import OrtTarget
from irc.ir import load, save
from irc.pass_base import Context
from irc.pass_manager import PassManager
from irc.passes.quantization.quantize import Quantize
from irc.passes.quantization.quantize_dynamic import QuantizeDynamic
from irc.passes.quantization.quantize_weights import QuantizeWeights
from irc.recipe import LOSSLESS

PASSES = [Quantize(), QuantizeDynamic(), QuantizeWeights(min_elements=64), QuantizeWeights(form="dequantized")]
STATIC = {
    "qdq": {"quant_format": QuantFormat.QDQ},
    "qdq-per-channel": {"quant_format": QuantFormat.QDQ, "per_channel": True, "activation_type": QuantType.QInt8},
    "qoperator": {"quant_format": QuantFormat.QOperator},
}
PRODUCTS = "g (float[2,32] x) => (float[2,32] y) { a = MatMul(x, w) b = Tanh(a) y = MatMul(b, v) }"


class _Reader(CalibrationDataReader):
    def __init__(self, model):
        self._feeds = iter([pass_kit.feeds(model, seed=seed) for seed in range(4)])

    def get_next(self):
        return next(self._feeds, None)


def quantized_by_ort(model, folder, how):
    """The file that ONNX Runtime's quantizer makes of a model."""
    source, target = folder / "float.onnx", folder / f"{how}.onnx"
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    onnx.save(proto, source)
    if how == "dynamic":
        quantize_dynamic(source, target)
    else:
        quantize_static(source, target, _Reader(model), **STATIC[how])
    return target


@pytest.mark.parametrize("pass_", PASSES, ids=str)
@pytest.mark.parametrize("how", [*STATIC, "dynamic"])
@pytest.mark.parametrize("build", [int8_kit.block, int8_kit.text])
def test_a_quantized_model_is_left_alone_as_a_whole(build, how, pass_, tmp_path):
    model = load(quantized_by_ort(build(), tmp_path, how))
    outcome = int8_kit.quantize(model, pass_=pass_)
    assert outcome.rewritten == [] and list(outcome.skipped) == ["<model>"]
    assert "the model is already quantized (" in outcome.skipped["<model>"]
    assert pass_kit.text(outcome.model) == pass_kit.text(model)


def test_the_reason_counts_operators(tmp_path):
    model = load(quantized_by_ort(int8_kit.block(), tmp_path, "qdq"))
    reason = int8_kit.quantize(model).skipped["<model>"]
    assert reason == "the model is already quantized (3 of 3 Conv, 1 of 1 Gemm); irc leaves it alone"


@pytest.mark.parametrize("first", PASSES, ids=str)
@pytest.mark.parametrize("second", PASSES, ids=str)
def test_what_irc_wrote_is_left_alone_when_it_is_read_again(first, second, tmp_path):
    outcome = int8_kit.quantize(pass_kit.parse(PRODUCTS, {"w": (32, 32), "v": (32, 32)}), pass_=first)
    assert outcome.rewritten == ["a", "y"]
    save(outcome.model, tmp_path / "artifact.onnx")
    again = int8_kit.quantize(load(tmp_path / "artifact.onnx"), pass_=second)
    assert again.rewritten == [] and "2 of 2 MatMul" in again.skipped["<model>"]


@pytest.mark.parametrize("how", [*STATIC, "dynamic"])
@pytest.mark.parametrize("build", [int8_kit.block, int8_kit.text])
def test_lossless_passes_keep_pairs_kernels_and_outputs(build, how, tmp_path):
    model = load(quantized_by_ort(build(), tmp_path, how))
    result = PassManager([LOSSLESS], verify=False).run(model, Context(target=OrtTarget())).model
    before, after = int8_kit.operators(model), int8_kit.operators(result)
    for op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "QLinearConv"):
        assert before[op_type] == after[op_type]
    assert int8_kit.runtime_operators(model, tmp_path) == int8_kit.runtime_operators(result, tmp_path)
    assert int8_kit.noise(model, result) == 0


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_levels_leave_a_quantized_file_as_it_is(level, tmp_path):
    path = quantized_by_ort(int8_kit.block(), tmp_path, "qdq")
    model = load(path)
    samples = [pass_kit.feeds(int8_kit.block(), seed=seed) for seed in range(4)]
    out = tmp_path / "out.onnx"
    report = irc.optimize(path, level=level, data=samples, output=out, measure=False, threads=1)
    artifact = load(out)
    assert not [entry for record in report.ledger if record.contract == "approximate" for entry in record.rewritten]
    assert int8_kit.noise(model, artifact) == 0
    assert int8_kit.runtime_operators(model, tmp_path) == int8_kit.runtime_operators(artifact, tmp_path)


@pytest.mark.parametrize("pass_", PASSES, ids=str)
def test_of_a_mostly_float_model_the_rest_is_quantized(pass_):
    lines = [f"a{i + 1} = MatMul(a{i}, w{i})" for i in range(1, 4)]
    graph = f"""g (float[2,64] x) => (float[2,64] y) {{
      q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wd = DequantizeLinear<axis=1>(wq, ws)
      a1 = MatMul(d, wd) {" ".join(lines)} y = Tanh(a4) }}"""
    weights = {f"w{i}": (64, 64) for i in range(1, 4)} | {
        "s": np.float32(0.05), "z": np.uint8(128), "ws": np.full(64, 0.01, "float32"),
        "wq": pass_kit.numbers("wq", (64, 64)).astype("int8"),
    }  # fmt: skip
    outcome = int8_kit.quantize(pass_kit.parse(graph, weights), pass_=pass_)
    assert outcome.rewritten == ["a2", "a3", "a4"]
    assert outcome.skipped == {"a1": "it is already quantized"}


def test_what_irc_quantized_in_this_pipeline_does_not_count():
    first = int8_kit.quantize(int8_kit.block(), deny=lambda site: site == "y")
    second = int8_kit.quantize(first.model, pass_=QuantizeWeights(min_elements=64))
    assert second.rewritten == ["y"]
