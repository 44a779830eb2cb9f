"""Which nodes of the model a node of the runtime carries out."""

from __future__ import annotations

from channel_kit import model_of, random_weight
from latency_table.clocked_tables import chain

from irc.latency_table.runtime_parts import runtime_parts
from irc.runner import NodeTime


def test_fused_and_renamed_nodes_carry_out_what_lies_between_known_names():
    model = chain()
    profile = [
        NodeTime("ReorderInput", "ReorderInput", ("x",), ("reorder_token_0",), 1, 1.0),
        NodeTime("b_nchwc", "Conv", ("reorder_token_0",), ("reorder_token_1",), 1, 1.0),
        NodeTime("fused", "Conv", ("reorder_token_1",), ("e",), 1, 1.0),
        NodeTime("ReorderOutput", "ReorderOutput", ("reorder_token_2",), ("e",), 1, 1.0),
        NodeTime("added", "Custom", ("e",), ("unheard",), 1, 1.0),
        NodeTime("n_token_7", "Conv", ("f",), ("y",), 1, 1.0),
    ]
    parts = runtime_parts(model, profile)
    assert [[node.outputs[0].name for node in part.nodes] for part in parts] == [
        [],
        ["b", "a"],
        ["e", "d", "c"],
        ["e"],
        [],
        ["y", "f"],
    ]
    assert [part.reorders for part in parts] == [True, False, False, True, False, False]


def test_a_product_that_got_its_bias_and_another_shape_is_found_by_its_name():
    model = model_of(
        "agraph (float[1, 4, 8] x) => (float[1, 4, 8] y) { a = MatMul(x, w) y = Add(a, b) }",
        {"w": random_weight(8, 8), "b": random_weight(8)},
    )
    for name in ("", "layer/product"):
        model.graph[0].name = name
        profile = [
            NodeTime(f"{name or 'irc.node.a'}/MatMulAddFusion", "Gemm", (), ("gemm_output_reshape_arg",), 1, 1.0),
            NodeTime("gemm_output_reshape", "Reshape", (), ("y",), 1, 1.0),
        ]
        found = [[node.op_type for node in part.nodes] for part in runtime_parts(model, profile)]
        assert found == [["MatMul"], ["Add"]]
