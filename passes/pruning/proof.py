"""Proof, on the model at hand, that what the analysis calls channels can be cut, and that the cut took nothing else.

    permuted:  channels change places in all their weights; the outputs must stay
    masked:    the original with zeros wherever a product reads what was cut; the cut model must give its outputs
    commuted:  where a statistic (a LayerNormalization's) runs over what was cut, instead: permuted and then cut is cut

All run unoptimized. Equal means: up to a multiple of the model's own rounding noise, measured between the runtime's
optimized and unoptimized graphs of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irc.analysis.channels import ChannelGroups, Propagation
from irc.channel_oracles import commuted, masked, permuted
from irc.channel_oracles.relative_error import shapes_of, worst_error
from irc.pass_base import Context
from irc.runner import Runner
from irc.verification import first_feeds

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-5
NOISE_MULTIPLE = 20
SAMPLES = 2


class Disproved(Exception):
    """An oracle found the analysis wrong: a defect of irc, and the cut must not be used."""


def proved(
    propagation: Propagation, modes: Sequence[ChannelGroups], alive: Array, small: ir.Model, ctx: Context
) -> str:
    """Runs both oracles and says what they found.

    Args:
        propagation: Labels of the original.
        modes: Its groups.
        alive: The labels that were kept.
        small: The cut model.
        ctx: Data, or what stands in for it, and the runner.

    Raises:
        Disproved: If an output differs by more than rounding explains.
    """
    runner = ctx.runner
    assert runner is not None
    original = propagation.model
    feeds = first_feeds(runner, original, ctx, count=SAMPLES)
    if not feeds:
        return "not proved: the model runs on no generated input; give samples with --data"
    expected = _run(runner, original, feeds)
    noise = worst_error(expected, _run(runner, original, feeds, optimization="all"))
    tolerance = max(TOLERANCE, NOISE_MULTIPLE * noise)
    found = []
    for groups in modes:
        model, moved = permuted(groups, seed=ctx.seed)
        if moved:
            error = worst_error(expected, _run(runner, model, feeds))
            found.append(_checked(f"{moved} channels permuted by {groups.mode}", error, tolerance))
    changed = [f for groups in modes for f in groups.families if f.statistics and not alive[f.atoms].all()]
    outputs = _run(runner, small, feeds)
    if not changed and shapes_of(outputs) == shapes_of(expected):
        error = worst_error(_run(runner, masked(propagation, alive), feeds), outputs)
        found.append(_checked("cut channels zeroed", error, tolerance))
    else:
        for groups in modes:
            other = commuted(groups, alive, seed=ctx.seed)
            if other is not None:
                error = worst_error(outputs, _run(runner, other, feeds))
                found.append(_checked(f"cut after a permutation by {groups.mode}", error, tolerance))
    return f"proved on {len(feeds)} samples: " + ", ".join(found) if found else "nothing to prove"


def _checked(what: str, error: float, tolerance: float) -> str:
    if error > tolerance:
        raise Disproved(
            f"with {what} the outputs change by {error:.1e} of the largest, and rounding explains {tolerance:.0e}; "
            "report this as a defect of irc and leave the pass out"
        )
    return f"{what}: outputs within {error:.0e}"


def _run(runner: Runner, model: ir.Model, feeds: Sequence[Any], *, optimization: str = "none") -> list[list[Array]]:
    opened = runner.open(model, optimization=optimization)
    try:
        return [list(opened.run(feed).values()) for feed in feeds]
    finally:
        opened.close()
