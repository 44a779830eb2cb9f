"""What is known of dimensions before the model runs, in a form in which equal means equal whenever the model runs.

    x: float[n, ?, 4]                       =>  n, (x, 1), 4
    Concat(Gather(Shape(x), 0), [-1, 4])    =>  n, -1, 4

A dimension is a number, a symbol, or "axis 1 of x" where it has no name of its own; the last is equal to itself only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irc.ir import bodies, constant, constant_tensor

Dim = int | str | tuple[ir.Value, int]
Dims = tuple[Dim, ...]

MAX_ELEMENTS = 64
"""Longer vectors are no shapes: no runtime supports such ranks."""
MAX_DEPTH = 16
"""How far back a vector of dimensions is followed; exporters need 6 nodes at most, from Shape to Concat."""

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
_Found = dict[tuple[ir.Value, int], Dims | None]


class Dimensions:
    """The dimensions of the values of one model, and the elements of its vectors of dimensions.

    A symbol counts where it stands for one size per run. It does not in the bodies of Loop and Scan, whose values may
    change size from one iteration to the next under the same symbol. Of outputs of the model nothing is known: what they
    declare is a description that no runtime checks.

    Args:
        model: Its types and shapes are believed.
    """

    def __init__(self, model: ir.Model) -> None:
        self._main = model.graph
        self._repeated: set[ir.Graph] = set()
        for node in model.graph.all_nodes():
            if node.op_type != "If":
                for body in bodies(node):
                    self._repeated.update((body, *body.subgraphs()))

    def of(self, value: ir.Value | None) -> Dims | None:
        """The dimensions of a value; None if not even its rank is known."""
        if value is None or value.shape is None:
            return None
        if value.is_graph_output() and value.graph is self._main and not value.is_graph_input():
            return None
        named = value.graph not in self._repeated and not value.is_graph_output()
        dims: list[Dim] = []
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int):
                dims.append(dim)
            else:
                dims.append(dim.value if named and dim.value is not None else (value, axis))
        return tuple(dims)

    def elements(self, value: ir.Value | None) -> Dims | None:
        """The elements of an integer scalar or vector; None if they are not all known as numbers or dimensions."""
        return self._elements(value, MAX_DEPTH, {})

    def _elements(self, value: ir.Value | None, depth: int, found: _Found) -> Dims | None:
        """The elements as far as they follow from so many nodes; `found` has those that were looked at before."""
        if value is None or depth == 0:
            return None
        if (value, depth) not in found:
            found[value, depth] = self._followed(value, depth, found)
        return found[value, depth]

    def _followed(self, value: ir.Value, depth: int, found: _Found) -> Dims | None:
        if (tensor := constant_tensor(value)) is not None:
            small = tensor.dtype in _INTEGERS and (
                tensor.size == 1 or (len(tensor.shape) == 1 and tensor.size <= MAX_ELEMENTS)
            )
            return tuple(int(i) for i in np.asarray(tensor.numpy()).flat) if small else None
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx") or not node.inputs:
            return None
        if node.op_type == "Shape":
            dims = self.of(node.inputs[0])
            start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
            return None if dims is None else dims[start:end]
        if node.op_type == "Concat":
            return self._joined(node.inputs, depth - 1, found)
        source = self._elements(node.inputs[0], depth - 1, found)
        if source is None:
            return None
        match node.op_type:
            case "Identity":
                return source
            case "Cast" if (to := node.attributes.get_int("to")) in _INTEGERS:
                return source if _holds(ir.DataType(to), source) else None
            case "Reshape" | "Squeeze" | "Unsqueeze" if len(source) == 1:
                return source
            case "Gather":
                return _gathered(source, node)
            case "Slice":
                return _sliced(source, node)
        return None

    def _joined(self, parts: Sequence[ir.Value | None], depth: int, found: _Found) -> Dims | None:
        """The elements of vectors one after the other; None as soon as some are unknown, or there are too many."""
        joined: Dims = ()
        for part in parts:
            elements = self._elements(part, depth, found)
            if elements is None or len(joined) + len(elements) > MAX_ELEMENTS:
                return None
            joined += elements
        return joined


def _holds(dtype: ir.DataType, elements: Dims) -> bool:
    """Whether elements stay what they are in an integer type; dimensions do in any that shapes have."""
    info = np.iinfo(dtype.numpy())
    return all(info.min <= element <= info.max for element in elements if isinstance(element, int))


def _gathered(source: Dims, node: ir.Node) -> Dims | None:
    indices = constant(node.inputs[1])
    if indices is None or indices.ndim > 1 or not all(-len(source) <= i < len(source) for i in indices.flat):
        return None
    return tuple(source[int(i)] for i in indices.flat)


def _sliced(source: Dims, node: ir.Node) -> Dims | None:
    if len(node.inputs) < 3:
        return None
    given = [constant(value) for value in (node.inputs[1], node.inputs[2], *node.inputs[4:5]) if value is not None]
    if any(array is None or array.size != 1 for array in given):
        return None
    start, end, *step = (int(array.item()) for array in given if array is not None)
    return source[start : end : step[0] if step else 1] if step != [0] else None


def is_number(dim: Dim) -> bool:
    """Whether a dimension is known as a number."""
    return isinstance(dim, int)
