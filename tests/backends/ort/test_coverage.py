"""Coverage tells what the runtime does, not what was meant."""

from __future__ import annotations

import int8_kit
import pass_kit
import pytest

from irc.backends.ort import OrtTarget
from irc.ir import save
from irc.ledger import Ledger
from irc.passes.quantization.quantize_dynamic import QuantizeDynamic
from irc.passes.quantization.quantize_weights import QuantizeWeights
from irc.runner import Runner


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as started:
        yield started


def covered(outcome: pass_kit.Outcome, float_model, runner, folder):
    save(outcome.model, folder / "m.onnx")
    nodes = [
        (n.outputs[0].name, n.op_type)
        for n in float_model.graph
        if n.op_type in ("Conv", "Gemm", "MatMul", "Gather", "Add")
    ]
    return OrtTarget().coverage(runner, folder / "m.onnx", nodes, Ledger([outcome.record]))


@pytest.mark.parametrize("build", [int8_kit.block, int8_kit.text])
def test_everything_that_was_meant_is_integer(build, runner, tmp_path):
    model = build()
    coverage = covered(int8_kit.quantize(model), model, runner, tmp_path)
    assert coverage.unmet_intents() == []
    assert all(node.integer for node in coverage.nodes if node.op_type in ("Conv", "Gemm", "MatMul", "Gather"))
    assert "read back from onnxruntime" in coverage.label


def test_a_site_that_the_runtime_does_not_fuse_is_unmet(runner, tmp_path):
    model = int8_kit.block()
    outcome = int8_kit.quantize(model)
    conv = [n for n in outcome.model.graph if n.op_type == "Conv"][1]
    quantize = conv.outputs[0].uses()[0].node
    quantize.outputs[0].uses()[0].node.outputs[0].replace_all_uses_with(conv.outputs[0])
    coverage = covered(outcome, model, runner, tmp_path)
    assert "c2" in {node.site for node in coverage.unmet_intents()}
    assert "c1" not in {node.site for node in coverage.unmet_intents()}


def test_denied_sites_carry_their_reason(runner, tmp_path):
    model = int8_kit.block()
    coverage = covered(int8_kit.quantize(model, deny=lambda site: site == "c2"), model, runner, tmp_path)
    node = next(n for n in coverage.nodes if n.site == "c2")
    assert (node.intended, node.integer, node.reason) == (False, False, "denied")
    assert coverage.count("Conv") == (2, 3)


def test_stored_weights_are_not_integer_arithmetic(runner, tmp_path):
    model = int8_kit.block()
    coverage = covered(int8_kit.quantize(model, pass_=QuantizeWeights(min_elements=64)), model, runner, tmp_path)
    assert coverage.count("Conv")[0] == 0 and coverage.unmet_intents() == []
    assert "stored as int8" in coverage.reasons("Conv")[0]


def test_dynamic_products_are_integer(runner, tmp_path):
    model = int8_kit.text()
    coverage = covered(int8_kit.quantize(model, pass_=QuantizeDynamic()), model, runner, tmp_path)
    assert coverage.count("MatMul") == (3, 3) and coverage.count("Gather") == (1, 1)
