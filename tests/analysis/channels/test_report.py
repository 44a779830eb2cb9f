"""The document of channel groups: what families are, who makes and reads them, what is pinned and why."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx_ir as ir
import pytest
from channel_graphs import convolutional, gated, grouped, recurrent, transformer
from channel_kit import MODES, model_of, random_weight

from irc.analysis.channels import report
from irc.analysis.channels.report import describe_channels
from irc.errors import UsageError


def kinds(document):
    return {
        family["name"]: (family["kind"], family["width"], family["cells"], family["features"])
        for family in document["families"]
    }


def test_families_of_a_transformer():
    document = describe_channels(transformer(1))
    assert kinds(document) == {
        "s0": ("residual stream", 16, 1, 1), "q0": ("heads", 4, 1, 4), "up0": ("neurons", 32, 1, 1),
    }  # fmt: skip
    stream, heads, neurons = document["families"]
    assert stream["made_by"] == ["s0", "o0", "d0"] and stream["read_by"] == ["q0", "k0", "v0", "up0", "y"]
    assert heads["made_by"] == ["q0", "k0", "v0"] and heads["read_by"] == ["o0"] and heads["passed_by"] == ["sc0", "a0"]
    assert [stream["exact"], heads["exact"], neurons["exact"]] == [False, True, True]
    assert "LayerNormalization 'n0'" in stream["statistics"][0]["text"] and not heads["statistics"]


def test_columns_of_heads_are_dimensions():
    assert kinds(describe_channels(transformer(1), mode="columns")) == {
        "s0": ("residual stream", 16, 1, 1), "q0": ("query/key dimensions", 4, 4, 1),
        "v0": ("value dimensions", 4, 4, 1), "up0": ("neurons", 32, 1, 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    "model, mode, expected",
    [
        (convolutional, "rows", {"s0": ("residual stream", 8, 1, 1), "e0": ("channels", 24, 1, 1), "e1": ("channels", 24, 1, 1)}),
        (recurrent, "rows", {"h": ("hidden units", 6, 1, 1)}),
        (gated, "columns", {"a": ("gated neurons", 20, 1, 1)}),
        (grouped, "rows", {"a": ("convolution groups", 3, 1, 4)}),
        (grouped, "columns", {"a": ("channels", 4, 3, 1), "c": ("channels", 4, 3, 1)}),
    ],
)  # fmt: skip
def test_kinds(model, mode, expected):
    assert kinds(describe_channels(model(), mode=mode)) == expected


def test_operators_tell_what_they_do():
    document = describe_channels(convolutional(1))
    rows = {row["node"]: row for row in document["operators"]}
    assert list(rows) == ["s0", "e0", "f0", "p0", "logits"]
    assert [rows["f0"][key] for key in ("label", "makes", "reads", "passes")] == ["Conv 3x3 depthwise", [], [], ["e0"]]
    assert [rows["p0"][key] for key in ("inputs", "outputs", "makes", "reads")] == [24, 8, ["s0"], ["e0"]]
    assert rows["e0"]["macs"] == 64 * 8 * 24
    assert [(pin["side"], pin["kind"]) for pin in rows["s0"]["pinned"]] == [("in", "free axis")]
    assert [(pin["side"], pin["kind"]) for pin in rows["logits"]["pinned"]] == [("out", "graph output")]
    assert rows["f0"]["pinned"] == []  # a kernel is no news


def test_an_operator_that_reads_the_stream_it_writes():
    text = """g (float[batch,3,4,4] x) => (float[batch,2,4,4] y) {
      s = Conv(x, stem) r = Relu(s) c = Conv(r, block) t = Add(s, c) y = Conv(t, head) }"""
    weights = {"stem": random_weight(6, 3, 1, 1), "block": random_weight(6, 6, 1, 1), "head": random_weight(2, 6, 1, 1)}
    document = describe_channels(model_of(text, weights))
    assert kinds(document) == {"s": ("residual stream", 6, 1, 1)}
    block = document["operators"][1]
    assert (block["makes"], block["reads"], block["passes"]) == (["s"], ["s"], [])


def test_totals_and_worth():
    document = describe_channels(gated())
    [family] = document["families"]
    assert document["macs"] == {"total": 480, "in_families": 480, "at_half": 240, "least": 24}
    assert document["parameters"] == {"total": 480, "in_families": 480, "at_half": 240, "least": 24}
    assert document["bytes"] == {"total": 1920, "at_half": 960}
    assert family["step"] == {"macs": 24, "parameters": 24} and family["half"] == {"macs": 240, "parameters": 240}


def test_pins_by_kind():
    document = describe_channels(convolutional(1))
    rows = {row["kind"]: row for row in document["pinned"]}
    assert set(rows) == {"graph output", "kernel axis", "model input"}
    assert [rows[kind]["trivial"] for kind in ("graph output", "kernel axis", "model input")] == [False, True, True]
    assert rows["graph output"]["coordinates"] == 5 and rows["graph output"]["parameters"] == 40
    assert rows["graph output"]["out_of_reach"] == 0  # the stream cuts the other axis
    assert rows["graph output"]["examples"] == ["it reaches the output 'logits' of the model"]
    assert len(document["pinned_axes"]) == sum(row["axes"] for row in document["pinned"])


def test_a_stream_that_reaches_an_output_is_one_pinned_group_until_it_is_allowed():
    text = """g (float[batch,3] x) => (float[batch,6] y) {
      s = MatMul(x, a) u = MatMul(s, up) r = Relu(u) d = MatMul(r, down) y = Add(s, d) }"""
    weights = {"a": random_weight(3, 6), "up": random_weight(6, 10), "down": random_weight(10, 6)}
    document = describe_channels(model_of(text, weights))
    [group] = document["pinned_groups"]
    assert (group["name"], group["size"], group["kind"], group["axes"]) == ("pinned:s", 6, "graph output", 3)
    sides = [[(pin["side"], pin["group"]) for pin in row["pinned"]] for row in document["operators"]]
    assert sides == [[("in", ""), ("out", "pinned:s")], [("in", "pinned:s")], [("out", "pinned:s")]]
    allowed = describe_channels(model_of(text, weights), allow_outputs=["y"])
    assert kinds(allowed)["s"] == ("residual stream", 6, 1, 1) and not allowed["pinned_groups"]
    assert allowed["allowed_outputs"] == ["y"]


def test_an_output_that_is_not_there():
    with pytest.raises(
        UsageError, match=r"--allow-output logit: the model has no such output; did you mean 'logits'\?"
    ):
        describe_channels(convolutional(1), allow_outputs=["logit"])


def test_operators_without_a_rule_cost_coverage_only():
    text = """g (float[batch,4] x) => (float[batch,3] y) {
      a = MatMul(x, w1) b = com.microsoft.Unheard(a) y = MatMul(b, w2) }"""
    model = model_of(text, {"w1": random_weight(4, 6), "w2": random_weight(6, 3)})
    document = describe_channels(model)
    assert not document["families"] and document["macs"]["in_families"] == 0
    assert document["macs"]["at_half"] == document["macs"]["total"]


@pytest.mark.parametrize("mode", MODES)
def test_the_document_is_json_and_the_same_every_time(mode):
    one, two = (json.dumps(describe_channels(transformer(2), mode=mode), allow_nan=False) for _ in range(2))
    assert one == two


def test_every_field_is_documented_and_always_there():
    documented = set(re.findall(r"^    (\w+(?:, \w+)*)  ", report.__doc__ or "", re.MULTILINE))
    empty = model_of("g (float[4] x) => (float[4] y) { y = Relu(x) }", {})
    for model in (transformer(1), recurrent(), empty):
        assert set(describe_channels(model)) == {name for names in documented for name in names.split(", ")}


def test_every_parameter_is_in_a_family_or_pinned():
    document = describe_channels(transformer(2))
    named = {axis["initializer"] for family in document["families"] for axis in family["axes"]}
    named |= {axis["initializer"] for axis in document["pinned_axes"]}
    model: ir.Model = transformer(2)
    floats = {name for name, value in model.graph.initializers.items() if value.dtype == ir.DataType.FLOAT}
    assert named == floats


def test_half_precision_counts_half_the_bytes():
    text = "g (float16[batch,4] x) => (float16[batch,3] y) { a = MatMul(x, w1) y = MatMul(a, w2) }"
    weights = {"w1": random_weight(4, 6).astype(np.float16), "w2": random_weight(6, 3).astype(np.float16)}
    assert describe_channels(model_of(text, weights))["bytes"] == {"total": 84, "at_half": 42}
