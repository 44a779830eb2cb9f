"""raise-opset: weights, overridable ones, bodies, metadata and the versions come out as they went in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_kit import apply, feeds, op_types, parse, run, weight

from irc.passes.simplification.raise_opset import RaiseOpset

HEAD = "g (float[n,64] x) => (float[n,64] y) { h = MatMul(x, w) s = Softmax<axis=1>(h) y = Add(s, b) }"
WEIGHTS = {"w": np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64), "b": np.arange(64, dtype=np.float32)}


def assert_same(before: ir.Model, after: ir.Model) -> None:
    feed = feeds(before)
    for expected, found in zip(run(before, feed), run(after, feed), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_large_and_small_weights_come_back() -> None:
    model = parse(HEAD, WEIGHTS, opset=11, ir_version=6)
    outcome = apply(RaiseOpset(), model)
    assert outcome.rewritten == ["<model>"]
    after = outcome.model
    assert after.graph.opset_imports[""] == 13 and after.ir_version == 7
    assert [value.name for value in after.graph.inputs] == ["x"]
    assert np.shares_memory(weight(after, "w"), weight(model, "w")), "a large weight is not copied"
    np.testing.assert_array_equal(weight(after, "b"), WEIGHTS["b"])
    assert_same(model, after)


@pytest.mark.parametrize("name", ["w", "b"])
def test_what_callers_may_override_stays_so(name: str) -> None:
    shape = "float[64,64] w" if name == "w" else "float[64] b"
    model = parse(HEAD.replace("x)", f"x, {shape})", 1), WEIGHTS, opset=11)
    after = apply(RaiseOpset(), model).model
    assert [value.name for value in after.graph.inputs] == ["x", name]
    np.testing.assert_array_equal(weight(after, name), WEIGHTS[name])
    assert_same(model, after)
    other = {**feeds(model), name: WEIGHTS[name][::-1].copy()}
    np.testing.assert_allclose(run(after, other)[0], run(model, other)[0], rtol=1e-6)


def test_an_input_without_a_value_stays_an_input() -> None:
    model = parse("g (float[n,64] x, float[64] b) => (float[n,64] y) { y = Add(x, b) }", opset=11)
    after = apply(RaiseOpset(), model).model
    assert [value.name for value in after.graph.inputs] == ["x", "b"] and not after.graph.initializers


@pytest.mark.parametrize("opset", [13, 14, 17])
def test_what_is_new_enough_stays(opset: int) -> None:
    outcome = apply(RaiseOpset(), parse(HEAD, WEIGHTS, opset=opset))
    assert outcome.rewritten == [] and outcome.model.graph.opset_imports[""] == opset


def test_the_version_of_the_file_is_never_lowered() -> None:
    assert apply(RaiseOpset(), parse(HEAD, WEIGHTS, opset=11, ir_version=9)).model.ir_version == 9


def test_a_model_of_other_domains_alone_stays() -> None:
    model = parse("g (float[n] x) => (float[n] y) { y = custom.Mystery(x) }", opset=11)
    del model.graph.opset_imports[""]
    assert apply(RaiseOpset(), model).rewritten == []


def test_nodes_keep_what_is_known_of_them() -> None:
    model = parse(HEAD, WEIGHTS, opset=11)
    for node in model.graph:
        node.metadata_props["irc.module"] = f"block.{node.op_type}"
    after = apply(RaiseOpset(), model).model
    known = {node.op_type: node.metadata_props.get("irc.module") for node in after.graph}
    assert known["MatMul"] == "block.MatMul" and known["Add"] == "block.Add"


def test_weights_of_bodies_come_back() -> None:
    text = """g (bool c, float[n,64] x) => (float[n,64] y) {
    y = If(c) <then_branch = t () => (float[n,64] p) { p = MatMul(x, w) }, else_branch = e () => (float[n,64] q) { q = Neg(x) }> }"""
    model = parse(text, {"w": WEIGHTS["w"]}, opset=11)
    node = next(iter(model.graph))
    body = node.attributes["then_branch"].as_graph()
    stored = model.graph.initializers.pop("w")
    body.register_initializer(stored)
    after = apply(RaiseOpset(), model).model
    assert [value.name for value in after.graph.inputs] == ["c", "x"]
    assert sorted(op_types(after)) == ["If", "MatMul", "Neg"]
    for taken in (True, False):
        feed = {**feeds(model), "c": np.array(taken)}
        np.testing.assert_array_equal(run(after, feed)[0], run(model, feed)[0])
