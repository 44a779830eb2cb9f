"""Normalization: operators that subtract and divide by statistics of some axes, then scale and shift.

Scale and shift meet the data like operands of a broadcast; labels on a normalized axis change what survivors compute, those on any
other axis do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from irc.analysis.channels.alignment import Group, Letter
from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.propagation import NodeView
from irc.analysis.channels.reshaping import reshaped
from irc.analysis.channels.rules.registration import rule

_NORMALIZES = "normalizes by all of them"


def along(view: NodeView, groups: Sequence[Group], letters: Sequence[Letter], text: str) -> None:
    """Labels on some letters change a statistic when they are cut along these."""
    for group in groups:
        axes = [axis for axis, letter in zip(group.bundle.axes, group.letters, strict=True) if letter in letters]
        if axes:
            view.statistic(group.bundle, text, axes)


def normalize(
    view: NodeView, operands: Sequence[int], axes: Sequence[int], *, parameters: Sequence[int] = ()
) -> list[Group]:
    """Operands of a broadcast, normalized along some axes of the result.

    Args:
        view: The node.
        operands: Inputs aligned at the right.
        axes: Normalized axes of the first.
        parameters: Inputs with one element per channel, axis 1.

    Returns:
        The groups, their letters the axes of the result.
    """
    rank = view.read(operands[0]).rank
    meeting: list[tuple[Labelled, Sequence[Letter | None]]] = []
    for index in operands:
        if view.has(index):
            tensor = view.read(index)
            meeting.append((tensor, range(rank - tensor.rank, rank)))
    meeting += [(view.read(index), (1,)) for index in parameters if view.has(index)]
    groups = view.align(*meeting)
    along(view, groups, axes, _NORMALIZES)
    view.write_bundles(view.kept(groups, range(rank)))
    return groups


def _axis(view: NodeView, default: int) -> int:
    rank = view.read(0).rank
    return view.node.attributes.get_int("axis", default) % rank


@rule("BatchNormalization")
def batch_normalization(view: NodeView) -> None:
    """y[n, c, ...] = (x[n, c, ...] - mean[c]) / sqrt(var[c] + epsilon) * scale[c] + bias[c]."""
    attributes = view.node.attributes
    further = any(view.makes(index) for index in range(1, len(view.node.outputs)))
    if further or attributes.get_int("training_mode", 0) != 0 or attributes.get_int("spatial", 1) != 1:
        view.pin_inputs("training", f"{view.where} is in training mode")
        return
    normalize(view, (0,), (), parameters=(1, 2, 3, 4))


@rule("InstanceNormalization")
def instance_normalization(view: NodeView) -> None:
    """Every channel of every sample over the axes behind it, then scale[c] and bias[c]."""
    normalize(view, (0,), range(2, view.read(0).rank), parameters=(1, 2))


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
@rule("SimplifiedLayerNormalization", domain="com.microsoft")
def layer_normalization(view: NodeView) -> None:
    """All axes from `axis` on, then scale and bias along them; mean and deviation have these axes of size 1."""
    axis, rank = _axis(view, -1), view.read(0).rank
    groups = normalize(view, (0, 1, 2), range(axis, rank))
    _moments(view, groups, axis, rank, (1, 2))


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain="com.microsoft")
def skip_layer_normalization(view: NodeView) -> None:
    """LayerNormalization(input + skip + bias) along the last axis; the sum is an output too."""
    rank = view.read(0).rank
    groups = normalize(view, range(len(view.node.inputs)), (rank - 1,))
    _moments(view, groups, rank - 1, rank, (1, 2))
    if view.makes(3):
        view.write_bundles(view.kept(groups, range(rank)), 3)


def _moments(view: NodeView, groups: Sequence[Group], axis: int, rank: int, outputs: Sequence[int]) -> None:
    letters: list[Letter] = [i if i < axis else ("one", i) for i in range(rank)]
    for index in outputs:
        if view.makes(index):
            view.write_bundles(view.kept(groups, letters), index)


@rule("EmbedLayerNormalization", domain="com.microsoft")
def embed_layer_normalization(view: NodeView) -> None:
    """LayerNormalization(word[ids] + position[place] + segment[kind]), features along the last axis of the tables."""
    view.parameters(0, 1, 7, 8)
    operands: list[tuple[Labelled, Sequence[Letter | None]]] = []
    for index in range(2, 7):
        if view.has(index):
            tensor = view.read(index)
            if tensor.rank == 2:
                tensor = view.freed(tensor, 0, "embedding rows", "looks rows of it up")
            operands.append((tensor, (2,) if tensor.rank == 1 else (("row", index), 2)))
    groups = view.align(*operands)
    along(view, groups, (2,), _NORMALIZES)
    view.write_bundles(view.kept(groups, range(3)))
    if view.makes(2):
        view.write_bundles(view.kept(groups, range(3)), 2)


@rule("LpNormalization")
def lp_normalization(view: NodeView) -> None:
    """Y = x / norm of x along `axis`."""
    normalize(view, (0,), (_axis(view, -1),))


@rule("MeanVarianceNormalization")
def mean_variance_normalization(view: NodeView) -> None:
    """Y = (x - mean) / deviation over `axes`."""
    rank = view.read(0).rank
    normalize(view, (0,), [axis % rank for axis in view.node.attributes.get_ints("axes", [0, 2, 3])])


@rule("LRN")
def local_response_normalization(view: NodeView) -> None:
    """Sums over neighbouring channels, so that their order and distance count."""
    view.write(view.freed(view.read(0), 1, "neighbouring channels", "normalizes by neighbouring channels"))


@rule("GroupNormalization")
def group_normalization(view: NodeView) -> None:
    """Every group of channels over its channels and the axes behind; scale and bias per channel, before opset 21 per group."""
    groups = view.node.attributes.get_int("num_groups", 1)
    normalize_groups(view, 1, groups, (0,), (1, 2), per_group=view.opset < 21)


@rule("GroupNorm", "SkipGroupNorm", domain="com.microsoft")
def runtime_group_norm(view: NodeView) -> None:
    """The same with channels last; with a skip connection and a bias added before, their sum a second output."""
    rank = view.read(0).rank
    axis = rank - 1 if view.node.attributes.get_int("channels_last", 1) else 1
    groups = view.node.attributes.get_int("groups", 1)
    skips = view.node.op_type == "SkipGroupNorm"
    like = [3] if skips and view.read(3).dims == view.read(0).dims else []
    if skips and not like:
        view.pin_inputs("broadcast", f"{view.where} broadcasts its skip connection")
        return
    normalize_groups(view, axis, groups, (0, *like), (1, 2, 4) if skips else (1, 2))


def normalize_groups(
    view: NodeView,
    axis: int,
    groups: int,
    operands: Sequence[int],
    parameters: Sequence[int],
    *,
    per_group: bool = False,
) -> None:
    """Groups of channels normalized one by one.

    Args:
        view: The node.
        axis: The axis of the channels.
        groups: How many groups there are.
        operands: Inputs with the shape of the first.
        parameters: Inputs with one element per channel.
        per_group: Whether these have one per group instead.
    """
    dims = view.read(operands[0]).dims
    split = (*dims[:axis], groups, dims[axis] // groups, *dims[axis + 1 :])
    letters: list[Letter] = [*range(axis), "group", "member", *range(axis + 1, len(dims))]
    meeting: list[tuple[Labelled, Sequence[Letter | None]]] = [
        (reshaped(view.constraints, view.read(index), split, view.where), letters) for index in operands
    ]
    for index in parameters:
        if view.has(index) and per_group:
            meeting.append((view.read(index), ("group",)))
        elif view.has(index):
            pair = (groups, dims[axis] // groups)
            meeting.append((reshaped(view.constraints, view.read(index), pair, view.where), ("group", "member")))
    found = view.align(*meeting)
    inside = [letter for i, letter in enumerate(letters) if i > 0 and letter != "group"]
    along(view, found, inside, _NORMALIZES)
    bundles: list[Bundle] = view.kept(found, letters)
    for bundle in bundles:
        view.constraints.box(bundle)
    result = reshaped(view.constraints, Labelled(split, tuple(bundles)), dims, view.where)
    view.write_bundles(result.bundles)
    if view.makes(1):
        view.write_bundles(result.bundles, 1)
