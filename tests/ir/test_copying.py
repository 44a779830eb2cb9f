"""Snapshots share tensors and nothing that can be edited."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from ir_graphs import branch_proto, linear_proto, model_proto
from onnx import helper

from irc.ir import add_initializer, bypass, load, normalize, provenance, refresh_shapes, replace_node, snapshot


def frozen(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString()


def test_equal_and_sharing_weights() -> None:
    model = normalize(branch_proto())
    copied = snapshot(model)
    assert frozen(copied) == frozen(model)
    for mine, theirs in zip(
        (model.graph, *model.graph.subgraphs()), (copied.graph, *copied.graph.subgraphs()), strict=True
    ):
        for name, value in mine.initializers.items():
            assert theirs.initializers[name].const_value is value.const_value
            assert theirs.initializers[name] is not value


EDITS: dict[str, Callable[[ir.Model], object]] = {
    "dtype": lambda m: setattr(m.graph[0].outputs[0], "dtype", ir.DataType.INT8),
    "input dtype": lambda m: setattr(m.graph.inputs[-1], "dtype", ir.DataType.INT8),
    "rename a weight": lambda m: setattr(next(iter(m.graph.initializers.values())), "name", "other"),
    "replace a weight": lambda m: setattr(next(iter(m.graph.initializers.values())), "const_value", ir.tensor([1.0])),
    "metadata": lambda m: m.graph[0].metadata_props.update(a="b"),
    "attributes": lambda m: m.graph[0].attributes.add(ir.AttrInt64("k", 1)),
    "opset": lambda m: m.graph.opset_imports.update({"": 3}),
    "shape": lambda m: setattr(m.graph.inputs[-1], "shape", ir.Shape([77])),
    "node": lambda m: replace_node(m.graph[0], "Mystery", []),
    "initializer": lambda m: add_initializer(m.graph, "n", np.zeros(1)),
    "outputs": lambda m: m.graph.outputs.clear(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_no_edit_of_one_reaches_the_other(edit: str) -> None:
    proto = model_proto(
        [helper.make_node("Add", ["x", "w"], ["a"]), helper.make_node("Neg", ["a"], ["y"])],
        {"x": ["N", 2]},
        {"y": ["N", 2]},
        {"w": np.ones(2, np.float32)},
    )
    model = normalize(proto)
    refresh_shapes(model)
    before = frozen(model)
    copied = snapshot(model)
    EDITS[edit](copied)
    assert frozen(copied) != before, "the edit did something"
    assert frozen(model) == before
    other = snapshot(model)
    EDITS[edit](model)
    assert frozen(other) == before


def test_edits_in_bodies_stay_there() -> None:
    model = normalize(branch_proto())
    before = frozen(model)
    copied = snapshot(model)
    for node in list(copied.graph.all_nodes()):
        if node.op_type == "Mul":
            value = node.inputs[0]
            assert value is not None
            bypass(node, value)
    assert frozen(model) == before
    assert frozen(copied) != before


def test_provenance_goes_along(tmp_path: object) -> None:
    model = normalize(linear_proto())
    assert provenance(snapshot(model)) == provenance(model)
    assert provenance(ir.from_proto(linear_proto())).files == ()


def test_a_long_chain_that_deepcopy_cannot_copy() -> None:
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(3000)]
    model = normalize(model_proto(nodes, {"v0": [2]}, {"v3000": [2]}))
    with pytest.raises(RecursionError):
        copy.deepcopy(model)
    assert frozen(snapshot(model)) == frozen(model)


def test_a_path_is_enough(tmp_path) -> None:
    (tmp_path / "m.onnx").write_bytes(linear_proto().SerializeToString())
    model = load(tmp_path / "m.onnx")
    assert provenance(snapshot(model)).files == (tmp_path / "m.onnx",)
