"""DepthToSpace and SpaceToDepth: channels that become places, and places that become channels."""

from __future__ import annotations

from irc.analysis.channels.bundles import Labelled
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.reshaping import reshaped
from irc.analysis.channels.rules.registration import rule


@rule("DepthToSpace")
def depth_to_space(view: NodeView) -> None:
    """Y[n, c, h r + i, w r + j] = X[n, (i r + j) C + c, h, w] (DCR) or X[n, (c r + i) r + j, h, w] (CRD).

    The r x r channels that become one are cut together.
    """
    r = view.node.attributes.get_int("blocksize", 1)
    column = view.node.attributes.get_string("mode", "DCR") == "DCR"
    tensor = _without_space(view, view.read(0))
    n, depth, h, w = tensor.dims
    made = depth // (r * r)
    inner = (r, r, made) if column else (made, r, r)
    tensor = reshaped(view.constraints, tensor, (n, *inner, h, w), view.where)
    for axis in (1, 2) if column else (2, 3):
        bundle = tensor.on(axis)
        if bundle is not None:
            view.constraints.picked.add(bundle.factors[bundle.position(axis)])
        tensor = view.freed(tensor, axis, "channels become places", "makes places of it")
    tensor = tensor.transposed((0, 3, 4, 1, 5, 2) if column else (0, 1, 4, 2, 5, 3))
    view.write(reshaped(view.constraints, tensor, view.dims_out(), view.where))


@rule("SpaceToDepth")
def space_to_depth(view: NodeView) -> None:
    """Y[n, (i r + j) C + c, h, w] = X[n, c, h r + i, w r + j]: every channel becomes r x r."""
    r = view.node.attributes.get_int("blocksize", 1)
    tensor = _without_space(view, view.read(0))
    n, depth, h, w = tensor.dims
    if h % r or w % r:  # the sizes analysed are not those the model is made for
        return view.pin_inputs("unknown shape", f"{view.where} reads sizes that are no multiples of its block")
    tensor = reshaped(view.constraints, tensor, (n, depth, h // r, r, w // r, r), view.where)
    tensor = tensor.transposed((0, 3, 5, 1, 2, 4))
    return view.write(reshaped(view.constraints, tensor, view.dims_out(), view.where))


def _without_space(view: NodeView, tensor: Labelled) -> Labelled:
    for axis in range(2, tensor.rank):
        tensor = view.freed(tensor, axis, "spatial axis", "mixes it with channels")
    return tensor
