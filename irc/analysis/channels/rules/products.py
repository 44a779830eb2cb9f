"""Products that sum over an index: MatMul, Gemm, Einsum."""

from __future__ import annotations

from collections.abc import Sequence

from irc.analysis.channels.bundles import Labelled
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.registration import rule


def contract(
    view: NodeView, operands: Sequence[tuple[Labelled, Sequence[object]]], result: Sequence[object]
) -> None:
    """Operands that meet on letters, summed over the letters the result does not have."""
    groups = view.align(*operands)
    view.costs(groups)
    view.write_bundles(view.kept(groups, list(result)))


def matmul_letters(a: int, b: int) -> tuple[list[object], list[object], list[object]]:
    """Letters of the operands of a matrix product of some ranks, and of its result."""
    rank = max(a, b)
    batch = [f"batch{i}" for i in range(rank - 2)]
    left = [*batch[len(batch) - (a - 2) :], "m", "k"] if a > 1 else ["k"]
    right = [*batch[len(batch) - (b - 2) :], "k", "n"] if b > 1 else ["k"]
    result = [*batch, *(["m"] if a > 1 else []), *(["n"] if b > 1 else [])]
    return left, right, result


@rule("MatMul")
def matmul(view: NodeView) -> None:
    """Y[..., m, n] = sum over k of A[..., m, k] B[..., k, n], batches broadcast."""
    a, b = view.read(0), view.read(1)
    left, right, result = matmul_letters(a.rank, b.rank)
    contract(view, [(a, left), (b, right)], result)


@rule("Gemm")
def gemm(view: NodeView) -> None:
    """Y = alpha A' B' + beta C, with A' and B' transposed or not and C broadcast to Y."""
    flip_a, flip_b = (view.node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    operands: list[tuple[Labelled, Sequence[object]]] = [
        (view.read(0), ("k", "m") if flip_a else ("m", "k")),
        (view.read(1), ("n", "k") if flip_b else ("k", "n")),
    ]
    if view.has(2):
        bias = view.read(2)
        operands.append((bias, ("m", "n")[2 - bias.rank :]))
    contract(view, operands, ("m", "n"))


@rule("Einsum")
def einsum(view: NodeView) -> None:
    """The equation gives the letters; an ellipsis stands for as many as are needed, aligned at the right."""
    equation = view.node.attributes.get_string("equation", "").replace(" ", "")
    tensors = [view.read(i) for i in range(len(view.node.inputs))]
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    operands = []
    for term, tensor in zip(terms, tensors, strict=True):
        operands.append((tensor, _letters(term, tensor.rank)))
    if not arrow:
        plain = inputs.replace(",", "").replace("...", "")
        output = ("..." if "..." in inputs else "") + "".join(sorted(c for c in set(plain) if plain.count(c) == 1))
    contract(view, operands, _letters(output, len(view.dims_out())))


def _letters(term: str, rank: int) -> list[object]:
    """The letters of one term, an ellipsis written out."""
    if "..." not in term:
        return list(term)
    before, _dots, after = term.partition("...")
    count = rank - len(before) - len(after)
    return [*before, *(f"...{count - i}" for i in range(count)), *after]
