"""MatMul and Add to Gemm, and transposes of its operands into its attributes.

    Add(MatMul(A, B), c)          =>   Gemm(A, B, c)              A, B matrices, c one row
    Add(Gemm(A, B), c)            =>   Gemm(A, B, c)
    Gemm(Transpose(A), B, c)      =>   Gemm<transA=1>(A, B, c)

ONNX Runtime does all of it itself when it loads a model: nothing is won or lost there, but the model has fewer nodes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import onnx_ir as ir

from irc.passes.fusion.composite import Composite, Fusion, either_way, producer_of
from irc.passes.fusion.scalars import rank_of
from irc.target import is_dequantized

SINCE = 7
"""Since then, Add and Gemm broadcast without being told to."""


@dataclasses.dataclass(frozen=True)
class FuseMatMulAdd(Fusion):
    """One operator instead of two to four.

    Quantized products stay as they are: integer kernels tell MatMul from Gemm.
    """

    name: ClassVar[str] = "fuse-matmul-add"

    def composite(self, last: ir.Node, model: ir.Model) -> Composite | str | None:
        """A Gemm whose sum is this node, or this Gemm without transposes before it."""
        if last.op_type == "Gemm":
            return _gemm(last, (), last, None)
        if last.op_type != "Add":
            return None
        for product, row in either_way(last):
            node = producer_of(product, "MatMul", "Gemm")
            if node is None or _addend(node) is not None:
                continue
            a, b = node.inputs[:2]
            if rank_of(a) != 2 or rank_of(b) != 2 or rank_of(row) not in (1, 2):
                continue
            if _is_row(row, _width(node)):
                return _gemm(node, (node,), last, row)
        return None


def _gemm(
    product: ir.Node, interior: tuple[ir.Node, ...], last: ir.Node, row: ir.Value | None
) -> Composite | str | None:
    """The Gemm for a product, with Transposes that only it needs folded; None if it would be what is there."""
    attributes: dict[str, Any] = dict(product.attributes)
    folded: list[ir.Node] = []
    operands: list[ir.Value] = []
    for value, name in zip(product.inputs[:2], ("transA", "transB"), strict=True):
        if value is None or value.dtype is None:
            return None
        transpose = producer_of(value, "Transpose")
        source = transpose.inputs[0] if transpose is not None else None
        if is_dequantized(value) or is_dequantized(source):
            return "its operands are quantized" if row is not None else None
        if transpose is not None and source is not None and _is_swap(transpose) and _has_one_user(value, last):
            folded.append(transpose)
            value = source
            attributes[name] = 1 - product.attributes.get_int(name, 0)
        operands.append(value)
    addend = row if row is not None else _addend(product)
    if row is not None:
        attributes.pop("beta", None)
    elif not folded:
        return None
    inputs = (*operands, addend) if addend is not None else tuple(operands)
    assert operands[0].dtype is not None
    return Composite("Gemm", SINCE, inputs, (*interior, *folded), operands[0].dtype, attributes)


def _addend(product: ir.Node) -> ir.Value | None:
    return product.inputs[2] if len(product.inputs) > 2 else None


def _width(product: ir.Node) -> int | None:
    """How many columns a product of two matrices has, if that is known."""
    value = product.inputs[1]
    dim = value.shape[product.attributes.get_int("transB", 0) - 1] if value is not None and value.shape else None
    return dim if isinstance(dim, int) else None


def _is_row(value: ir.Value, width: int | None) -> bool:
    """Whether a value adds the same row to every row of a matrix of this width, and enlarges nothing."""
    dims = list(value.shape) if value.shape is not None else []
    return width is not None and dims[-1:] == [width] and all(dim == 1 for dim in dims[:-1])


def _is_swap(transpose: ir.Node) -> bool:
    """Whether what makes an operand of a Gemm or of a product of matrices turns it around."""
    return list(transpose.attributes.get_ints("perm", (1, 0))) == [1, 0]


def _has_one_user(value: ir.Value, last: ir.Node) -> bool:
    """Whether a value goes away with the product, which is in the graph of the last node."""
    producer = value.producer()
    return (
        len(list(value.uses())) == 1
        and not value.is_graph_output()
        and producer is not None
        and producer.graph is last.graph
    )
