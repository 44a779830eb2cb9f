"""Arithmetic of a few values as a polynomial, so that one comparison covers every order of writing it down.

0.5 * (x * (1 + t)),  x * (0.5 * t + 0.5),  (x / 2) * (t + 1)      =>   {(1, 0): 0.5, (1, 1): 0.5}  of x and t
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from irc.passes.fusion.composite import producer_of, two_inputs
from irc.passes.fusion.scalars import rank_of, same, scalar

Terms = dict[tuple[int, ...], float]
"""Coefficient of each monomial, by the exponents of the values."""

ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow")
MAX_DEPTH = 7
MAX_DEGREE = 4


class Polynomial:
    """What a value is as a polynomial of some values.

    Args:
        value: What is expanded, through Add, Sub, Mul, Div by a constant, and Pow with a small whole exponent.
        of: The values, at which expansion stops.

    Attributes:
        terms: The coefficients; None if the value is no polynomial of these values and constants of one element.
        nodes: The nodes it went through.
    """

    def __init__(self, value: ir.Value, of: Sequence[ir.Value]) -> None:
        self._of = tuple(of)
        self._rank = rank_of(self._of[0])
        self.nodes: list[ir.Node] = []
        self.terms = self._expand(value, MAX_DEPTH)

    def equals(self, wanted: Mapping[tuple[int, ...], float], dtype: ir.DataType) -> bool:
        """Whether the coefficients are these, up to the rounding of a type."""
        terms = self.terms
        return (
            terms is not None
            and terms.keys() == wanted.keys()
            and all(same(terms[key], number, dtype) for key, number in wanted.items())
        )

    def _expand(self, value: ir.Value, depth: int) -> Terms | None:
        for index, one in enumerate(self._of):
            if value is one:
                return {tuple(int(i == index) for i in range(len(self._of))): 1.0}
        if (number := scalar(value, self._rank)) is not None:
            return {(0,) * len(self._of): number}
        node = producer_of(value, *ARITHMETIC) if depth else None
        pair = two_inputs(node) if node is not None else None
        if node is None or pair is None:
            return None
        self.nodes.append(node)
        if node.op_type in ("Div", "Pow"):
            return self._with_number(node.op_type, self._expand(pair[0], depth - 1), scalar(pair[1], self._rank))
        if (a := self._expand(pair[0], depth - 1)) is None or (b := self._expand(pair[1], depth - 1)) is None:
            return None
        if node.op_type == "Mul":
            return _product(a, b)
        return _sum(a, b, -1.0 if node.op_type == "Sub" else 1.0)

    def _with_number(self, op_type: str, base: Terms | None, number: float | None) -> Terms | None:
        if base is None or number is None:
            return None
        if op_type == "Div":
            return {key: value / number for key, value in base.items()} if number else None
        if number not in (2.0, 3.0):
            return None
        result: Terms | None = base
        for _ in range(int(number) - 1):
            result = _product(result, base) if result is not None else None
        return result


def _product(a: Terms, b: Terms) -> Terms | None:
    result: Terms = {}
    for first, x in a.items():
        for second, y in b.items():
            key = tuple(i + j for i, j in zip(first, second, strict=True))
            if sum(key) > MAX_DEGREE:
                return None
            result[key] = result.get(key, 0.0) + x * y
    return result


def _sum(a: Terms, b: Terms, sign: float) -> Terms:
    return {key: a.get(key, 0.0) + sign * b.get(key, 0.0) for key in dict.fromkeys((*a, *b))}


def leaves(value: ir.Value | None, depth: int = MAX_DEPTH) -> Iterator[ir.Value]:
    """The values behind the arithmetic that makes a value, and those on the way, nearest first and each once."""
    level, seen = [value] if value is not None else [], set()
    for _ in range(depth + 1):
        following: list[ir.Value] = []
        for one in level:
            if one in seen:
                continue
            seen.add(one)
            yield one
            node = producer_of(one, *ARITHMETIC)
            if node is not None:
                following += [used for used in node.inputs if used is not None]
        level = following
