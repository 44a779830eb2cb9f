"""What steps that write out a pattern share: its nodes are hidden or not, its numbers and operands right or nearly right.

A pass that looks for a pattern must find it in every order of writing it down, and must leave what only resembles it: a
constant that is a little off, another axis, something else that uses what is computed on the way, or hands it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from irc.testing.random_graph import TYPES, GraphBuilder, Shape, Value

T = TypeVar("T")
MISSES = 8
"""One in so many details of a pattern is wrong."""


class Pattern:
    """A pattern being written into a graph.

    Args:
        graph: Where its nodes go. Three times of four nothing else uses what is computed on the way.
    """

    def __init__(self, graph: GraphBuilder) -> None:
        self.graph = graph
        self._hidden = not graph.chance(4)

    def nearly(self, right: T, *wrong: T) -> T:
        """What makes the pattern what it is, or seldom something else."""
        return self.graph.choices.pick(wrong) if self.graph.chance(MISSES) else right

    def either(self, *options: T) -> T:
        """One of several ways to write it, all right."""
        return self.graph.choices.pick(options)

    def node(
        self,
        op_type: str,
        inputs: Sequence[Value | str],
        shape: Shape | None = None,
        *,
        dtype: str | None = None,
        exact: bool = False,
        last: bool = False,
        **attributes: Any,
    ) -> Value:
        """Adds a node of one output, by default of the type and shape of the first input.

        Args:
            op_type: Operator.
            inputs: Values; "" for a missing one.
            shape: Of the output.
            dtype: Of the output.
            exact: Whether the operator only moves or copies.
            last: Whether the pattern ends here, so that what follows may use the output.
            attributes: Those of the node.
        """
        first = next(value for value in inputs if isinstance(value, Value))
        face = (dtype or first.dtype, first.shape if shape is None else shape)
        hide = self._hidden and not last
        return self.graph.add(op_type, inputs, [face], exact=exact, hide=hide, **attributes)[0]

    def joined(
        self, op_type: str, one: Value, other: Value, shape: Shape | None = None, *, last: bool = False
    ) -> Value:
        """A sum or product, its operands in either order; by default of the shape of the first."""
        operands = self.either((one, other), (other, one))
        return self.node(op_type, operands, one.shape if shape is None else shape, last=last)

    def number(self, value: float, dtype: str, *, rank: int = 0) -> Value:
        """A constant of one element, of rank zero or, if what it meets has a higher rank, one."""
        return self.graph.constant([value] if rank > 0 and self.graph.chance(3) else value, dtype)

    def cast(self, value: Value, dtype: str, *, last: bool = False) -> Value:
        """The value in another type."""
        return self.node("Cast", [value], dtype=dtype, exact=True, last=last, to=TYPES[dtype])


def whole(shape: Shape) -> tuple[int, ...] | None:
    """The sizes if all are known and none is zero."""
    sizes = tuple(size for size in shape if isinstance(size, int) and size > 0)
    return sizes if len(sizes) == len(shape) else None
