"""Channel groups: what may be cut from a model, which cuts belong together, and what pins the rest.

groups = channel_groups(model)  # or mode="columns"
for family in groups.families: ...
alive = groups.survivors({family: family.atoms[:8]})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import onnx_ir as ir

from irc.analysis.channels.allowed_outputs import check_outputs
from irc.analysis.channels.analysis_sizes import distinct_shapes
from irc.analysis.channels.bundles import Bundle, Labelled
from irc.analysis.channels.constraints import Constraints, Mode, Reason
from irc.analysis.channels.families import ChannelGroups, Family, FamilyAxis, PinnedAxis
from irc.analysis.channels.propagation import NodeView, Propagation
from irc.analysis.channels.slots import Slot
from irc.errors import UsageError


def propagate(
    model: ir.Model, *, sizes: Mapping[str, int] | None = None, allow_outputs: Sequence[str] = ()
) -> Propagation:
    """The labels of all values of a model and what its operators demand of them; the same for all modes.

    Args:
        model: As `irc.ir.load` leaves it; unchanged.
        sizes: Sizes of dynamic dimensions to analyse at; the result holds for all sizes.
        allow_outputs: Outputs of the model that may get narrower.

    Raises:
        UsageError: If `sizes` names no dynamic dimension of the model or holds a size below 1, or `allow_outputs` names no output.
    """
    from irc.analysis.channels.rules import all_rules

    if not isinstance(model, ir.Model):
        raise UsageError(
            f"channel groups are of an onnx_ir.Model, not of a {type(model).__name__}; irc.load(path) gives one"
        )
    if isinstance(allow_outputs, str):
        raise UsageError(f"allow_outputs is the text {allow_outputs!r}; give a list of names")
    check_outputs(model, allow_outputs)
    for name, size in (sizes or {}).items():
        if size < 1:
            raise UsageError(f"size {name}={size}; sizes to analyse at must be at least 1")
    propagation = Propagation(model, distinct_shapes(model, sizes), allow_outputs)
    propagation.run(all_rules())
    return propagation


def channel_groups(
    model: ir.Model,
    *,
    mode: Mode = "rows",
    sizes: Mapping[str, int] | None = None,
    allow_outputs: Sequence[str] = (),
) -> ChannelGroups:
    """What may be cut from a model, in families of channels, heads or neurons.

    Args:
        model: As `irc.ir.load` leaves it; unchanged.
        mode: "rows" cuts whole heads and groups of a convolution; "columns" the same number of members of every one.
        sizes: Sizes of dynamic dimensions to analyse at; the result holds for all sizes.
        allow_outputs: Outputs of the model that may get narrower.

    Raises:
        UsageError: If `mode` is none of the two, `sizes` names no dynamic dimension of the model or holds a size below 1, or
            `allow_outputs` names no output.
    """
    if mode not in get_args(Mode):
        raise UsageError(f"mode is {mode!r}; it must be one of {', '.join(get_args(Mode))}")
    return ChannelGroups(propagate(model, sizes=sizes, allow_outputs=allow_outputs), mode)


__all__ = [
    "Bundle",
    "ChannelGroups",
    "Constraints",
    "Family",
    "FamilyAxis",
    "Labelled",
    "Mode",
    "NodeView",
    "PinnedAxis",
    "Propagation",
    "Reason",
    "Slot",
    "channel_groups",
    "propagate",
]
