"""Names: free in the whole model, the same every time, found quickly."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from call_counting import assert_linear
from ir_graphs import branch_proto, linear_proto

from irc.ir import add_initializer, check, normalize, snapshot, unique_name


def test_the_hint_itself_when_it_is_free() -> None:
    assert unique_name(normalize(linear_proto()), "fresh") == "fresh"


def test_inputs_outputs_weights_and_values_are_taken() -> None:
    model = normalize(linear_proto())
    for name in ("x", "w", "p", "y"):
        assert unique_name(model, name) == f"{name}_1"


def test_a_name_is_handed_out_once_even_before_it_is_used() -> None:
    model = normalize(linear_proto())
    assert [unique_name(model, "n") for _ in range(3)] == ["n", "n_1", "n_2"]


def test_bodies_and_the_main_graph_share_their_names() -> None:
    model = normalize(branch_proto())
    body = next(graph for graph in model.graph.subgraphs() if "body_w" in graph.initializers)
    assert unique_name(body, "x") == "x_1"
    assert unique_name(model.graph, "body_w") == "body_w_1"
    assert unique_name(body, "fresh") == "fresh"
    assert unique_name(model.graph, "fresh") == "fresh_1"


def test_a_name_that_a_pass_chose_itself_is_seen() -> None:
    model = normalize(linear_proto())
    unique_name(model, "anything")
    output = ir.Value(name="mine")
    model.graph.append(ir.Node("", "Neg", [model.graph.inputs[0]], outputs=[output]))
    model.graph.register_initializer(ir.Value(name="my_w", const_value=ir.tensor([1.0])))
    assert unique_name(model, "mine") == "mine_1"
    assert unique_name(model, "my_w") == "my_w_1"


def test_names_depend_on_the_model_received_and_not_on_what_was_tried_before() -> None:
    """A plan that replays only the accepted edits must give the same bytes."""
    tried = normalize(linear_proto())
    start = snapshot(tried)
    for _ in range(5):
        add_initializer(tried.graph, "scale", np.float32(1))
    assert add_initializer(snapshot(start).graph, "scale", np.float32(1)).name == "scale"
    for name in [name for name in tried.graph.initializers if name.startswith("scale")]:
        del tried.graph.initializers[name]
    assert unique_name(snapshot(tried), "scale") == "scale"


def test_an_empty_hint() -> None:
    assert unique_name(normalize(linear_proto()), "") == "value_1"


def test_thousands_of_names_of_one_hint() -> None:
    def work(count: int) -> Callable[[], None]:
        model = normalize(linear_proto())

        def add() -> None:
            start = time.process_time()
            for _ in range(count):
                add_initializer(model.graph, "scale", np.float32(1))
            assert time.process_time() - start < 5
            assert len(model.graph.initializers) == count + 2
            check(model)

        return add

    assert_linear(work, 1_000, 4_000)
