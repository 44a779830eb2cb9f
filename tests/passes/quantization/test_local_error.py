"""The error of a site is its own: compared with quantizing that site alone."""

from __future__ import annotations

import int8_kit
import numpy as np
import pass_kit
import pytest

from irc.backends.ort import OrtTarget
from irc.calibration import open_data
from irc.ir import snapshot
from irc.pass_base import Context
from irc.passes.quantization.quantize import Quantize
from irc.runner import Runner


@pytest.fixture(scope="module")
def runner():
    with Runner(threads=1) as started:
        yield started


@pytest.mark.parametrize("build", [int8_kit.block, int8_kit.text])
def test_every_site_has_an_error_and_sites_do_not_disturb_each_other(build, runner):
    model = build()
    feeds = [pass_kit.feeds(model, seed=s) for s in range(3)]
    full = int8_kit.quantize(model, feeds=feeds)
    context = Context(target=OrtTarget(), runner=runner, data=open_data(feeds, model))
    errors = Quantize().site_errors(model, full.model, full.rewritten, context)
    assert list(errors) == full.rewritten
    assert all(0 < error < 0.05 for error in errors.values())
    for site in full.rewritten:
        if site in ("s", "g"):
            continue  # Add and pooling join only where their inputs are integers
        alone = int8_kit.quantize(model, feeds=feeds, deny=lambda other, site=site: other != site)
        expected = _error_behind(model, alone.model, {"c1": "r1", "c3": "c4"}.get(site, site), feeds)
        assert errors[site] == pytest.approx(expected, rel=0.02), site


def _error_behind(before, after, name: str, feeds) -> float:
    """Error energy at a value, or at its dequantized twin."""
    import onnx_ir as ir

    def observe(model, quantized: bool):
        copy = snapshot(model)
        value = ir.convenience.create_value_mapping(copy.graph)[name]
        users = [use.node for use in value.uses()]
        if quantized and len(users) == 1 and users[0].op_type == "QuantizeLinear":
            value = users[0].outputs[0].uses()[0].node.outputs[0]
        value.type = ir.TensorType(ir.DataType.FLOAT)
        copy.graph.outputs[:] = [value]
        return [pass_kit.run(copy, feed)[0].astype(np.float64) for feed in feeds]

    floats, integers = observe(before, False), observe(after, True)
    return sum(np.sum((a - b) ** 2) for a, b in zip(floats, integers, strict=True)) / sum(np.sum(a**2) for a in floats)


def test_without_data_there_is_no_ranking():
    assert Quantize().site_errors(int8_kit.block(), int8_kit.block(), ["c1"], Context()) is None
