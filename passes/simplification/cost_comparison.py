"""Is one model better than another that computes the same: nodes, multiply-accumulates, bytes, and then measured time?

Better means worse in nothing and better in something. What the cost model cannot tell of either does not count; what it
can tell of the original only counts against the other.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import onnx_ir as ir

from irc.analysis import cost
from irc.application import count_nodes
from irc.errors import DataError, RunnerError
from irc.ir import size_on_disk, weight_bytes
from irc.pass_base import Context

if TYPE_CHECKING:
    from irc.runner import Feed

SLOWER = 1.02
"""Ratio of latencies from which a model is slower, if the whole interval is above 1."""
SECONDS_PER_MODEL = 0.5
LONGEST_RUN = 2.0
"""Models that take longer (seconds) for one run are not measured: five rounds of both would take too long."""
LARGEST_MEASURED = 512 << 20
"""Models with more bytes of weights (512 MiB) are not measured, since both are open at the same time."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a model costs.

    Attributes:
        nodes: Number of nodes, bodies included.
        macs: Multiply-accumulates of the nodes whose cost is known.
        uncounted: Number of nodes whose cost is not known.
        moved: Bytes moved in one inference; None if unknown.
        weights: Bytes of weights.
        file: Bytes of the file.
    """

    nodes: int
    macs: int
    uncounted: int
    moved: int | None
    weights: int
    file: int

    @classmethod
    def of(cls, model: ir.Model) -> Costs:
        """The costs of a model, for assumed sizes of dynamic dimensions."""
        found = cost(model)
        return cls(
            count_nodes(model),
            found.macs,
            len(found.uncounted),
            found.moved_bytes,
            weight_bytes(model),
            size_on_disk(model),
        )


def why_not_better(before: Costs, after: Costs) -> str | None:
    """Why one model is not better than another: what got worse, or that nothing got better; None if it is better."""
    if after.moved is None and before.moved is not None:
        return f"bytes moved {before.moved} -> unknown"
    pairs = {
        "nodes": (before.nodes, after.nodes),
        "nodes of unknown cost": (before.uncounted, after.uncounted),
        "MACs": (before.macs, after.macs),
        "bytes moved": (before.moved or 0, after.moved or 0) if before.moved is not None else (0, 0),
        "bytes of weights": (before.weights, after.weights),
        "bytes of the file": (before.file, after.file),
    }
    worse = [f"{what} {old} -> {new}" for what, (old, new) in pairs.items() if new > old]
    if worse:
        return ", ".join(worse)
    # A shorter file alone may be a matter of names.
    better = any(new < old for what, (old, new) in pairs.items() if what != "bytes of the file")
    return None if better else f"nodes {before.nodes} -> {after.nodes}, and no fewer MACs or bytes"


def measured_slower(before: ir.Model, after: ir.Model, ctx: Context) -> str | None:
    """How much slower a model runs than another, in words, or None if it does not, beyond doubt, or cannot be measured.

    Args:
        before: The original.
        after: The other.
        ctx: Its runner runs them, on the first of its samples, else on a generated one.
    """
    from irc.latency import measure

    runner = ctx.runner
    if runner is None or weight_bytes(before) > LARGEST_MEASURED:
        return None
    feed = _feed(before, ctx)
    if feed is None:
        return None
    try:
        original = runner.open(before)
    except RunnerError:
        return None
    try:
        original.run(feed)
        start = time.perf_counter()
        original.run(feed)
        if time.perf_counter() - start > LONGEST_RUN:
            return None
    except RunnerError:
        original.close()
        return None
    try:
        other = runner.open(after)
        try:
            measured = measure(
                runner, [original, other], [feed], seconds_per_model=SECONDS_PER_MODEL, max_rounds=500, seed=ctx.seed
            )
        finally:
            other.close()
    except RunnerError as error:
        return f"ONNX Runtime does not run it: {error}"
    finally:
        original.close()
    ratio = measured.ratio(1, 0)
    if ratio.value > SLOWER and ratio.low > 1.0:
        return f"it takes {ratio.value:.2f} times as long ({ratio.low:.2f} to {ratio.high:.2f})"
    return None


def _feed(model: ir.Model, ctx: Context) -> Feed | None:
    from irc.calibration import DataSource, runnable_feeds

    assert ctx.runner is not None
    try:
        source = (
            ctx.data if isinstance(ctx.data, DataSource) else runnable_feeds(ctx.runner, model, count=1, seed=ctx.seed)
        )
        return next((sample.feed for sample in source.samples()), None)
    except (DataError, RunnerError):
        return None
