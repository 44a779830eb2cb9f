"""Operators that are linear in the channel, and how the axes of what they read and make belong together.

Linear are moves of whole channels, sums of channels with channels, products that sum over channels or leave them be, multiplication by
what all channels share, and means over other axes. Whatever is not here is not linear, or not known to be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from irc.analysis.channels import Propagation
from irc.analysis.channels.rules.products import matmul_letters
from irc.ir import constant
from irc.pass_base import node_id

Letters = Sequence[Any]
"""One per axis; axes with the same letter run over the same index, None runs over one of its own."""

MOVES = frozenset(
    {
        *("Identity", "Neg", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Split"),
        *("Slice", "Gather", "Pad", "GlobalAveragePool", "AveragePool"),
    }
)
"""Operators whose results have labels of what they read, place for place."""
PICKS = frozenset({"Slice", "Gather", "Split"})
"""Moves that may leave channels out."""
SIZES = frozenset({"Shape", "Size"})
"""Operators that read no elements."""


class NotLinear(Exception):
    """Why a family has no change of basis.

    Args:
        node: The node that stands in the way.
        reason: In a user's words.
    """

    def __init__(self, node: ir.Node | None, reason: str) -> None:
        super().__init__(reason)
        self.node, self.reason = node, reason


@dataclasses.dataclass(frozen=True)
class Terms:
    """A node as a sum of products over letters.

    Attributes:
        operands: Index of the input and its letters, for all operands that have elements.
        result: Letters of the result; what it has not is summed over.
        added: Indices of inputs that are added rather than multiplied.
        heads: If the last axes of the operands are heads side by side, which do not mix, how many.
    """

    operands: tuple[tuple[int, Letters], ...]
    result: Letters
    added: frozenset[int] = frozenset()
    heads: int = 1


def kind_of(node: ir.Node) -> str:
    """The type of a standard operator, "" for any other."""
    return node.op_type if node.domain in ("", "ai.onnx") else ""


def where(node: ir.Node) -> str:
    """A node in reasons."""
    return f"{node.op_type} {node_id(node)!r}"


def terms_of(node: ir.Node, propagation: Propagation) -> Terms | None:
    """A node as a sum of products; None for an operator that is none.

    Raises:
        NotLinear: If it is one but works on channels one by one, or says what it does by numbers that are not constants.
    """
    kind = kind_of(node)
    ranks = [0 if value is None else len(propagation.dims(value) or ()) for value in node.inputs]
    if kind in ("Add", "Sub", "Sum", "Mul", "Div"):
        rank = len(propagation.dims(node.outputs[0]) or ())
        letters = [f"a{i}" for i in range(rank)]
        operands = tuple((i, letters[rank - own :]) for i, own in enumerate(ranks) if node.inputs[i] is not None)
        return Terms(operands, letters, frozenset(range(len(ranks))) if kind in ("Add", "Sub", "Sum") else frozenset())
    if kind == "Expand":
        letters = [f"a{i}" for i in range(len(propagation.dims(node.outputs[0]) or ()))]
        return Terms(((0, letters[len(letters) - ranks[0] :]),), letters)
    if kind in ("ReduceMean", "ReduceSum"):
        return _reduction(node, ranks[0], len(propagation.dims(node.outputs[0]) or ()))
    if kind == "MatMul":
        left, right, made = matmul_letters(ranks[0], ranks[1])
        return Terms(((0, left), (1, right)), made)
    if kind == "Gemm":
        return _gemm(node, ranks)
    if kind in ("Conv", "ConvTranspose"):
        return _convolution(node, ranks)
    if kind == "Einsum":
        return _einsum(node)
    if kind == "Attention":
        return _attention(node, ranks, propagation)
    return None


def _reduction(node: ir.Node, rank: int, made: int) -> Terms:
    axes = node.attributes.get_ints("axes", [])
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        known = constant(node.inputs[1])
        axes = [] if known is None else [int(axis) for axis in known.ravel()]
    if not axes:
        raise NotLinear(node, f"{where(node)} reduces over axes that are not given as constants")
    gone = {axis % rank for axis in axes}
    letters = [f"a{i}" for i in range(rank)]
    kept = [None if i in gone else letter for i, letter in enumerate(letters)]
    return Terms(((0, letters),), kept if made == rank else [letter for letter in kept if letter is not None])


def _gemm(node: ir.Node, ranks: Sequence[int]) -> Terms:
    flip_a, flip_b = (node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    operands: list[tuple[int, Letters]] = [(0, "km" if flip_a else "mk"), (1, "nk" if flip_b else "kn")]
    bias = _bias(node)
    if bias:
        operands.append((2, "mn"[2 - ranks[2] :]))
    return Terms(tuple(operands), "mn", bias)


def _convolution(node: ir.Node, ranks: Sequence[int]) -> Terms:
    if node.attributes.get_int("group", 1) != 1:
        raise NotLinear(node, f"{where(node)} works on channels one by one, or on groups of them")
    space = [f"s{i}" for i in range(ranks[0] - 2)]
    taps = [None] * (ranks[1] - 2)
    weight: Letters = ["c", "o", *taps] if node.op_type == "ConvTranspose" else ["o", "c", *taps]
    operands: list[tuple[int, Letters]] = [(0, ["n", "c", *space]), (1, weight)]
    bias = _bias(node)
    if bias:
        operands.append((2, ["o"]))
    return Terms(tuple(operands), ["n", "o", *space], bias)


def _bias(node: ir.Node) -> frozenset[int]:
    return frozenset({2}) if len(node.inputs) > 2 and node.inputs[2] is not None else frozenset()


def _einsum(node: ir.Node) -> Terms:
    left, arrow, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in left or any(len(set(term)) < len(term) for term in (*terms, result)):
        raise NotLinear(node, f"{where(node)} has an equation that is not followed")
    return Terms(tuple(enumerate(terms)), result)


def _attention(node: ir.Node, ranks: Sequence[int], propagation: Propagation) -> Terms:
    """Scores are sums over the dimensions of queries and keys, and what they weigh keeps those of values."""
    if any(value is not None for value in node.inputs[4:]) or any(value.name for value in node.outputs[1:]):
        raise NotLinear(node, f"{where(node)} has a state or a second result")
    if ranks[0] == 4:
        queries, keys = (propagation.dims(value)[1] for value in node.inputs[:2])  # type: ignore[arg-type, index]
        terms: tuple[tuple[int, Letters], ...] = ((0, "bhsd"), (1, "bhtd"), (2, "bhtv"))
        result, heads = "bhsv", 1
    else:
        queries, keys = (node.attributes.get_int(name, 1) for name in ("q_num_heads", "kv_num_heads"))
        terms, result, heads = ((0, "bsd"), (1, "btd"), (2, "btv")), "bsv", queries
    if queries != keys:
        raise NotLinear(node, f"{where(node)} has fewer heads of keys than of queries")
    return Terms(terms, result, heads=heads)
