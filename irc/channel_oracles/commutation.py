"""The commutation oracle: atoms that change places before a cut, and the same cut without, give models that compute the same.

It needs no zeros, so that it holds for families whose removal changes a statistic, which the zero oracle leaves out: it
finds what surgery lays out wrongly, or counts wrongly, in the residual stream of a transformer too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Propagation
from irc.analysis.channels.bundles import Array
from irc.analysis.channels.rules import all_rules
from irc.analysis.concrete_shapes import ConcreteShapes
from irc.channel_oracles.correspondence import correspondence
from irc.channel_oracles.permutation import permuted
from irc.channel_surgery import cut
from irc.ir import snapshot


def commuted(groups: ChannelGroups, alive: Array, *, seed: int = 0) -> ir.Model | None:
    """The permuted model, cut where the atoms that do not survive have gone: it must compute what the cut model does.

    Args:
        groups: Solved groups.
        alive: A boolean per label.
        seed: Of the random order.

    Returns:
        None if the permuted model is labelled otherwise, as one whose initializers are no longer shared may be.
    """
    before = groups.propagation
    target, _moved = correspondence(groups, np.random.default_rng(seed))
    model, _moved = permuted(groups, seed=seed)
    after = Propagation(model, ConcreteShapes(model, before.shapes.sizes), sorted(before.allowed))
    after.run(all_rules())
    same = len(before.slots) == len(after.slots) and all(
        one.view == other.view and [b.axes for b in one.bundles] == [b.axes for b in other.bundles]
        for one, other in zip(before.slots, after.slots, strict=True)
    )
    if not same or before.constraints.count != after.constraints.count:
        return None
    small = snapshot(model)
    cut(small, after, alive[target])
    return small
