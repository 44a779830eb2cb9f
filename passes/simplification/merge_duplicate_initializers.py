"""Keep one of several constants that are equal bit by bit.

    y = Add(MatMul(x, w1), w2), w1 and w2 equal   =>   y = Add(MatMul(x, w1), w1)

The first one stays. A body of an If, Loop or Scan uses the constant of a graph around it in place of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import onnx_ir as ir

from irc.ir import constant_tensor, replace_value
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.scopes import enclosing_scopes
from irc.passes.simplification.tensor_content import ContentKey, content_key, sample_key

_Constant = tuple[ir.Value, ir.Graph, ir.TensorProtocol]


@dataclasses.dataclass(frozen=True)
class MergeDuplicateInitializers(Pass):
    """Makes the users of equal constants share one; equal means dtype, shape and every bit.

    Constants that callers may override (graph inputs) stay, as do those that are graph outputs: their names are public.
    A constant is read only if another one has its dtype, shape and a sample of its elements, and then piece by piece.
    """

    name: ClassVar[str] = "merge-duplicate-initializers"
    contract: ClassVar[Contract] = Contract.EXACT
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields every constant but the first of its kind that its users can see; its id is the constant's name."""
        scopes = enclosing_scopes(model.graph)
        for equal in _equal_constants(scopes):
            kept: dict[ir.Graph, ir.Value] = {}
            for graph, values in equal.items():
                outer = (kept[scope] for scope in scopes[graph] if scope in kept)
                public = (value for value in values if value.is_graph_output())
                kept[graph] = next(itertools.chain(outer, public, values))
                for value in values:
                    if value is not kept[graph]:
                        yield from _found(value, kept[graph])

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Makes the users of the duplicate use the other constant, and removes the duplicate."""
        duplicate, kept = site.match
        replace_value(duplicate, kept)
        del duplicate.graph.initializers[duplicate.name]
        return None


def _found(duplicate: ir.Value, kept: ir.Value) -> Iterator[Site | Skip]:
    """One finding for a constant that is equal to another; none if nothing uses it."""
    name = duplicate.name or ""
    users = duplicate.uses()
    if duplicate.is_graph_output():
        yield Skip(None, f"it equals {kept.name!r}, but is a graph output, whose name must stay", id=name)
    elif users:
        yield Site(next(iter(users)).node, match=(duplicate, kept), id=name)


def _equal_constants(graphs: Iterable[ir.Graph]) -> Iterator[dict[ir.Graph, list[ir.Value]]]:
    """The constants that are equal to others, by the graph they belong to; the cheap comparison comes first."""
    constants = [
        (value, graph, tensor)
        for graph in graphs
        for value in graph.initializers.values()
        if (tensor := constant_tensor(value)) is not None
    ]
    for similar in _repeated(constants, sample_key):
        for equal in _repeated(similar, content_key):
            by_graph: dict[ir.Graph, list[ir.Value]] = {}
            for value, graph, _ in equal:
                by_graph.setdefault(graph, []).append(value)
            yield by_graph


def _repeated(constants: Iterable[_Constant], key: Callable[[ir.TensorProtocol], ContentKey]) -> list[list[_Constant]]:
    """Groups of two and more constants of one key, all in order."""
    groups: dict[ContentKey, list[_Constant]] = {}
    for constant in constants:
        groups.setdefault(key(constant[2]), []).append(constant)
    return [group for group in groups.values() if len(group) > 1]
