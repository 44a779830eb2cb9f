"""Leave in float what is slower as integers: proposed from the times of the nodes, decided by timing whole models.

Times of single nodes only propose. The proposal is built and timed against what there was, in turns, and taken only if
it is faster beyond doubt; then the nodes of the new model are timed, until nothing better is found.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from irc.application import SiteKey
from irc.latency import measure
from irc.site_times import FloatTimes, slower_as_integers

if TYPE_CHECKING:
    import onnx_ir as ir

    from irc.pass_manager import RunResult
    from irc.runner import Feed, Runner
    from irc.target import QuantizationStyle

ROUNDS = 3
LEAST_SPEEDUP = 1.01
"""A proposal has to be faster by this factor, and faster beyond doubt."""
_PROFILE_SECONDS = 0.5
_TIMING_SECONDS = 1.5


@dataclasses.dataclass
class TimedPlacement:
    """What was decided.

    Attributes:
        build: The model to go on with.
        denied: The rewrites left out, with the reason: those given, and those that do not pay.
        left: How many of them do not pay.
    """

    build: RunResult
    denied: dict[SiteKey, str]
    left: int = 0


def leave_slower_in_float(
    runner: Runner,
    base: ir.Model,
    current: RunResult,
    denied: Mapping[SiteKey, str],
    keys: Sequence[SiteKey],
    *,
    build: Callable[[Mapping[SiteKey, str]], RunResult],
    style: QuantizationStyle,
    feeds: Sequence[Feed],
    seed: int = 0,
    progress: Callable[[float, str], None] = lambda fraction, what: None,
) -> TimedPlacement:
    """Takes back the rewrites that make the model slower here.

    Args:
        runner: Where models run.
        base: The float model.
        current: The rewritten model.
        denied: Rewrites it was built without.
        keys: All rewrites there may be, `denied` among them.
        build: Builds the model without the given rewrites.
        style: The target's.
        feeds: Inputs to time on.
        seed: Of the interval of the ratio.
        progress: Told what is being done.

    Raises:
        RunnerError: If a model cannot run a feed.
    """
    found = TimedPlacement(current, dict(denied))
    progress(0.0, "timing every node in float and in int8")
    float_times = FloatTimes.measured(runner, base, style, feeds, seconds=_PROFILE_SECONDS)
    for _ in range(ROUNDS):
        by_site = {key.site: key for key in keys if key not in found.denied}
        slower = slower_as_integers(
            runner, base, found.build.model, by_site, style, feeds, float_times, seconds=_PROFILE_SECONDS
        )
        if not slower.sites:
            break
        more = {by_site[site]: _reason(*times) for site, times in slower.sites.items()}
        proposal = build({**found.denied, **more})
        progress(0.5, f"timing with {len(more)} of {len(by_site)} sites left in float")
        if not _faster(runner, found.build.model, proposal.model, feeds, seed):
            break
        found = TimedPlacement(proposal, {**found.denied, **more}, found.left + len(more))
    return found


def _faster(runner: Runner, before: ir.Model, after: ir.Model, feeds: Sequence[Feed], seed: int) -> bool:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(runner.open(model)) for model in (before, after)]
        ratio = measure(runner, opened, feeds, seconds_per_model=_TIMING_SECONDS, seed=seed).ratio(0, 1)
    return ratio.value >= LEAST_SPEEDUP and ratio.low > 1.0


def _reason(in_float: float, as_integers: float) -> str:
    times = f"{as_integers:.0f} us as integers, {in_float:.0f} us in float"
    if as_integers > in_float:
        return f"left in float: measured slower here ({times})"
    return f"left in float: measured slower here with the conversions around it ({times} without them)"
