"""Remove what selects everything, in order.

Where(true, x, y)                            =>   x      if the condition and y do not enlarge it
Where(false, x, y)                           =>   y      if the condition and x do not enlarge it
Where(c, x, x)                               =>   x      if the condition does not enlarge it
Gather<axis=1>(x: float[n, 3], [0, 1, 2])    =>   x

Not bit by bit: a Where of ONNX Runtime turns a -0.0 of its first input into 0.0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from irc.ir import constant_tensor
from irc.pass_base import Context, Contract, Pass, Site, Skip
from irc.passes.simplification.dimensions import Dimensions, Dims
from irc.passes.simplification.pass_through import pass_through
from irc.passes.simplification.scopes import STANDARD_DOMAINS

MAX_BYTES = 1 << 20
"""Larger conditions and indices (1 MiB) are not read."""


@dataclasses.dataclass(frozen=True)
class EliminateNoOpSelection(Pass):
    """Removes a Where that always takes the same input, and a Gather of all elements in order.

    Where one connects a graph input with a graph output, an Identity takes its place.
    """

    name: ClassVar[str] = "eliminate-no-op-selection"
    contract: ClassVar[Contract] = Contract.ROUNDING
    requires: ClassVar[tuple[str, ...]] = ("shapes-known",)
    invalidates: ClassVar[tuple[str, ...]] = ()

    def sites(self, model: ir.Model, ctx: Context) -> Iterator[Site | Skip]:
        """Yields the nodes that return one of their inputs, and those that would but for a shape."""
        dims = Dimensions(model)
        for node in model.graph.all_nodes():
            if node.domain not in STANDARD_DOMAINS or node.op_type not in ("Gather", "Where"):
                continue
            found = _taken(node, dims) if node.op_type == "Where" else _gathered(node, dims)
            if isinstance(found, str):
                yield Skip(node, found)
            elif found is not None:
                yield Site(node, match=found)

    def rewrite(self, site: Site, ctx: Context) -> Skip | None:
        """Lets the users of the output use the input."""
        assert site.node is not None
        pass_through(site.node, site.match)
        return None


def _taken(where: ir.Node, dims: Dimensions) -> ir.Value | str | None:
    """The input that a Where returns, a reason if it may enlarge it, None if it selects."""
    condition, yes, no = where.inputs
    array = _small(condition)
    if yes is no:
        taken = yes
    elif array is not None and array.size and (array.all() or not array.any()):
        taken = yes if array.all() else no
    else:
        return None
    if taken is None or not all(_fits(dims.of(other), dims.of(taken)) for other in where.inputs):
        return "the condition or the other input may enlarge the one that is taken"
    return taken


def _fits(shape: Dims | None, into: Dims | None) -> bool:
    """Whether broadcasting a shape with another leaves the other as it is."""
    if shape == ():
        return True
    if shape is None or into is None or len(shape) > len(into):
        return False
    return all(n in (1, d) for n, d in zip(shape, into[len(into) - len(shape) :], strict=True))


def _gathered(gather: ir.Node, dims: Dimensions) -> ir.Value | None:
    """The input of a Gather that takes all elements of an axis in order."""
    source, shape, indices = gather.inputs[0], dims.of(gather.inputs[0]), _small(gather.inputs[1])
    if shape is None or indices is None or indices.ndim != 1:
        return None
    axis = gather.attributes.get_int("axis", 0)
    size = shape[axis] if -len(shape) <= axis < len(shape) else None
    if not isinstance(size, int) or len(indices) != size:
        return None
    from_front = np.where(indices < 0, indices + size, indices)
    return source if np.array_equal(from_front, np.arange(size)) else None


def _small(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    tensor = constant_tensor(value)
    return None if tensor is None or tensor.nbytes > MAX_BYTES else np.asarray(tensor.numpy())
