"""Ranges by output error: what shares a scale on purpose goes on sharing it, what shares it by chance does not."""

from __future__ import annotations

import numpy as np
import pass_kit
import pytest
from refinement_kit import Refined, image, initializer, runner, samples, text  # noqa: F401

from irc.backends.ort import OrtTarget
from irc.backends.tensorrt import TensorRtTarget
from irc.decisions import Decisions
from irc.pass_base import Context
from irc.passes.quantization.clip_activations import ClipActivations
from irc.passes.quantization.float_reference import reference
from irc.passes.quantization.integer_layer import integer_layers
from irc.passes.quantization.layer_sample import simulated
from irc.passes.quantization.range_error import RangeError, own_error
from irc.passes.quantization.refinement import layer_error


def scales(model) -> dict[str, float]:
    """Scale of every quantized value, by its name."""
    return {
        node.inputs[0].name: float(node.inputs[1].const_value.numpy())
        for node in model.graph
        if node.op_type == "QuantizeLinear"
    }


@pytest.mark.parametrize("target", [OrtTarget(), TensorRtTarget()], ids=str)
def test_a_large_channel_with_small_weights_is_clipped(target, runner):  # noqa: F811
    refined = Refined(text(), [ClipActivations()], runner, target=target)
    assert "y" in refined.rewritten() and "z" not in refined.rewritten(), "one site stands for the value that both read"
    assert refined.noise() < 0.5 * refined.noise(0)
    before, after = scales(refined.stages[0]), scales(refined.model)
    (value,) = [name for name in before if after[name] < 0.5 * before[name]]
    record = reference(refined.model).sites
    assert record["y"].scale == record["z"].scale
    assert initializer(refined.model, record["y"].scale) == np.float32(after[value])


TWINS = """t (float[N,16] x, float[N,16] x2) => (float[N,8] y, float[N,8] y2) {
  y = MatMul(x, w)
  y2 = MatMul(x2, w2)
}"""


def test_equal_scales_of_two_values_part(runner):  # noqa: F811
    generator = np.random.default_rng(0)
    w, w2 = (generator.normal(size=(16, 8)).astype(np.float32) for _ in range(2))
    w[3] *= 1e-3
    w2[np.arange(16) != 3] *= 1e-3
    model = pass_kit.parse(TWINS, {"w": w, "w2": w2})
    source = samples(model, symbol=40)
    for sample in source:
        sample.feed["x"][:, 3] *= 20
        sample.feed["x2"] = sample.feed["x"].copy()
    refined = Refined(model, [ClipActivations()], runner, source=source)
    before, after = reference(refined.stages[0]).sites, reference(refined.model).sites
    assert before["y"].scale == before["y2"].scale
    assert list(refined.rewritten()) == ["y"]
    assert after["y"].scale != after["y2"].scale == before["y2"].scale
    assert scales(refined.model)["x2"] == scales(refined.stages[0])["x2"]


def test_moved_integers_keep_one_scale_and_a_bias_follows(runner):  # noqa: F811
    refined = Refined(image(), [ClipActivations()], runner)
    before, after = scales(refined.stages[0]), scales(refined.model)
    assert after["r1"] == after["p"] < before["r1"]
    quantizers = [n for n in refined.model.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name in ("r1", "p")]
    assert quantizers[0].inputs[1] is quantizers[1].inputs[1]
    gemm = next(node for node in refined.model.graph if node.op_type == "Gemm")
    bias, record = gemm.inputs[2].producer(), reference(refined.model).sites["y"]
    expected = initializer(refined.model, record.scale) * initializer(refined.model, record.scales)
    np.testing.assert_array_equal(bias.inputs[1].const_value.numpy(), expected)
    exact = pass_kit.weight(image(), "b4")
    np.testing.assert_allclose(bias.inputs[0].const_value.numpy() * expected, exact, atol=expected.max())


def test_an_output_that_only_others_read_is_looked_at_by_itself(runner):  # noqa: F811
    body = "c (float[N,8,16,16] x) => (float[N,8,16,16] y) { c = Conv<pads=[1,1,1,1]>(x, w)  y = Tanh(c) }"
    weight = np.random.default_rng(0).normal(size=(8, 8, 3, 3)).astype(np.float32)
    model = pass_kit.parse(body, {"w": weight})
    source = samples(model, count=4, symbol=1)
    for sample in source:
        sample.feed["x"][..., 0, 0] *= 30
    refined = Refined(model, [ClipActivations()], runner, source=source)
    assert scales(refined.model)["c"] < scales(refined.stages[0])["c"]


def test_a_range_for_readers_is_not_taken_for_one_without_them(runner):  # noqa: F811
    body = """c (float[N,8,8,8] x) => (float[N,8,8,8] y, float[N,8,8,8] z) {
      c = Conv<pads=[1,1,1,1]>(x, w)  y = Conv<pads=[1,1,1,1]>(c, w2)  z = Tanh(c)
    }"""
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=(8, 8, 3, 3)).astype(np.float32) for name in ("w", "w2")}
    model, decisions = pass_kit.parse(body, weights), Decisions()
    source = samples(model, count=4, symbol=1)
    for left in ("", "y"):
        Refined(
            model,
            [ClipActivations()],
            runner,
            source=source,
            target=OrtTarget(),
            decisions=decisions,
            deny=lambda name, site, left=left: name == "quantize" and site == left,
        )
    about = [key.split("/")[1].split("#")[0] for key in decisions]
    assert {"c", "=c"} <= set(about)


def test_the_objective_is_the_error_of_the_layers(runner):  # noqa: F811
    refined = Refined(text(), [], runner)
    layers = list(integer_layers(refined.model, reference(refined.model), Context(target=OrtTarget())))
    readers = [layer for layer in layers if layer.site.id in ("y", "z")]
    rows = np.random.default_rng(1).normal(size=(1, 300, 48)).astype(np.float32)
    seen = lambda x: simulated(x, 0.02, 100, 0, 255)  # noqa: E731
    for layer in readers:
        # One layer alone, so that its weights of rows are those of the sum.
        expected = layer_error(layer, rows, rows_q=seen(rows))
        assert RangeError([(layer, rows)], None).of(seen) == pytest.approx(expected, rel=1e-3)
    both = RangeError([(layer, rows) for layer in readers], rows)
    alone = RangeError([], rows)
    assert alone.of(seen) == pytest.approx(own_error(rows, seen(rows)), rel=1e-3)
    assert both.of(seen) > alone.of(seen)
