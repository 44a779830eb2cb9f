"""Recurrent layers: hidden units are rows of every gate of W, R and B, columns of R, and the state.

With two directions labels are joint, [direction, unit], so that forward and backward may lose different units, as many each.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irc.analysis.channels.alignment import Letter
from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.constraints import Reason
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.registration import rule

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_X, _W, _R, _B, _LENGTHS, _H, _C, _P = range(8)


@rule("LSTM", "GRU", "RNN")
def recurrent(view: NodeView) -> None:
    """h[t] = f(W x[t] + R h[t-1] + B) per direction."""
    gates = _GATES[view.node.op_type]
    batch_first = bool(view.node.attributes.get_int("layout", 0))
    directions, _rows, hidden = view.propagation.dims(_value(view, _R)) or (0, 0, 0)
    inputs = view.read(_X).dims[2]
    view.parameters(_LENGTHS)
    x = view.read(_X)
    for axis in (0, 1):
        x = view.freed(x, axis, "recurrent axis", "runs along this axis or batches by it")
    w, r = (directions, gates, hidden, inputs), (directions, gates, hidden, hidden)
    weights = _claimed(view, _W, w, (0, 1, 1, 2), ((0, 2), (3,)))
    recurrence = _claimed(view, _R, r, (0, 1, 1, 2), ((0, 2), (0, 3)))
    read = view.align((x, ("time", "batch", "input")), (_only(weights[1], 3), (None, None, None, "input")))
    unit: tuple[Letter | None, ...] = ("direction", None, "hidden", None)
    column: tuple[Letter | None, ...] = ("direction", None, None, "hidden")
    operands: list[tuple[Labelled, Sequence[Letter | None]]] = [
        (_only(weights[0], 2), unit),
        (_only(recurrence[0], 2), unit),
        (_only(recurrence[1], 3), column),
    ]
    for index, parts in ((_B, 2 * gates), (_P, 3)):
        if view.has(index):
            claimed = _claimed(view, index, (directions, parts, hidden), (0, 1, 1), ((0, 2),))
            operands.append((_only(claimed[0], 2), ("direction", None, "hidden")))
    places = ("batch", "direction", "hidden") if batch_first else ("direction", "batch", "hidden")
    at = places.index("direction")
    for index in (_H, _C):
        if view.has(index):
            dims = view.propagation.dims(_value(view, index)) or ()
            state = _claimed(view, index, dims, (0, 1, 2), ((at, 2),), direction=at, gates=None)
            operands.append((view.freed(state[0], 1 - at, "recurrent axis", "batches by this axis"), places))
    made = view.align(*operands)
    view.costs([*read, *made], inner=(_R,))
    time: tuple[Letter, ...] = (
        ("batch", "time", "direction", "hidden") if batch_first else ("time", "direction", "batch", "hidden")
    )
    for index, letters in enumerate((time, places, places)):
        if view.makes(index):
            view.write_bundles(view.kept(made, letters), index)


def _value(view: NodeView, index: int) -> ir.Value:
    value = view.node.inputs[index]
    assert value is not None
    return value


def _only(tensor: Labelled, axis: int) -> Labelled:
    """Sizes and the bundles that hold an axis, all other axes as if they were of size 1."""
    bundles = tuple(b for b in tensor.bundles if axis in b.axes)
    held = {a for b in bundles for a in b.axes} | {axis}
    return Labelled(tuple(size if i in held else 1 for i, size in enumerate(tensor.dims)), bundles)


def _claimed(
    view: NodeView,
    index: int,
    dims: Sequence[int],
    axis_of: Sequence[int],
    joint: Sequence[Sequence[int]],
    *,
    direction: int = 0,
    gates: int | None = 1,
) -> list[Labelled]:
    """An operand split into gates, once per bundle asked for.

    An initializer of this node alone has labels of its own per direction; anything else has the same in all, as computed weights and states
    that come from elsewhere do.
    """
    value = _value(view, index)
    slot = None
    if dims[-1] > 1 and all(dims[axis] > 1 for axes in joint for axis in axes[1:]):
        slot = view.propagation.claim(value, dims, axis_of, joint)
    if slot is not None:
        for bundle in slot.bundles:
            if len(bundle.axes) > 1:
                view.constraints.picked.add(bundle.factors[0])
        return [Labelled(tuple(dims), tuple(b for b in slot.bundles if b.axes[-1] == axes[-1])) for axes in joint]
    tensor = view.read(index)
    if gates is not None:
        tensor = view.freed(tensor, direction, "direction", "runs in this direction")
        tensor = _alike(view, tensor, dims)
    for bundle in tensor.bundles if gates is None else ():
        if direction in bundle.axes and len(bundle.axes) > 1:
            view.constraints.picked.add(bundle.factors[bundle.position(direction)])
    return [tensor for _axes in joint]


def _alike(view: NodeView, tensor: Labelled, dims: Sequence[int]) -> Labelled:
    """Weights [directions, gates * hidden, ...] as [directions, gates, hidden, ...], labels the same in every gate."""
    bundles = []
    for bundle in tensor.bundles:
        if 1 not in bundle.axes:
            bundles.append(bundle.at([axis + 1 for axis in bundle.axes]))
        elif len(bundle.axes) == 1:
            labels = bundle.labels.reshape(dims[1], dims[2])
            view.constraints.equal(labels[:1], labels)
            if dims[2] == 1:
                view.constraints.pin(labels, Reason("single unit", f"{view.where} has one unit"))
            else:
                bundles.append(Bundle((2,), labels[0], (view.constraints.factor(within=bundle.factors[0]),)))
        else:
            view.constraints.pin(
                bundle.labels, Reason("joint index", f"{view.where} has gates along one of several axes")
            )
    return Labelled(tuple(dims), tuple(bundles))
