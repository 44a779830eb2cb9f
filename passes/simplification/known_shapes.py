"""What nodes that ask for a shape will answer, as far as shapes are known before the model runs.

    Shape(x: float[N, 3, 224, 224], start=1)  =>  [3, 224, 224]
    Size(x: float[2, 3])                      =>  6
    Gather(Shape(x: float[N, 3, 224]), 1)     =>  3          (N may be unknown)
    Slice(Shape(x: float[N, 3, 224]), 1, 3)   =>  [3, 224]

A symbol is no answer, even where two symbols are known to be equal.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.ir import constant

_Array = np.ndarray[Any, Any]


def shape_answer(node: ir.Node) -> _Array | None:
    """The value of the node's only output if known shapes decide it, else None."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Shape":
        return _as_array(_asked(node))
    if node.op_type == "Size":
        value = node.inputs[0]
        dims = None if value is None else _dims(value)
        return None if dims is None or None in dims else np.array(math.prod(d for d in dims if d is not None), np.int64)
    if node.op_type in ("Gather", "Slice") and node.inputs and node.inputs[0] is not None:
        producer = node.inputs[0].producer()
        dims = _asked(producer) if producer is not None and producer.op_type == "Shape" else None
        if dims is not None:
            return _picked(node, dims) if node.op_type == "Gather" else _sliced(node, dims)
    return None


def _dims(value: ir.Value) -> list[int | None] | None:
    """The dimensions of a value, None where they are symbolic; None if not even the rank is known.

    What outputs of graphs declare no runtime checks.
    """
    if value.shape is None or (value.is_graph_output() and not value.is_graph_input()):
        return None
    return [d if isinstance(d, int) else None for d in value.shape]


def _asked(shape: ir.Node) -> list[int | None] | None:
    """The dimensions a Shape node asks for."""
    value = shape.inputs[0]
    dims = None if value is None or shape.domain not in ("", "ai.onnx") else _dims(value)
    if dims is None:
        return None
    return dims[shape.attributes.get_int("start", 0) : shape.attributes.get_int("end", len(dims))]


def _picked(gather: ir.Node, dims: list[int | None]) -> _Array | None:
    indices = constant(gather.inputs[1])
    if indices is None or not all(-len(dims) <= i < len(dims) for i in indices.flat):
        return None
    picked = _as_array([dims[int(i)] for i in indices.flat])
    return None if picked is None else picked.reshape(indices.shape)


def _sliced(node: ir.Node, dims: list[int | None]) -> _Array | None:
    if len(node.inputs) < 3:
        return None
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else np.array([1])
    starts, ends = constant(node.inputs[1]), constant(node.inputs[2])
    if starts is None or ends is None or steps is None or any(a.size != 1 for a in (starts, ends, steps)):
        return None
    if steps.item() == 0:
        return None
    return _as_array(dims[slice(int(starts.item()), int(ends.item()), int(steps.item()))])


def _as_array(dims: list[int | None] | None) -> _Array | None:
    """The dimensions as an int64 vector, or None if one of them is unknown."""
    return None if dims is None or None in dims else np.array(dims, np.int64)
