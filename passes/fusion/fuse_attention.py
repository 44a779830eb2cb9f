"""Scaled dot-product attention written out back to one operator.

    s = q @ transpose(k) * scale + mask;   y = Softmax(s) @ v      =>   y = Attention<scale>(q, k, v, mask)

With the heads in the last axis, Reshape and Transpose that split them off before and join them behind go too; then it is
one node instead of eleven or more, and faster. With the heads as an axis it is no faster unless there is a mask, and
stays as it is without one.

A row that is masked by -inf altogether is NaN written out and zero in Attention, so that a mask must be a constant
without such rows; ONNX Runtime wants it in full size but for the batch and the heads.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import constant
from irc.passes.fusion.composite import Composite, Fusion, either_way, opset_of, producer_of, two_inputs
from irc.passes.fusion.scalars import rank_of, scalar

SINCE = 23
_HEADS_FIRST = [0, 2, 1, 3]
_KEYS_LAST = [0, 1, 3, 2]
_HEADS_FIRST_KEYS_LAST = [0, 2, 3, 1]


@dataclasses.dataclass(frozen=True, eq=False)
class _Core:
    """Attention of [batch, heads, length, size] tensors.

    Attributes:
        q: Queries.
        keys: Keys, transposed by the node `turn`.
        v: Values.
        scale: Factor of the scores.
        mask: What is added to them, or None.
        turn: The Transpose of the keys.
        nodes: The nodes it is made by, the last product first; the Transpose of the keys is not among them.
    """

    q: ir.Value
    keys: ir.Value
    v: ir.Value
    scale: float
    mask: ir.Value | None
    turn: ir.Node
    nodes: tuple[ir.Node, ...]


@dataclasses.dataclass(frozen=True)
class FuseAttention(Fusion):
    """One kernel instead of four, and no copies to split and join heads.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
    """

    name: ClassVar[str] = "fuse-attention"

    def composite(self, last: ir.Node, model: ir.Model) -> Composite | str | None:
        """Attention whose last product is this node, or whose heads are joined by this Reshape."""
        if opset_of(model) < SINCE:  # older spellings differ, and no older opset has it
            return None
        if last.op_type == "Reshape":
            return _of_joined_heads(last, model.graph)
        core = _core(last) if last.op_type == "MatMul" else None
        if core is None or core.mask is None or _perm(core.turn) != _KEYS_LAST or core.q.dtype is None:
            return None
        if _is_joined(last, model.graph) or not _agree(core.q, core.keys, core.v, model.graph, heads=1):
            return None
        if (reason := _why_no_mask(core.mask, core.q, core.keys, heads=1, length=2)) is not None:
            return reason
        interior = (*core.nodes[1:], core.turn)
        inputs = (core.q, core.keys, core.v, core.mask)
        return Composite("Attention", SINCE, inputs, interior, core.q.dtype, {"scale": core.scale})


def _of_joined_heads(last: ir.Node, main: ir.Graph) -> Composite | str | None:
    joined = last.inputs[0]
    turn = producer_of(joined, "Transpose")
    if joined is None or turn is None or _perm(turn) != _HEADS_FIRST or not _regroups(joined, last.outputs[0], last):
        return None
    product = producer_of(turn.inputs[0], "MatMul")
    core = _core(product) if product is not None else None
    if core is None or core.q.dtype is None:
        return None
    q, v = _split(core.q), _split(core.v)
    keys = _split(core.keys) if _perm(core.turn) == _KEYS_LAST else _split_alone(core.keys)
    if q is None or keys is None or v is None or _perm(core.turn) not in (_KEYS_LAST, _HEADS_FIRST_KEYS_LAST):
        return None
    if not _agree(q[1], keys[1], v[1], main, heads=2):
        return None
    if core.mask is not None and (reason := _why_no_mask(core.mask, q[1], keys[1], heads=2, length=1)) is not None:
        return reason
    count = _dim(q[1], 2)
    attributes: dict[str, Any] = {"scale": core.scale, "q_num_heads": count, "kv_num_heads": count}
    inputs = (q[0], keys[0], v[0], *((core.mask,) if core.mask is not None else ()))
    interior = (turn, *core.nodes, core.turn, *q[2], *keys[2], *v[2])
    return Composite("Attention", SINCE, inputs, interior, core.q.dtype, attributes)


def _core(product: ir.Node) -> _Core | None:
    """The attention whose last product is a node."""
    pair = two_inputs(product)
    softmax = producer_of(pair[0], "Softmax") if pair is not None else None
    if pair is None or softmax is None or softmax.inputs[0] is None or rank_of(pair[1]) != 4:
        return None
    if softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return None
    added = producer_of(softmax.inputs[0], "Add")
    options: list[tuple[ir.Value, ir.Value | None]] = [(softmax.inputs[0], None)]
    options += list(either_way(added)) if added is not None else []
    for scores, mask in options:
        factor, inner, scaling = _unscaled(scores)
        scored = producer_of(inner, "MatMul")
        operands = two_inputs(scored) if scored is not None else None
        if scored is None or operands is None:
            continue
        (a, q, before), (b, turned, behind) = (_unscaled(operand) for operand in operands)
        turn = producer_of(turned, "Transpose")
        keys = turn.inputs[0] if turn is not None else None
        if turn is None or keys is None or rank_of(q) != 4 or rank_of(keys) != 4 or not factor * a * b > 0:
            continue
        nodes = (product, softmax, *((added,) if added is not None else ()))
        nodes = (*nodes, *scaling, scored, *before, *behind)
        return _Core(q, keys, pair[1], factor * a * b, mask, turn, nodes)
    return None


def _unscaled(value: ir.Value) -> tuple[float, ir.Value, tuple[ir.Node, ...]]:
    """A value as a number times another value, and the nodes that multiply."""
    node = producer_of(value, "Mul", "Div")
    for inner, other in () if node is None else either_way(node) if node.op_type == "Mul" else either_way(node)[:1]:
        number = scalar(other, rank_of(inner))
        if node is not None and number:
            return number if node.op_type == "Mul" else 1 / number, inner, (node,)
    return 1.0, value, ()


def _split(value: ir.Value) -> tuple[ir.Value, ir.Value, tuple[ir.Node, ...]] | None:
    """What has its heads in the last axis, the same with the heads as axis 2, and the nodes that make them axis 1."""
    turn = producer_of(value, "Transpose")
    if turn is None or turn.inputs[0] is None or _perm(turn) != _HEADS_FIRST:
        return None
    alone = _split_alone(turn.inputs[0])
    return None if alone is None else (alone[0], alone[1], (turn, *alone[2]))


def _split_alone(value: ir.Value) -> tuple[ir.Value, ir.Value, tuple[ir.Node, ...]] | None:
    reshape = producer_of(value, "Reshape")
    data = reshape.inputs[0] if reshape is not None else None
    if reshape is None or data is None or not _regroups(value, data, reshape):
        return None
    return data, value, (reshape,)


def _regroups(apart: ir.Value, together: ir.Value, reshape: ir.Node) -> bool:
    """Whether [batch, length, heads, size] and [batch, length, heads * size] are the same numbers, axis by axis.

    The last axes agree as numbers, and one of the first two because it is copied or known; the other one follows.
    """
    if rank_of(together) != 3:
        return False
    heads, size, all_of_them = _dim(apart, 2), _dim(apart, 3), _dim(together, 2)
    if heads is None or size is None or all_of_them != heads * size:
        return False
    target = constant(reshape.inputs[1])
    copied = reshape.attributes.get_int("allowzero", 0) == 0 and target is not None and 0 in target[:2]
    return bool(copied) or any(_dim(apart, axis) == _dim(together, axis) not in (None, 0) for axis in (0, 1))


def _agree(q: ir.Value, k: ir.Value, v: ir.Value, main: ir.Graph, *, heads: int) -> bool:
    """Whether queries, keys and values have the same heads and batch, so that nothing is broadcast.

    None may be empty as far as known: Attention fails where products of nothing are zeros.
    """
    count = _dim(q, heads)
    return (
        count is not None
        and all(_dim(one, heads) == count for one in (k, v))
        and all(_same_batch(one, q, main) for one in (k, v))
        and all(_dim(one, axis) != 0 for one in (q, k, v) for axis in range(4))
    )


def _same_batch(a: ir.Value, b: ir.Value, main: ir.Graph) -> bool:
    """Whether axis 0 is the same: one number, or one symbol in the main graph, where a symbol is one size."""
    if a.shape is None or b.shape is None:
        return False
    one, other = a.shape[0], b.shape[0]
    if isinstance(one, int) or isinstance(other, int):
        return one == other
    return a.graph is main and b.graph is main and one.value is not None and one.value == other.value


def _why_no_mask(mask: ir.Value, q: ir.Value, keys: ir.Value, *, heads: int, length: int) -> str | None:
    array = constant(mask)
    if array is None:
        return "its mask is not constant: Attention makes zeros of rows that are masked altogether, not NaN"
    wanted = (_dim(q, length), _dim(keys, length))
    if array.ndim not in (2, 4) or tuple(array.shape[-2:]) != wanted:
        return f"its mask has shape {list(array.shape)}, and ONNX Runtime wants every query and key in it"
    if array.ndim == 4 and (array.shape[0] not in (1, _dim(q, 0)) or array.shape[1] not in (1, _dim(q, heads))):
        return f"its mask has shape {list(array.shape)}, which enlarges the batch or the heads"
    if not np.isfinite(array).any(axis=-1).all() or np.isnan(array).any():
        return "its mask hides a row altogether"
    return None


def _is_joined(product: ir.Node, main: ir.Graph) -> bool:
    """Whether heads are joined behind a product, where the Reshape decides."""
    following: ir.Node = product
    for op_type in ("Transpose", "Reshape"):
        uses = list(following.outputs[0].uses())
        if len(uses) != 1 or uses[0].node.op_type != op_type:
            return False
        following = uses[0].node
    return isinstance(_of_joined_heads(following, main), Composite)


def _perm(transpose: ir.Node) -> list[int]:
    return list(transpose.attributes.get_ints("perm", ()))


def _dim(value: ir.Value, axis: int) -> int | None:
    dim = value.shape[axis] if value.shape is not None else None
    return dim if isinstance(dim, int) else None
