"""Embedding tables as int8: which scales, and what happens to shared tables and outputs."""

from __future__ import annotations

import int8_kit
import numpy as np
import onnx_ir as ir
import pass_kit
import pytest

LOOKUP = "g (int64[2,5] ids) => (float[2,5,32] y) { y = Gather(table, ids) }"


def table(kind: str) -> np.ndarray:
    values = pass_kit.numbers("table", (64, 32))
    if kind == "loud rows":
        values[::7] *= np.float32(100)
    if kind == "loud columns":
        values[:, ::7] *= np.float32(100)
    return values


@pytest.mark.parametrize(
    ("kind", "operators"),
    [
        ("even", {"DequantizeLinear"}),
        ("loud columns", {"DequantizeLinear"}),
        ("loud rows", {"Cast", "Unsqueeze", "Mul"}),
    ],
)
def test_scales_follow_the_table(kind, operators):
    model = pass_kit.parse(LOOKUP, {"table": table(kind)})
    outcome = int8_kit.quantize(model)
    assert outcome.rewritten == ["y"]
    assert set(int8_kit.operators(outcome.model)) == {"Gather"} | operators
    assert int8_kit.noise(model, outcome.model, {"ids": np.arange(10).reshape(2, 5)}) < 2e-4
    assert outcome.model.graph.outputs[0].name == "y" and "table" not in outcome.model.graph.initializers


def test_lookups_into_one_table_share_it():
    graph = "g (int64[2,5] i, int64[2,5] j) => (float[2,5,32] y) { a = Gather(table, i) b = Gather(table, j) y = Add(a, b) }"
    outcome = int8_kit.quantize(pass_kit.parse(graph, {"table": table("even")}))
    assert outcome.rewritten == ["a", "b"]
    assert [v.dtype for v in outcome.model.graph.initializers.values() if v.shape == (64, 32)] == [ir.DataType.INT8]


def test_types_of_the_float_model_are_not_touched():
    model = pass_kit.parse(LOOKUP, {"table": table("even")})
    int8_kit.quantize(model)
    assert next(iter(model.graph)).outputs[0].dtype == ir.DataType.FLOAT


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (
            "g (int64[2] ids) => (float[2,32] y, float[64,32] z) { y = Gather(table, ids) z = Relu(table) }",
            "also used by Relu",
        ),
        ("g (int64[2] ids) => (float[64,2] y) { y = Gather<axis=1>(table, ids) }", None),
    ],
)
def test_other_uses(graph, reason):
    outcome = int8_kit.quantize(pass_kit.parse(graph, {"table": table("even")}))
    assert outcome.rewritten == []
    assert (reason is None) == (outcome.skipped == {})
    assert reason is None or reason in outcome.skipped["y"]
