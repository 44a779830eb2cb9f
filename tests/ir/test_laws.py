"""Laws that hold for every model: what is saved is what is loaded, and edits keep the interface and the numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ir_graphs import model_proto, run_reference
from onnx import helper

from irc.ir import (
    bypass,
    check,
    interface,
    load,
    normalize,
    refresh_shapes,
    remove_dead,
    replace_value,
    save,
    snapshot,
)
from irc.runner.portable import WeightStore
from irc.runner.session import open_session

UNARY = ("Identity", "Neg", "Abs", "Relu", "Tanh")
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
X = {"x": np.array([[-1.5, 0.0, 2.0]], np.float32)}


@st.composite
def models(draw: st.DrawFn, *, repeated_names: bool = False) -> onnx.ModelProto:
    """A random graph over x (N, 3): unary and binary nodes, weights (some equal in size), an If that captures, dead ends."""
    available = ["x"]
    weights = {}
    for i in range(draw(st.integers(0, 3))):
        size = draw(st.sampled_from([(3,), (1, 3), (1,)]))
        weights[f"w{i}"] = np.array(draw(st.lists(st.integers(-3, 3), min_size=3, max_size=3)), np.float32)[
            : size[-1]
        ].reshape(size)
        available.append(f"w{i}")
    nodes = []
    for i in range(draw(st.integers(1, 9))):
        name = f"v{draw(st.integers(0, i)) if repeated_names else i}"
        kind = draw(st.sampled_from(["unary", "binary", "constant", "if"]))
        one, other = draw(st.sampled_from(available)), draw(st.sampled_from(available))
        if kind == "unary":
            nodes.append(helper.make_node(draw(st.sampled_from(UNARY)), [one], [name]))
        elif kind == "binary":
            nodes.append(helper.make_node(draw(st.sampled_from(["Add", "Mul", "Sub"])), [one, other], [name]))
        elif kind == "constant":
            nodes.append(helper.make_node("Constant", [], [name], value_floats=[1.0, 2.0, float(i)]))
        else:
            nodes.append(helper.make_node("ReduceMax", [one], [f"{name}_m{i}"], keepdims=0))
            nodes.append(helper.make_node("Cast", [f"{name}_m{i}"], [f"{name}_c{i}"], to=onnx.TensorProto.BOOL))
            bodies = [
                helper.make_graph(
                    [helper.make_node("Neg", [source], [f"{name}_b"])],
                    "body",
                    [],
                    [helper.make_tensor_value_info(f"{name}_b", 1, None)],
                )
                for source in (one, other)
            ]
            nodes.append(helper.make_node("If", [f"{name}_c{i}"], [name], then_branch=bodies[0], else_branch=bodies[1]))
        available.append(name)
    computed = list(dict.fromkeys(name for name in available if name.startswith("v")))
    outputs = draw(st.lists(st.sampled_from(computed), min_size=1, max_size=3, unique=True))
    proto = model_proto(nodes, {"x": ["N", 3]}, dict.fromkeys(outputs), weights)
    for key in draw(st.lists(st.sampled_from(["b", "a", "c"]), unique=True)):
        proto.metadata_props.add(key=key, value="1")
    return proto


def frozen(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString()


def numbers(model: ir.Model) -> list[np.ndarray]:
    return run_reference(ir.to_proto(model), X)


def assert_same_numbers(model: ir.Model, want: list[np.ndarray]) -> None:
    for got, expected in zip(numbers(model), want, strict=True):
        np.testing.assert_array_equal(got, expected)


@QUICK
@given(models(), st.sampled_from([None, 0]))
def test_loading_what_was_saved_gives_the_same_model(proto: onnx.ModelProto, threshold: int | None) -> None:
    model = normalize(proto)
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name) / "first.onnx", Path(name) / "second.onnx"
        save(model, first, external_threshold=threshold)
        again = load(first)
        save(again, second, external_threshold=threshold)
        assert second.read_bytes() == first.read_bytes()
        assert interface(again) == interface(model)
        assert_same_numbers(again, numbers(model))


@QUICK
@given(models())
def test_normalizing_keeps_the_numbers_and_is_idempotent(proto: onnx.ModelProto) -> None:
    model = normalize(proto)
    assert frozen(normalize(model)) == frozen(model)
    assert_same_numbers(model, run_reference(proto, X))


@QUICK
@given(models(repeated_names=True))
def test_repeated_names_mean_the_latest_definition(proto: onnx.ModelProto) -> None:
    """The oracle renames by walking the node list once, bodies included, with its own few lines."""
    renamed = onnx.ModelProto()
    renamed.CopyFrom(proto)
    latest: dict[str, str] = {}

    def rename_inputs(node: onnx.NodeProto) -> None:
        node.input[:] = [latest.get(name, name) for name in node.input]
        for attribute in node.attribute:
            for inner in attribute.g.node:
                rename_inputs(inner)

    for i, node in enumerate(renamed.graph.node):
        rename_inputs(node)
        for j, name in enumerate(node.output):
            latest[name] = node.output[j] = f"{name}__{i}"
        for attribute in node.attribute:
            for inner in attribute.g.node:
                inner.output[0] = attribute.g.output[0].name = f"{inner.output[0]}_{attribute.name}_{i}"
    for output in renamed.graph.output:
        output.name = latest[output.name]
    model = normalize(proto)
    assert [value.name for value in model.graph.outputs] == [value.name for value in proto.graph.output]
    assert_same_numbers(model, run_reference(renamed, X))


@QUICK
@given(models(), st.data())
def test_edits_keep_the_interface_and_a_snapshot_does_not_see_them(proto: onnx.ModelProto, data: st.DataObject) -> None:
    model = normalize(proto)
    before, public = frozen(model), interface(model)
    kept = snapshot(model)
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Identity" and node.inputs[0] is not None and data.draw(st.booleans()):
            source = node.inputs[0]
            assert bypass(node, source) or replace_value(node.outputs[0], source) is False
    remove_dead(model)
    refresh_shapes(model, strict=False)
    check(model)
    assert interface(model).inputs == public.inputs
    assert [face[:1] for face in interface(model).outputs] == [face[:1] for face in public.outputs]
    assert_same_numbers(model, numbers(kept))
    assert frozen(kept) == before


@QUICK
@given(models())
def test_what_crosses_to_the_runtime_computes_what_the_file_does(proto: onnx.ModelProto) -> None:
    model = normalize(proto)
    before = frozen(model)
    with tempfile.TemporaryDirectory() as folder:
        portable, _ = WeightStore(Path(folder)).portable(model, ())
        got = open_session(portable, optimization="none").run(X)
    for mine, want in zip(got.values(), numbers(model), strict=True):
        np.testing.assert_array_equal(mine, want)
    assert frozen(model) == before
