"""Attention as two products: scores Q K^T over head dimensions, and weights times V.

In letters: Q [batch, kv, rep, s, d], K [batch, kv, t, d], V [batch, kv, t, v] => Y [batch, kv, rep, s, v]; every head of K and V
serves `rep` consecutive heads of Q. Row mode cuts heads of K and V with those of Q that they serve, column mode dimensions of heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from irc.analysis.channels.alignment import Group, Letter
from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.constraints import Reason
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.reshaping import reshaped
from irc.analysis.channels.rules.registration import rule

_Meeting = tuple[Labelled, Sequence[Letter | None]]
_QUERY: tuple[Letter, ...] = ("batch", "kv", "rep", "s", "d")
_KEY: tuple[Letter, ...] = ("batch", "kv", "t", "d")
_VALUE: tuple[Letter, ...] = ("batch", "kv", "t", "v")
_MADE: tuple[Letter, ...] = ("batch", "kv", "rep", "s", "v")


@dataclasses.dataclass(frozen=True)
class Heads:
    """How many heads there are.

    Attributes:
        kv: Of keys and values.
        rep: Of queries, for each of these.
    """

    kv: int
    rep: int


@rule("Attention")
def attention(view: NodeView) -> None:
    """Operands [batch, heads, places, dimensions] or [batch, places, heads * dimensions]."""
    q, k, v = (view.read(index) for index in range(3))
    flat = q.rank == 3
    attributes = view.node.attributes
    queries = attributes.get_int("q_num_heads", 1) if flat else q.dims[1]
    kv = attributes.get_int("kv_num_heads", 1) if flat else k.dims[1]
    heads = Heads(kv, queries // kv)
    view.parameters(6)
    keys: list[_Meeting] = [(split_heads(view, k, kv), _KEY)]
    values: list[_Meeting] = [(split_heads(view, v, kv), _VALUE)]
    for index, letters, operands in ((4, _KEY, keys), (5, _VALUE, values)):
        if view.has(index):
            past = tuple("past" if letter == "t" else letter for letter in letters)
            operands.append((_still(view, view.read(index), (2,)), past))
    masks = [_mask(view, view.read(3), heads)] if view.has(3) else []
    whole = split_heads(view, q, queries)
    outer = [bundle.factors[bundle.position(1)] for bundle in whole.bundles if 1 in bundle.axes]
    scores, made = attend(view, split_queries(view, whole, heads), keys, values, masks, heads=outer)
    write_heads(view, made, heads, flat=flat)
    for index, operands, letters in ((1, keys, _KEY), (2, values, _VALUE)):
        if view.makes(index):
            view.write_bundles(view.kept(view.align(*operands), letters), index)
    if view.makes(3):
        rows = view.kept(scores, ("batch", "kv", "rep", "s"))
        dims = view.dims_out(3)
        five = Labelled((dims[0], heads.kv, heads.rep, *dims[2:]), tuple(rows))
        view.write_bundles(reshaped(view.constraints, five, dims, view.where).bundles, 3)


@rule("MultiHeadAttention", domain="com.microsoft")
def multi_head_attention(view: NodeView) -> None:
    """Query, key and value [batch, places, heads * dimensions], or keys and values [batch, heads, places, dimensions]; one bias for all."""
    if not (view.has(1) and view.has(2)) or view.read(0).rank != 3 or view.read(1).rank == 5:
        view.pin_inputs("packed", f"{view.where} reads queries, keys and values packed together")
        return
    view.parameters(4, 8, 9)
    q, k, v = (view.read(index) for index in range(3))
    heads = Heads(view.node.attributes.get_int("num_heads", 1), 1)
    dims_q, dims_v = q.dims[2] // heads.kv, (v.dims[2] // heads.kv if v.rank == 3 else v.dims[3])
    queries: list[_Meeting] = [split_queries(view, q, heads)]
    keys: list[_Meeting] = [(split_heads(view, k, heads.kv), _KEY)]
    values: list[_Meeting] = [(split_heads(view, v, heads.kv), _VALUE)]
    if view.has(3):
        sizes = [heads.kv * dims_q, heads.kv * dims_q, heads.kv * dims_v]
        parts = pieces(view, view.read(3), 0, sizes)
        for operands, part, letter in zip((queries, keys, values), parts, "ddv", strict=True):
            dims = (heads.kv, part.dims[0] // heads.kv)
            operands.append((reshaped(view.constraints, part, dims, view.where), ("kv", letter)))
    for index, letters, operands in ((6, _KEY, keys), (7, _VALUE, values)):
        if view.has(index):
            past = tuple("past" if letter == "t" else letter for letter in letters)
            operands.append((_still(view, view.read(index), (2,)), past))
    masks = [_mask(view, view.read(5), heads)] if view.has(5) else []
    groups = view.align(*queries)
    query: _Meeting = (Labelled(queries[0][0].dims, tuple(view.kept(groups, _QUERY))), _QUERY)
    _scores, made = attend(view, query, keys, values, masks, inner=(3,))
    write_heads(view, made, heads, flat=True)
    for index, operands, letters in ((1, keys, _KEY), (2, values, _VALUE)):
        if view.makes(index):
            view.write_bundles(view.kept(view.align(*operands), letters), index)


@rule("Attention", domain="com.microsoft")
def packed_attention(view: NodeView) -> None:
    """Attention of x W + B, with queries, keys and values side by side in the columns of W."""
    view.parameters(3, 6)
    if view.has(4) or view.makes(1) or view.node.attributes.get_int("do_rotary", 0) != 0:
        view.pin_inputs("state", f"{view.where} has a state or rotates")
        return
    x, weight = view.read(0), view.read(1)
    count = view.node.attributes.get_int("num_heads", 1)
    heads = Heads(count, 1)
    columns = weight.dims[1]
    sizes = view.node.attributes.get_ints("qkv_hidden_sizes", [columns // 3] * 3)
    read = view.align(
        (x, ("batch", "s", "input")), (Labelled((weight.dims[0],), weight.without(1).bundles), ("input",))
    )
    made_by = [(Labelled((columns,), tuple(b.at((0,)) for b in weight.bundles if b.axes == (1,))), 0)]
    if view.has(2):
        made_by.append((view.read(2), 0))
    operands: list[list[_Meeting]] = [[], [], []]
    for tensor, axis in made_by:
        for operand, part, letter in zip(operands, pieces(view, tensor, axis, sizes), "ddv", strict=True):
            dims = (count, part.dims[0] // count)
            operand.append((reshaped(view.constraints, part, dims, view.where), ("kv", letter)))
    masks = [_mask(view, view.read(5), heads)] if view.has(5) else []
    batch, places = x.dims[:2]
    query = view.kept(view.align(*operands[0]), _QUERY)
    full = (Labelled((batch, count, 1, places, sizes[0] // count), tuple(query)), _QUERY)
    _scores, made = attend(view, full, operands[1], operands[2], masks)
    view.costs([*read, *made], inner=(1, 2))
    write_heads(view, made, heads, flat=True)


def split_heads(view: NodeView, tensor: Labelled, heads: int) -> Labelled:
    """Keys or values as [batch, heads, places, dimensions], their places fixed."""
    if tensor.rank == 3:
        batch, places, width = tensor.dims
        tensor = _still(view, tensor, (1,))
        tensor = reshaped(view.constraints, tensor, (batch, places, heads, width // heads), view.where)
        return tensor.transposed((0, 2, 1, 3))
    return _still(view, tensor, (2,))


def split_queries(view: NodeView, tensor: Labelled, heads: Heads) -> _Meeting:
    """Queries as [batch, kv, rep, places, dimensions]."""
    tensor = split_heads(view, tensor, heads.kv * heads.rep)
    batch, _heads, places, width = tensor.dims
    dims = (batch, heads.kv, heads.rep, places, width)
    return reshaped(view.constraints, tensor, dims, view.where), _QUERY


def attend(
    view: NodeView,
    query: _Meeting,
    keys: list[_Meeting],
    values: list[_Meeting],
    masks: list[_Meeting],
    *,
    heads: Sequence[int] = (),
    inner: Sequence[int] = (),
) -> tuple[list[Group], list[Group]]:
    """Both products; the labels of the scores and of what is made.

    Args:
        view: The node.
        query: With the letters of a query.
        keys: What meets it, with those of a key.
        values: With those of a value.
        masks: What is added to the scores.
        heads: Factors of the heads of queries, where several of these share keys.
        inner: Inputs that are added to operands within the node.
    """
    scores = view.align(query, *keys)
    kv, rep = query[0].dims[1:3]
    sizes = {"kv": kv, "rep": rep, "v": values[0][0].dims[-1]}
    rows = [group.bundle for group in scores]
    found = view.kept(scores, ("kv", "rep"))
    weights: _Meeting = (Labelled((kv, rep), tuple(found)), ("kv", "rep"))
    view.align(weights, *masks)
    if not found and kv * rep > 1:
        wide = [axis for axis, size in enumerate((kv, rep)) if size > 1]
        fixed = view.constraints.fresh_bundle(wide, [(kv, rep)[axis] for axis in wide])
        view.constraints.pin(
            fixed.labels, Reason("free axis", f"{view.where} has queries or keys with heads that stay")
        )
        weights = (Labelled((kv, rep), (fixed,)), ("kv", "rep"))
    meeting: list[_Meeting] = [weights, *values]
    letters = _labelled(meeting)
    if letters and all(set(letters) - set(_labelled([one])) for one in meeting):
        whole = view.constraints.fresh_bundle(range(len(letters)), [sizes[letter] for letter in letters])
        view.constraints.box(whole)
        meeting.append((Labelled(tuple(sizes[letter] for letter in letters), (whole,)), letters))
    made = view.align(*meeting)
    repeated = [g.bundle.factors[g.letters.index("rep")] for g in (*scores, *made) if "rep" in g.letters]
    _outside_of_dimensions(view, [*repeated, *heads] if repeated else [], [query, *keys, *values])
    view.costs([*scores, *made], shared=found if rows else [], inner=inner)
    return scores, made


def _outside_of_dimensions(view: NodeView, outer: Sequence[int], operands: Sequence[_Meeting]) -> None:
    """Heads are rows and their dimensions members, whichever of the operands was labelled first."""
    for tensor, letters in operands:
        for bundle in tensor.bundles:
            for axis, factor in zip(bundle.axes, bundle.factors, strict=True):
                if letters[axis] in ("d", "v"):
                    for row in outer:
                        view.constraints.same_factor(view.constraints.factor(before=factor), row)


def _labelled(meeting: Sequence[_Meeting]) -> tuple[str, ...]:
    """Which of the letters of what attention makes have labels, in their order."""
    found = {letters[axis] for tensor, letters in meeting for bundle in tensor.bundles for axis in bundle.axes}
    return tuple(letter for letter in ("kv", "rep", "v") if letter in found)


def write_heads(view: NodeView, made: Sequence[Group], heads: Heads, *, flat: bool) -> None:
    """What attention makes, heads side by side or in an axis of their own."""
    dims = view.dims_out()
    bundles: list[Bundle] = view.kept(made, _MADE)
    for bundle in bundles:
        view.constraints.box(bundle)
    width = dims[2] // (heads.kv * heads.rep) if flat else dims[3]
    tensor = Labelled((dims[0], heads.kv, heads.rep, dims[1] if flat else dims[2], width), tuple(bundles))
    if flat:
        tensor = tensor.transposed((0, 3, 1, 2, 4))
    view.write_bundles(reshaped(view.constraints, tensor, dims, view.where).bundles)


def pieces(view: NodeView, tensor: Labelled, axis: int, sizes: Sequence[int]) -> list[Labelled]:
    """Stretches of an operand of one axis."""
    bundle = tensor.on(axis)
    result = []
    start = 0
    for size in sizes:
        part = None if bundle is None else bundle.take(axis, np.arange(start, start + size))
        if part is not None and size == 1:
            view.constraints.pin(part.labels, Reason("single", f"{view.where} has one of it"))
            part = None
        result.append(Labelled((size,), () if part is None else (part.at((0,)),)))
        start += size
    return result


def _still(view: NodeView, tensor: Labelled, axes: Sequence[int]) -> Labelled:
    for axis in axes:
        tensor = view.freed(tensor, axis, "attended axis", "attends along this axis")
    return tensor


def _mask(view: NodeView, tensor: Labelled, heads: Heads) -> _Meeting:
    """What is added to the scores, as [batch, kv, rep, s, t] or less at the left."""
    tensor = _still(view, tensor, range(max(0, tensor.rank - 2), tensor.rank))
    letters: tuple[Letter, ...] = ("batch", "kv", "rep", "s", "t")
    if tensor.rank < 3:
        return tensor, letters[len(letters) - tensor.rank :]
    batch, count, rest = tensor.dims[:-3], tensor.dims[-3], tensor.dims[-2:]
    split = (heads.kv, heads.rep) if count > 1 else (1, 1)
    tensor = reshaped(view.constraints, tensor, (*batch, *split, *rest), view.where)
    return tensor, letters[len(letters) - tensor.rank :]


@rule("RotaryEmbedding")
def rotary(view: NodeView) -> None:
    """Pairs of dimensions of every head are rotated by an angle of their place."""
    view.parameters(1, 2, 3)
    _rotate(view, view.node.attributes.get_int("num_heads", 0), 2 * view.read(1).dims[-1])


@rule("RotaryEmbedding", domain="com.microsoft")
def runtime_rotary(view: NodeView) -> None:
    """The same with its inputs in another order."""
    view.parameters(1, 2, 3)
    _rotate(view, view.node.attributes.get_int("num_heads", 0), 2 * view.read(2).dims[-1])


def _rotate(view: NodeView, heads: int, width: int) -> None:
    tensor = view.read(0)
    text = "rotates pairs of dimensions"
    if tensor.rank == 4:
        tensor = view.freed(_still(view, tensor, (2,)), 3, "rotated axis", text)
        view.write_bundles(tensor.bundles)
        return
    tensor = _still(view, tensor, (1,))
    batch, places, size = tensor.dims
    width = size // heads if heads else width
    split = reshaped(view.constraints, tensor, (batch, places, size // width, width), view.where)
    split = view.freed(split, 3, "rotated axis", text)
    view.write_bundles(reshaped(view.constraints, split, view.dims_out(), view.where).bundles)
