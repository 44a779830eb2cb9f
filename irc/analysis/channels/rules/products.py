"""Products that sum over an index: MatMul, Gemm, Einsum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from irc.analysis.channels.bundles import Labelled
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.registration import rule


def contract(
    view: NodeView,
    operands: Sequence[tuple[Labelled, Sequence[object]]],
    result: Sequence[object],
    *,
    zeros: Mapping[int, int] | None = None,
) -> None:
    """Operands that meet on letters, summed over the letters the result does not have.

    Args:
        view: The node.
        operands: With a letter per axis.
        result: The letters of the result.
        zeros: For integer operands, the input that holds their zero point.
    """
    groups = view.align(*operands)
    view.costs(groups, zeros=zeros)
    view.write_bundles(view.kept(groups, list(result)))


def matmul_letters(a: int, b: int) -> tuple[list[object], list[object], list[object]]:
    """Letters of the operands of a matrix product of some ranks, and of its result."""
    rank = max(a, b)
    batch: list[object] = [f"batch{i}" for i in range(rank - 2)]
    left: list[object] = [*batch[len(batch) - (a - 2) :], "m", "k"] if a > 1 else ["k"]
    right: list[object] = [*batch[len(batch) - (b - 2) :], "k", "n"] if b > 1 else ["k"]
    result = [*batch, *(["m"] if a > 1 else []), *(["n"] if b > 1 else [])]
    return left, right, result


@rule("MatMul")
def matmul(view: NodeView) -> None:
    """Y[..., m, n] = sum over k of A[..., m, k] B[..., k, n], batches broadcast."""
    matrix_product(view)


@rule("FusedMatMul", "TransposeMatMul", domain="com.microsoft")
def fused_matmul(view: NodeView) -> None:
    """The same with the last two axes of an operand exchanged."""
    if any(view.node.attributes.get_int(name, 0) for name in ("transBatchA", "transBatchB")):
        view.pin_inputs("transposed batch", f"{view.where} exchanges batch axes")
        return
    matrix_product(view)


def matrix_product(
    view: NodeView,
    *,
    left: int = 0,
    right: int = 1,
    of_left: Sequence[int] = (),
    of_right: Sequence[int] = (),
    zeros: Mapping[int, int] | None = None,
) -> None:
    """A MatMul whose operands are any inputs.

    Args:
        view: The node.
        left: Index of the left operand.
        right: Index of the right operand.
        of_left: Scales and zero points of the left operand: scalars, one per row, or of its rank.
        of_right: Those of the right operand, and biases: scalars, one per column, or of its rank.
        zeros: For integer operands, the input that holds their zero point.
    """
    zero_point = (zeros or {}).get(left)
    if zero_point is not None and view.has(zero_point) and math.prod(view.read(zero_point).dims) > 1:
        view.pin_inputs("zero points per row", f"{view.where} has a zero point for every row")
        return
    a, b = view.read(left), view.read(right)
    rows, columns, result = matmul_letters(a.rank, b.rank)
    flip_a, flip_b = (view.node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    if flip_a and a.rank > 1:
        rows[-2:] = rows[:-3:-1]
    if flip_b and b.rank > 1:
        columns[-2:] = columns[:-3:-1]
    operands: list[tuple[Labelled, Sequence[object]]] = [(a, rows), (b, columns)]
    for indices, letters, single in ((of_left, rows, "m"), (of_right, columns, "n")):
        for index in indices:
            if view.has(index):
                tensor = view.read(index)
                operands.append((tensor, (single,) if tensor.rank == 1 else letters[len(letters) - tensor.rank :]))
    contract(view, operands, result, zeros=zeros)


@rule("Gemm")
@rule("FusedGemm", domain="com.microsoft")
def gemm(view: NodeView) -> None:
    """Y = alpha A' B' + beta C, with A' and B' transposed or not and C broadcast to Y."""
    general_product(view)


def general_product(
    view: NodeView,
    *,
    right: int = 1,
    biases: Sequence[int] = (2,),
    of_right: Sequence[int] = (),
    zeros: Mapping[int, int] | None = None,
) -> None:
    """A Gemm whose operands are any inputs.

    Args:
        view: The node.
        right: Index of the right operand.
        biases: What is added, broadcast to the result.
        of_right: Scales and zero points, scalars or one per column of the result.
        zeros: For integer operands, the input that holds their zero point.
    """
    flip_a, flip_b = (view.node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    operands: list[tuple[Labelled, Sequence[object]]] = [
        (view.read(0), ("k", "m") if flip_a else ("m", "k")),
        (view.read(right), ("n", "k") if flip_b else ("k", "n")),
    ]
    for index in (*biases, *of_right):
        if view.has(index):
            tensor = view.read(index)
            operands.append((tensor, ("m", "n")[2 - tensor.rank :]))
    contract(view, operands, ("m", "n"), zeros=zeros)


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
