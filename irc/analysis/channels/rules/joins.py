"""Concat and Split: pieces of an axis put behind each other, and taken apart."""

from __future__ import annotations

from collections.abc import Sequence

from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.constraints import Reason
from irc.analysis.channels.other_sizes import is_fixed
from irc.analysis.channels.pieces import along_fixed, joined, piece, replaced
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.registration import rule


@rule("Concat")
def concat(view: NodeView) -> None:
    """Y = X1, X2, ... one behind the other along an axis: so are their labels.

    An operand that has none there gets labels that are never cut, so that the others may be.
    """
    join(view, [i for i in range(len(view.node.inputs)) if view.has(i)])


def join(view: NodeView, indices: Sequence[int]) -> None:
    """Some inputs one behind the other along an axis; see `concat`."""
    dims = view.dims_out()
    axis = view.node.attributes.get_int("axis", 1) % len(dims)
    tensors = [along_fixed(view, view.read(i), axis, i) for i in indices]
    for tensor, index in zip(tensors, indices, strict=True):
        if tensor.on(axis) is None and not is_fixed(view, view.node.inputs[index], axis):
            tensors = [view.freed(t, axis, "dynamic size", "joins it with an axis of no fixed size") for t in tensors]
            break
    tensors, rows = _with_equal_rows(view, tensors, axis)
    parts, rest = [], []
    for tensor in tensors:
        bundle = tensor.on(axis)
        parts.append(bundle)
        rest.append(tensor if bundle is None else tensor.without(axis))
    result: list[Bundle | None] = []
    if any(parts):
        order = next(part.axes for part in parts if part is not None)
        pieces = []
        for at, (tensor, part) in enumerate(zip(tensors, parts, strict=True)):
            pieces.append(part if part is not None else _pinned(view, tensor, order, axis, rows))
            rest[at] = rest[at].without(axis, *rows)
        result.append(joined(view, pieces, axis))
    letters = [None if i == axis or i in rows else i for i in range(len(dims))]
    groups = view.align(*((tensor, letters) for tensor in rest))
    result += view.kept(groups, [-1 if letter is None else letter for letter in letters])
    view.write_bundles(result)


def _with_equal_rows(view: NodeView, tensors: list[Labelled], axis: int) -> tuple[list[Labelled], set[int]]:
    """Operands whose bundles along the axis hold the same other axes, and these; others are given up.

    An operand without labels along the axis may have labels of its own on the others.
    """
    while True:
        parts = [tensor.on(axis) for tensor in tensors]
        rows = {a for part in parts if part is not None for a in part.axes} - {axis}
        lost = [row for row in sorted(rows) if not all(_has_row(t, axis, row, rows) for t in tensors)]
        if not lost:
            return tensors, rows
        tensors = [
            view.freed(t, lost[0], "free axis", "joins it with an axis that is not channels")
            if part is not None and lost[0] in part.axes
            else t
            for t, part in zip(tensors, parts, strict=True)
        ]


def _has_row(tensor: Labelled, axis: int, row: int, rows: set[int]) -> bool:
    along, across = tensor.on(axis), tensor.on(row)
    if along is not None:
        return along is across
    return across is not None and set(across.axes) <= rows


def _pinned(view: NodeView, tensor: Labelled, order: Sequence[int], axis: int, rows: set[int]) -> Bundle:
    """Labels for an operand that has none along the axis, never cut along it; its rows are those that it has."""
    bundle = view.constraints.fresh_bundle(order, [tensor.dims[a] for a in order])
    reason = Reason("free axis", f"{view.where} joins it with an axis that is not channels")
    view.constraints.pin(
        view.constraints.representatives(bundle, [axis], reason).labels if rows else bundle.labels, reason
    )
    for part in tensor.bundles:
        if set(part.axes) <= rows:
            view.constraints.subset(part, bundle, reason)
    return bundle


@rule("Split")
def split(view: NodeView) -> None:
    """Y1, Y2, ... = pieces of X along an axis, with the labels of theirs."""
    if view.has(1):
        view.parameters(1)
    tensor = view.read(0)
    axis = view.node.attributes.get_int("axis", 0) % tensor.rank
    tensor = along_fixed(view, tensor, axis)
    outputs = view.node.outputs
    sizes = [(view.propagation.dims(value) or ())[axis] if value.name else 0 for value in outputs]
    bundle = tensor.on(axis)
    unclear = not all(sizes) or not all(is_fixed(view, value, axis) for value in outputs if bundle is not None)
    if bundle is not None and unclear:
        tensor = view.freed(tensor, axis, "dynamic size", "splits it at places that are not fixed")
        bundle = None
    if bundle is not None and len(bundle.axes) > 1 and all(size == 1 for size in sizes):
        view.constraints.picked.add(bundle.factors[bundle.position(axis)])
    start = 0
    for index, size in enumerate(sizes):
        bundles = tensor.bundles
        if bundle is not None:
            bundles = replaced(tensor, bundle, piece(view, bundle, axis, start, start + size))
        view.write_bundles(bundles, index)
        start += size
