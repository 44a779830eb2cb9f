"""What a value always is, whatever the caller feeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor a value always has, or None; an initializer that callers may override (a graph input) has none."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None and (value.is_initializer() or value.producer() is not None):
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or producer.domain not in ("", "ai.onnx"):
        return None
    found: ir.TensorProtocol | None = ir.convenience.get_const_tensor(value)
    return found


def constant(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The array a value always has, read-only, or None if it is not constant.

    Loaded weights are views, not copies; a `LazyTensor` is evaluated.
    """
    tensor = constant_tensor(value)
    if tensor is None:
        return None
    array = np.asarray(tensor.numpy()).view()
    array.flags.writeable = False
    return array


def is_graph_output(value: ir.Value) -> bool:
    """Whether the value is an output of its graph."""
    return value.is_graph_output()


def is_graph_input(value: ir.Value) -> bool:
    """Whether the value is an input of its graph."""
    return value.is_graph_input()


def only_consumer(value: ir.Value, node: ir.Node) -> bool:
    """Whether the value is used exactly once, by this node, and is not a graph output.

    A use inside the body of an If, Loop or Scan counts like any other.
    """
    uses = list(value.uses())
    return len(uses) == 1 and uses[0].node is node and not value.is_graph_output()
