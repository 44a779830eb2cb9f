"""Labels through Reshape: carried out on the labels themselves, block by block.

A block is a smallest stretch of input axes that becomes a stretch of output axes. Within a block labels are written out over all its
axes, reshaped, and axes along which they do not change are free again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.constraints import Constraints, Reason

LARGEST = 1 << 24
"""Labels written out over one block, at most."""
_LARGEST_PAIR = 1 << 20
"""Labels of two independent indices that are merged, at most."""
Block = tuple[list[int], list[int]]


def blocks(before: Sequence[int], after: Sequence[int]) -> list[Block]:
    """Smallest stretches of input axes and the output axes they become, in order.

    Axes of size 1 join the block behind them, the last ones the block before them.

    Raises:
        ValueError: If the sizes do not have the same product, or one is 0.
    """
    if 0 in before or 0 in after or math.prod(before) != math.prod(after):
        raise ValueError(f"{list(before)} cannot be reshaped to {list(after)}")
    result: list[Block] = []
    i = j = 0
    while i < len(before) or j < len(after):
        inputs: list[int] = []
        outputs: list[int] = []
        left = right = 1
        while left != right or left == 1:
            if i == len(before) and j == len(after):
                break
            if (left <= right and i < len(before)) or j == len(after):
                left *= before[i]
                inputs.append(i)
                i += 1
            else:
                right *= after[j]
                outputs.append(j)
                j += 1
        if left == 1 and result:
            result[-1][0].extend(inputs)
            result[-1][1].extend(outputs)
        else:
            result.append((inputs, outputs))
    return result


def reshaped(constraints: Constraints, tensor: Labelled, dims: Sequence[int], where: str) -> Labelled:
    """A tensor with other sizes in the same order of elements; its labels are pinned if it has not as many of them."""
    if math.prod(tensor.dims) != math.prod(dims):
        text = f"{where} is told other sizes, so that the model is not made for those analysed"
        constraints.pin_all(tensor.bundles, Reason("unlike sizes", text))
        return Labelled(tuple(dims))
    stretches = blocks(tensor.dims, dims)
    block_of = {axis: index for index, (inputs, _outputs) in enumerate(stretches) for axis in inputs}
    used: dict[int, Bundle] = {}
    for bundle in tensor.bundles:
        for axis in bundle.axes:
            other = used.setdefault(block_of[axis], bundle)
            if other is not bundle:
                rest = tensor.without(*bundle.axes, *other.axes).bundles
                both = _crossed(constraints, other, bundle, where)
                return reshaped(constraints, Labelled(tensor.dims, (*rest, *both)), dims, where)
    result = []
    for bundle in tensor.bundles:
        mine = sorted({block_of[axis] for axis in bundle.axes})
        moved = _moved(constraints, bundle, tensor.dims, dims, [stretches[i] for i in mine], where)
        if moved is not None:
            constraints.box(moved)
            result.append(moved)
    return Labelled(tuple(dims), tuple(result))


def _crossed(constraints: Constraints, one: Bundle, other: Bundle, where: str) -> list[Bundle]:
    """Two independent indices, as heads and the dimensions of values that all heads share, as one bundle: either may be cut."""
    reason = Reason("merged axes", f"{where} merges two independent indices")
    if one.labels.size * other.labels.size > _LARGEST_PAIR:
        constraints.pin_all([one, other], reason)
        return []
    outer, inner = sorted((one, other), key=lambda bundle: min(bundle.axes))
    whole = constraints.fresh_bundle((*outer.axes, *inner.axes), (*outer.labels.shape, *inner.labels.shape))
    constraints.box(whole)
    for part in (outer, inner):
        constraints.subset(part, whole, reason)
    return [whole]


def _moved(
    constraints: Constraints,
    bundle: Bundle,
    before: Sequence[int],
    after: Sequence[int],
    stretches: Sequence[Block],
    where: str,
) -> Bundle | None:
    renamed = {}
    for inputs, outputs in stretches:
        wide_in = [axis for axis in inputs if before[axis] != 1]
        wide_out = [axis for axis in outputs if after[axis] != 1]
        if len(wide_in) == len(wide_out) == 1:
            renamed[wide_in[0]] = wide_out[0]
    if all(axis in renamed for axis in bundle.axes):
        return bundle.at([renamed[axis] for axis in bundle.axes])
    in_axes = [axis for inputs, _ in stretches for axis in inputs]
    out_axes = [axis for _, outputs in stretches for axis in outputs]
    in_dims, out_dims = [before[a] for a in in_axes], [after[a] for a in out_axes]
    if math.prod(in_dims) > LARGEST:
        constraints.pin(bundle.labels, Reason("too large", f"{where} merges it with an axis too long to follow"))
        return None
    axes, labels, factors = bundle.physical()
    spread = [before[a] if a in axes else 1 for a in in_axes]
    wide = np.broadcast_to(labels.reshape(spread), in_dims).reshape(out_dims)
    varies = [i for i in range(len(out_dims)) if (wide != np.take(wide, [0], axis=i)).any()]
    if not varies:
        constraints.pin(bundle.labels, Reason("merged axes", f"{where} leaves no axis for it"))
        return None
    sources = _sources(in_axes, in_dims, out_dims, axes)
    # Rows stay before members: the order of the bundle's axes, and within one the order of what it is split into.
    places = []
    for i in varies:
        first = min((bundle.position(axis) for axis in axes if i in sources[axis]), default=0)
        places.append((first, i))
    order = [i for _first, i in sorted(places)]
    narrow = wide[tuple(slice(None) if i in varies else 0 for i in range(len(out_dims)))]
    narrow = np.ascontiguousarray(np.transpose(narrow, [varies.index(i) for i in order]))
    new_factors = []
    for i in order:
        mine = [axis for axis in axes if i in sources[axis]]
        alone = len(mine) == 1 and [o for o in varies if o in sources[mine[0]]] == [i]
        if alone:
            new_factors.append(factors[axes.index(mine[0])])
        else:
            first = min(mine, key=bundle.position) if mine else axes[0]
            new_factors.append(constraints.factor(within=factors[axes.index(first)], position=i))
    result = Bundle(tuple(out_axes[i] for i in order), narrow, tuple(new_factors))
    for inputs, outputs in stretches:
        constraints.flattened(bundle, inputs)
        constraints.flattened(result, outputs)
    return result


def _sources(
    in_axes: Sequence[int], in_dims: Sequence[int], out_dims: Sequence[int], axes: Sequence[int]
) -> dict[int, set[int]]:
    """For each labelled input axis, the positions of output axes along which its index changes."""
    result = {}
    for axis in axes:
        at = in_axes.index(axis)
        index = np.arange(in_dims[at], dtype=np.int32).reshape([-1 if i == at else 1 for i in range(len(in_dims))])
        wide = np.broadcast_to(index, in_dims).reshape(out_dims)
        result[axis] = {i for i in range(len(out_dims)) if (wide != np.take(wide, [0], axis=i)).any()}
    return result
