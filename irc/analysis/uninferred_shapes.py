"""Output shapes of standard operators for which onnx infers none."""

from __future__ import annotations

import onnx_ir as ir

Dims = tuple[int | None, ...]
_LIKE_FIRST = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
_PAST = 4


def uninferred_dims(node: ir.Node, index: int, inputs: list[Dims | None]) -> Dims | None:
    """The shape of an output that onnx says nothing of, None if it is not known.

    Args:
        node: A node of a standard operator.
        index: Which output.
        inputs: Shapes of its inputs, None for omitted or unknown ones.
    """
    if node.op_type in _LIKE_FIRST and index == 0:
        return inputs[0]
    if node.op_type == "Attention" and index in (1, 2):
        return _present(node, inputs, index)
    return None


def _present(node: ir.Node, inputs: list[Dims | None], index: int) -> Dims | None:
    """Keys or values [batch, heads, past + places, dimensions]."""
    given = inputs[index]
    past = inputs[_PAST - 1 + index] if len(inputs) > _PAST - 1 + index else None
    heads = node.attributes.get_int("kv_num_heads", 0)
    if given is not None and len(given) == 3 and heads and given[2] is not None:
        given = (given[0], heads, given[1], given[2] // heads)
    has_past = len(node.inputs) > _PAST - 1 + index and node.inputs[_PAST - 1 + index] is not None
    if given is None or len(given) != 4 or not has_past:
        return given if given is not None and len(given) == 4 else None
    if past is None or len(past) != 4 or past[2] is None or given[2] is None:
        return None
    return (given[0], given[1], past[2] + given[2], given[3])
