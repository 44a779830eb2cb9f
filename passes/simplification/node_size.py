"""How many bytes of the model two nodes take up, to tell whether what replaces them is smaller."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from irc.ir import constant_tensor
from irc.ir.redundancy import varint_bytes

MAX_COUNTED_ELEMENTS = 64
NODE_WORTH = 32
"""Bytes that a file may grow by for one node less; a build takes back what makes a whole model larger."""
NAME_SUFFIX = 2
"""Room for the suffix that makes a name unique."""


def node_bytes(node: ir.Node) -> int:
    """Bytes of a node in a file at least: operator, inputs, outputs and plain attributes, without its name."""
    total = 2 + len(node.op_type) + 2 + (len(node.domain) + 2 if node.domain else 0)
    total += sum(2 + len(value.name or "") if value is not None else 2 for value in node.inputs)
    total += sum(2 + len(value.name or "") for value in node.outputs)
    for attribute in node.attributes.values():
        total += 8 + len(attribute.name) + (len(attribute.value) if hasattr(attribute.value, "__len__") else 1)
    return total


def integer_bytes(values: Iterable[int]) -> int:
    """Bytes of small integers as `irc.ir.save` writes them: as many as each needs, or 8 each if that is less."""
    numbers = list(values)
    brief = sum(varint_bytes(n) for n in numbers)
    return min(brief, 8 * len(numbers))


def content_bytes(tensor: ir.TensorProtocol) -> int:
    """Bytes of the elements of a tensor in a file."""
    if tensor.dtype == ir.DataType.INT64 and tensor.size <= MAX_COUNTED_ELEMENTS:
        return integer_bytes(int(n) for n in tensor.numpy().flat)
    return int(tensor.nbytes)


def stored_bytes(name: str, elements: int, itemsize: int) -> int:
    """Bytes of a new initializer and of its mention in the input list of one node.

    Args:
        name: What it is to be called.
        elements: Number of elements.
        itemsize: Bytes of each.
    """
    return 2 * (len(name) + NAME_SUFFIX) + elements * itemsize + 12


def bytes_in_one(inner: ir.Node, outer: ir.Node) -> int:
    """Bytes that go when `outer` no longer needs `inner`, nor either of them its constants, and what a node is worth.

    Args:
        inner: Removed.
        outer: Loses the constants among its inputs, and their mention.
    """
    total = NODE_WORTH + node_bytes(inner)
    for value in outer.inputs:
        if constant_tensor(value) is not None and value is not None:
            total += len(value.name or "") + 2
    for value in dict.fromkeys((*inner.inputs, *outer.inputs)):
        tensor = constant_tensor(value)
        if value is not None and tensor is not None and all(use.node in (inner, outer) for use in value.uses()):
            total += content_bytes(tensor) + len(value.name or "") + 10
    return total
