"""Which residual branches make up a layer: those of a sequence that repeats itself, such as attention and a feed-forward network."""

from __future__ import annotations

from collections.abc import Sequence

from irc.passes.pruning.layers.residual_branches import Branch

LONGEST = 6
"""Branches of the largest layer that is looked for."""
_TELLING = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Softmax", "Attention", "MultiHeadAttention"),
        *("LSTM", "GRU", "RNN", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger", "MatMulNBits"),
    }
)
"""Operators that branches are told apart by; others come and go with exporters and masks."""


def repeated_layers(branches: Sequence[Branch]) -> list[tuple[Branch, ...]]:
    """Branches in runs of layers: at each place the period that explains most of what follows, the shorter of equals.

    A branch that repeats nothing is a layer of its own, as are equal branches one after another.

    Args:
        branches: In the order of the graph.
    """
    kinds = [tuple(sorted(node.op_type for node in branch.inner if node.op_type in _TELLING)) for branch in branches]
    found: list[tuple[Branch, ...]] = []
    start = 0
    while start < len(kinds):
        period, times = 1, 1
        for length in range(1, LONGEST + 1):
            repeats = _repeats(kinds[start:], length)
            if repeats > 1 and repeats * length > period * times:
                period, times = length, repeats
        for _ in range(times):
            found.append(tuple(branches[start : start + period]))
            start += period
    return found


def _repeats(kinds: Sequence[tuple[str, ...]], length: int) -> int:
    """How often the first few kinds follow one another."""
    count = 1
    while len(kinds) >= length * (count + 1) and kinds[length * count : length * (count + 1)] == kinds[:length]:
        count += 1
    return count
