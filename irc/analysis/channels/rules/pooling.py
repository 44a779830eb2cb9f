"""Pooling and sampling: operators that combine places within a channel."""

from __future__ import annotations

from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.rules.reductions import reduce
from irc.analysis.channels.rules.registration import rule


def pool(view: NodeView, *, channel: int = 1) -> None:
    """Windows slide along every axis but the batch and the channel."""
    tensor = view.read(0)
    for axis in range(1, tensor.rank):
        if axis != channel % tensor.rank:
            tensor = view.freed(tensor, axis, "pooled axis", "pools along this axis")
    view.write_bundles(tensor.bundles)


@rule("MaxPool", "AveragePool", "LpPool")
def pooling(view: NodeView) -> None:
    """y[n, c, ...] from windows of x[n, c, ...]; places of maxima count through all channels, so that none may go."""
    if view.makes(1):
        view.pin_inputs("places", f"{view.where} tells places in the whole tensor")
        return
    pool(view)


@rule("NhwcMaxPool", domain="com.microsoft")
def pooling_channels_last(view: NodeView) -> None:
    """The same with channels last."""
    pool(view, channel=-1)


@rule("QLinearAveragePool", domain="com.microsoft")
def quantized_pooling(view: NodeView) -> None:
    """The same on integers, channels where an attribute says."""
    pool(view, channel=-1 if view.node.attributes.get_int("channels_last", 0) else 1)


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pooling(view: NodeView) -> None:
    """y[n, c, 1, ...] from all of x[n, c, ...]."""
    reduce(view, range(2, view.read(0).rank), keepdims=True)


@rule("QLinearGlobalAveragePool", domain="com.microsoft")
def quantized_global_pooling(view: NodeView) -> None:
    """The same on integers, channels where an attribute says."""
    rank = view.read(0).rank
    reduce(
        view, range(1, rank - 1) if view.node.attributes.get_int("channels_last", 0) else range(2, rank), keepdims=True
    )


@rule("GridSample")
@rule("GridSample", domain="com.microsoft")
def grid_sample(view: NodeView) -> None:
    """y[n, c, ...] is x[n, c, ...] at places that the second input holds."""
    view.parameters(1)
    pool(view)


@rule("RoiAlign", "MaxRoiPool")
def region_pooling(view: NodeView) -> None:
    """y[r, c, ...] from a region of x[image of r, c, ...]."""
    view.parameters(*range(1, len(view.node.inputs)))
    tensor = view.read(0)
    for axis in range(tensor.rank):
        if axis != 1:
            tensor = view.freed(tensor, axis, "pooled axis", "pools along this axis")
    view.write_bundles(tensor.bundles)
