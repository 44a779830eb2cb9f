"""Reshape and its kin: the same elements in the same order under other sizes."""

from __future__ import annotations

from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.reshaping import reshaped
from irc.analysis.channels.rules.registration import rule


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(view: NodeView) -> None:
    """Labels are reshaped as the data is."""
    if view.has(1):
        view.parameters(1)
    if view.node.op_type == "Reshape" and view.known(1) is None:
        return view.pin_inputs("computed sizes", f"{view.where} is told sizes that are not known", [0])
    return view.write(reshaped(view.constraints, view.read(0), view.dims_out(), view.where))


@rule("Transpose")
def transpose(view: NodeView) -> None:
    """Axes in another order; bundles stay as they are on the axes where they now lie."""
    tensor = view.read(0)
    order = view.node.attributes.get_ints("perm", list(range(tensor.rank))[::-1])
    view.write(tensor.transposed(order))
