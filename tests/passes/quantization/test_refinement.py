"""What all refinements of a quantized model promise, whichever they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pass_kit
import pytest
from refinement_kit import Refined, assert_replays, image, initializer, runner, samples, text  # noqa: F401

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.decisions import Decisions
from irc.errors import UsageError
from irc.pass_base import Context, Contract
from irc.passes.quantization.clip_activations import ClipActivations
from irc.passes.quantization.correct_bias import CorrectBias
from irc.passes.quantization.float_reference import amended, reference
from irc.passes.quantization.integer_layer import NOT_QUANTIZED
from irc.passes.quantization.round_weights import RoundWeights
from irc.passes.quantization.scale_weights import ScaleWeights

PASSES = [ClipActivations(), ScaleWeights(), RoundWeights(), CorrectBias()]
TARGETS = [OrtTarget(), OrtTarget(cpu="avx2"), TensorRtTarget()]


@pytest.mark.parametrize("pass_", PASSES, ids=lambda p: p.name)
def test_a_float_model_is_left_alone(pass_):
    assert pass_kit.assert_untouched(pass_, text()) == {"<model>": NOT_QUANTIZED}
    assert pass_.contract is Contract.APPROXIMATE and pass_.refines


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("build", [text, image])
def test_all_together_lower_the_error_and_replay(build, target, runner):  # noqa: F811
    refined = Refined(build(), PASSES, runner, target=target)
    assert sum(bool(record.rewritten) for record in refined.records[1:]) >= 2
    assert refined.noise() < 0.9 * refined.noise(0)
    assert_replays(refined, PASSES, target=target)


@pytest.mark.parametrize("pass_", PASSES, ids=lambda p: p.name)
@pytest.mark.parametrize("build", [text, image])
def test_a_second_time_there_is_nothing_to_gain(build, pass_, runner):  # noqa: F811
    refined = Refined(build(), [pass_, pass_], runner)
    assert not refined.rewritten()
    assert all(
        "would not fall" in reason or "adds" in reason or "added" in reason for reason in refined.skipped().values()
    )


@pytest.mark.parametrize("pass_", PASSES, ids=lambda p: p.name)
def test_what_is_said_is_measured_on_other_samples(pass_, runner):  # noqa: F811
    refined = Refined(text(), [pass_], runner)
    for reason in refined.rewritten().values():
        before, after = (float(part.split(" %")[0].split()[-1]) for part in reason.split(" -> "))
        assert after <= 0.99 * before and reason.endswith("% on held-out samples")


@pytest.mark.parametrize("pass_", PASSES, ids=lambda p: p.name)
def test_a_site_is_decided_the_same_without_the_others(pass_, runner):  # noqa: F811
    full = Refined(text(), [pass_], runner)
    alone = Refined(text(), [pass_], runner, deny=lambda name, site: name == "quantize" and site == "h")
    for site in ("y", "z"):
        assert full.rewritten().get(site) == alone.rewritten().get(site)
    assert "h" not in alone.rewritten()


def test_without_data_nothing_can_be_decided():
    quantized = Refined(text(), [], None)
    with pytest.raises(UsageError, match="clip-activations: needs data"):
        list(ClipActivations().sites(quantized.model, Context(target=OrtTarget())))
    with pytest.raises(UsageError, match="no decision"):
        planned = Context(target=OrtTarget(), decisions=Decisions(planned={}))
        list(ClipActivations().sites(quantized.model, planned))


BODY = """b (float[N,16] x, bool on) => (float[N,16] y) {
  h = MatMul(x, w1)
  y = If(on) <
    then_branch = t () => (float[N,16] u) { r = Relu(h)  u = MatMul(r, w2) },
    else_branch = e () => (float[N,16] v) { v = Identity(h) }
  >
}"""


def test_a_layer_in_a_body_is_left_alone(runner):  # noqa: F811
    model = pass_kit.parse(BODY, {"w1": (16, 16), "w2": (16, 16)})
    source = samples(model)
    for sample in source:
        sample.feed["on"] = np.array(True)
    refined = Refined(model, [ScaleWeights()], runner, source=source)
    assert set(refined.rewritten(0)) == {"h", "u"}
    assert "is a value of a body" in refined.skipped()["u"]


def test_a_copy_remembers_what_it_was():
    quantized = Refined(text(), [], None)
    copied = quantized.stages[0]
    site = reference(copied).sites["y"]
    amended(copied, dataclasses.replace(site, scale="other"))
    assert reference(copied).sites["y"].scale == "other"
    assert reference(quantized.model).sites["y"].scale == site.scale


def test_what_is_remembered_names_what_is_there(runner):  # noqa: F811
    refined = Refined(text(), PASSES, runner)
    values = refined.model.graph.initializers
    for site in reference(refined.model).sites.values():
        assert {site.scale, site.zero_point, site.stored, site.scales} <= set(values)
        assert initializer(refined.model, site.stored).shape == tuple(site.weight.shape)


def test_no_error_at_all_is_nothing_to_lower(runner):  # noqa: F811
    """Weights of zeros are exact in any number of bits: the ledger must not tell of a gain from 0 % to 0 %."""
    zeros = text()
    for value in zeros.graph.initializers.values():
        if len(value.shape or ()) == 2:
            value.const_value = ir.tensor(np.zeros_like(value.const_value.numpy()), name=value.name)
    refined = Refined(zeros, [ClipActivations(), ScaleWeights(), RoundWeights()], runner)
    assert not any(record.rewritten for record in refined.records[1:])
